"""A platform in one process for tests of the API: the store in memory, a dispatcher, an agent, and small parts."""

import asyncio
import base64
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from enisle.api.app import make_app
from enisle.api.auth import Guard
from enisle.api.server import bind, make_server, serving, url_of
from enisle.api.services import Health, Services
from enisle.api.tokens import TokenBook
from enisle.control.calls import check_call
from enisle.errors import NotFound, StateError
from enisle.tasks import (
    ENDED,
    EVERY,
    Agent,
    Context,
    Dispatcher,
    Failure,
    Journal,
    LaneFigures,
    Outcome,
    Overloaded,
    Request,
    Resource,
    Task,
    Tasks,
    View,
    example_routines,
    task_id,
)
from memory_store import MemoryStore

LOCAL = "enisle_local_" + "t" * 43


class SmallHistory:
    def __init__(self) -> None:
        self.kept: dict[str, Task] = {}

    def find(self, id: str) -> Task | None:
        return self.kept.get(id)

    def list(
        self, tenant: str, state: str = "", resource: str = "", routine: str = "", before: float = 0, limit: int = 50
    ) -> list[Task]:
        mine = [
            task
            for task in self.kept.values()
            if tenant in (task.tenant, EVERY)
            and (not state or task.state == state)
            and (not routine or task.routine == routine)
            and (not before or task.submitted <= before)
            and (not resource or any(f"{one.kind}/{one.id}" == resource for one in task.resources))
        ]
        return sorted(mine, key=lambda task: task.submitted, reverse=True)[:limit]

    def audit(self, limit: int = 100, **asked: Any) -> Sequence[Any]:
        return []

    submitted = audit


class SmallOperations:
    """Islands that are records only; their commands are sleeping tasks that hold them."""

    def __init__(self, view: View, tasks: Any) -> None:
        self._view, self._tasks = view, tasks
        self.files: dict[tuple[str, str], bytes] = {}

    async def create_island(self, spec: dict[str, Any], tenant: str, actor: str, key: str = "") -> Task:
        name = spec.get("name") or "made-up"
        request = Request("test.island@1", {"name": name, "tenant": tenant}, (Resource("island", name),), key=key)
        return await self._tasks(tenant, actor).submit(request)

    async def islands(self, tenant: str) -> list[Any]:
        records = sorted(self._view.records.items())
        return [self._shown(key) for key, record in records if tenant in (record["tenant"], EVERY)]

    async def require_own(self, resources: Iterable[Resource], tenant: str) -> None:
        for one in resources:
            if self._view.records.get(one.name, {}).get("tenant", tenant) != tenant:
                raise NotFound(f"there is no {one.kind} {one.id}", "", "")

    async def island(self, name: str, tenant: str) -> Any:
        record = self._view.records.get(f"island.{name}")
        if record is None or tenant not in (record["tenant"], EVERY):
            raise NotFound(f"there is no island {name}", "", "`enisle island ls`")
        return self._shown(f"island.{name}")

    def _shown(self, key: str) -> Any:
        lock = self._view.locks.get(key)
        return {
            **self._view.records[key],
            "holder": lock.holders[0] if lock else None,
            "exit_code": None,
            "memory_used": 1 << 20,
            "processes": 1,
            "age": 0.5,
        }

    async def exec_island(self, name: str, argv: list[str], **more: Any) -> Task:
        await self.island(name, more["tenant"])
        request = Request(
            "platform.sleep@1",
            {"seconds": float(argv[0]) if argv[0].replace(".", "").isdigit() else 0.05},
            (Resource("island", name),),
            if_blocked=more["if_blocked"],
            key=more["key"],
        )
        return await self._tasks(more["tenant"], more["actor"]).submit(request)

    async def _simple(self, name: str, **more: Any) -> Task:
        return await self.exec_island(
            name,
            ["0.05"],
            **{key: more[key] for key in ("tenant", "actor", "key")} | {"if_blocked": more.get("if_blocked", "wait")},
        )

    start_island = stop_island = remove_island = _simple

    async def write_file(self, name: str, path: str, content: bytes, mode: int | None, **more: Any) -> Task:
        task = await self._simple(name, **more)
        self.files[name, path] = content
        return task

    async def read_file(self, name: str, path: str, offset: int, limit: int) -> bytes:
        if (name, path) not in self.files:
            raise NotFound(f"there is no file {path}", "", "")
        return self.files[name, path][offset : offset + limit]

    async def list_files(self, name: str, path: str) -> list[Any]:
        return [{"name": path}]

    async def island_processes(self, name: str) -> list[Any]:
        return [{"pid": 1}]

    async def island_statistics(self, name: str) -> Any:
        return {"calls": 1}

    async def task_output(self, task: str, after: int, wait_s: float, tail: int = 0) -> Any:
        chunks = [{"n": n, "stream": "stdout", "data": "aGkK", "time": 1.0} for n in range(after, 3)]
        return {"chunks": chunks[:2], "next": after + len(chunks[:2]), "ended": after + 2 >= 3, "truncated": False}

    async def task_input(self, task: str, writer: str, offset: int, content: bytes, end: bool = False) -> Any:
        if self._view.tasks[task].state in ENDED:
            raise StateError(f"the command of task {task} takes no input", "it has ended", "")
        return {"next": offset + len(content), "later": False}

    async def resize_terminal(self, task: str, rows: int, columns: int) -> None:
        await self.task_input(task, "", 0, b"")

    async def logs(self, name: str, after: int, tail: int, wait_s: float = 0) -> Any:
        return await self.task_output("", after, 0)

    async def vms(self, tenant: str) -> list[Any]:
        return []

    async def vm(self, name: str, tenant: str) -> Any:
        raise NotFound(f"there is no machine {name}", "", "")

    async def _no_vm(self, name: str, *words: str, **more: Any) -> Task:
        raise NotFound(f"there is no machine {name}", "", "")

    stop_vm = pause_vm = resume_vm = remove_vm = introspect_vm = _no_vm

    async def whole(self, result: Any) -> Any:
        return result

    async def run_vm(self, spec: Any, **more: Any) -> Task:
        raise NotFound("there is no kernel there", "", "")

    async def hosts(self) -> list[Any]:
        return [await self.host(name) for name in sorted(self._view.hosts)]

    async def host(self, name: str) -> Any:
        if name not in self._view.hosts:
            raise NotFound(f"there is no host {name}", "", "`enisle host ls`")
        facts = {"processors": 2, "memory": 1 << 30, "version": "0", "islands": 0, "vms": 0, "tasks": 0, "since": 1.0}
        return {"name": name, "state": "live", **facts}


class SmallCalls:
    """Calls that are over after a moment, `sleep N` after N seconds; what came of them is what was asked for."""

    def __init__(self) -> None:
        self.ends: dict[tuple[str, str], tuple[float, Outcome]] = {}
        self.full = False

    async def run(
        self, arguments: dict[str, Any], tenant: str, key: str = "", wait_s: float = 0
    ) -> tuple[str, Outcome | None]:
        asked = check_call(arguments, tenant)
        if self.full:
            raise Overloaded("the queue is full", "10000 calls wait", "try again in a moment")
        call = task_id(tenant, key or str(len(self.ends)))
        result = {
            "exit_code": 0,
            "timed_out": False,
            "seconds": 0.1,
            "stdout": base64.b64encode(asked.stdin).decode() if asked.encoding == "base64" else asked.stdin.decode(),
            "stderr": "",
            "truncated": False,
            "encoding": asked.encoding,
            "reason": None,
        }
        failure = Failure("the call ends its worker", "", "") if asked.argv == ["deadly"] else None
        over = time.monotonic() + (float(asked.argv[1]) if asked.argv[0] == "sleep" and len(asked.argv) == 2 else 0.01)
        self.ends.setdefault((tenant, call), (over, Outcome(call, 1, None if failure else result, failure)))
        return call, await self.wait(call, tenant, wait_s)

    async def wait(self, call: str, tenant: str, wait_s: float = 0) -> Outcome | None:
        for (owner, one), (over, outcome) in self.ends.items():
            if one == call and tenant in (owner, EVERY):
                await asyncio.sleep(max(0.0, min(wait_s, over - time.monotonic())))
                return outcome if time.monotonic() >= over else None
        raise NotFound(f"there is no call {call}", "", "")

    async def figures(self) -> LaneFigures:
        return LaneFigures(0, 0, len(self.ends), 0, 0, 0)


def make_routines(store: MemoryStore) -> Any:
    routines = example_routines()

    async def island(context: Context) -> str:
        name = context.arguments["name"]
        await asyncio.sleep(0.02)
        key = f"res.island.{name}"
        record = {
            "name": name,
            "host": "h1",
            "tenant": context.arguments["tenant"],
            "state": "running",
            "configuration": {},
            "program": [],
            "created": time.time(),
            "memory_limit": 1 << 28,
            "notes": [],
        }
        await store.cas(key, record, store.now(key).revision)
        return name

    async def noisy(context: Context) -> int:
        for number in range(context.arguments["count"]):
            context.progress(number / context.arguments["count"], "noise")
            await asyncio.sleep(0.05)
        return context.arguments["count"]

    routines.add("test.island@1", island, name=str, tenant=str)
    routines.add("test.noisy@1", noisy, count=int)
    return routines


class Platform:
    """The parts together, and an app on them."""

    def __init__(self, state: Path) -> None:
        self.store, self.progress = MemoryStore(), MemoryStore()
        self.view = View(self.store, self.progress)
        self.routines = make_routines(self.store)
        self.history = SmallHistory()
        self.book = TokenBook(self.store, LOCAL)
        self.healthy = Health()
        self.calls = SmallCalls()
        self.state = state
        self.services = self._services()
        self.app = make_app(self.services)

    def _services(self) -> Services:
        async def health() -> Health:
            return self.healthy

        async def admit(name: str, key: str) -> Any:
            return {"engine_url": "tls://h", "ca": "", "host": name}

        async def expel(name: str) -> None:
            raise NotFound(f"there is no host {name}", "", "")

        def tasks(tenant: str, actor: str) -> Tasks:
            return Tasks(self.store, tenant, actor, self.history)  # pyright: ignore[reportArgumentType]

        def routines() -> list[Any]:
            return [
                {"name": name, "usage": self.routines.get(name).usage, "parameters": {}}
                for name in self.routines.names()
            ]

        return Services(
            tasks=tasks,
            view=self.view,
            operations=SmallOperations(self.view, tasks),
            calls=self.calls,
            book=self.book,
            guard=Guard(self.book),
            history=self.history,
            routines=routines,
            health=health,
            safe_mode=lambda: self.healthy.safe_mode,
            admit_host=admit,
            expel_host=expel,
            island_spec=dict,
            vm_spec=dict,
            state=self.state,
            console=self.state / "console",
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Platform"]:
        """Dispatcher, agent and view; the app's own lifespan is its server's affair."""
        with Journal(self.state / "journal.db") as journal:
            agent = Agent(self.store, self.progress, self.routines, journal, "h1")
            parts = [self.view.run(), Dispatcher(self.store, "d").run(), agent.run()]
            tasks = [asyncio.create_task(part) for part in parts]
            try:
                while not self.view.hosts:
                    for one in tasks:
                        assert not one.done(), one
                    await asyncio.sleep(0.01)
                yield self
            finally:
                for one in tasks:
                    one.cancel()
                await asyncio.wait(tasks)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """The app on a socket of loopback, by the server it has in truth; its address."""
        sock = bind("127.0.0.1", 0)
        async with self.running(), serving(make_server(self.app, self.services), sock):
            yield url_of(sock, False)

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[str]:
        """The same in a thread of its own, for what is not a coroutine."""
        address: queue.Queue[str] = queue.Queue()
        stop: list[Callable[[], object]] = []

        async def main() -> None:
            end, loop = asyncio.Event(), asyncio.get_running_loop()
            self.loop = loop
            stop.append(lambda: loop.call_soon_threadsafe(end.set))
            async with self.served() as url:
                address.put(url)
                await end.wait()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        try:
            yield address.get(timeout=20)
        finally:
            stop[0]()
            thread.join(20)

    @contextlib.asynccontextmanager
    async def client(self, token: str = LOCAL, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client without a network between."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.app.router.lifespan_context(self.app):
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=20, **more
            ) as client:
                yield client
