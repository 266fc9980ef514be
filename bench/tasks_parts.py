"""A platform to be measured: an engine, a dispatcher and an agent in processes of their own, a client in this one.

`python -m bench.tasks_parts dispatcher|agent|worker|hosts URL DIRECTORY` is what those processes run.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from enisle.tasks import (
    ENDED,
    PINNED,
    PROGRESS,
    Agent,
    Archive,
    Context,
    Copy,
    Dispatcher,
    Engine,
    History,
    JetStream,
    Journal,
    LaneCall,
    LaneWorker,
    Request,
    Resource,
    Routines,
    State,
    Tasks,
    View,
)
from enisle.tasks.server import die_with

CALLS, LEASES = "calls.log", "leases.json"
Figures = dict[str, float]


class Parts:
    """What a measure has: an engine, a directory, and on demand the rest of a platform."""

    def __init__(self, engine: Engine, directory: Path, quick: bool = False, minutes: float = 0) -> None:
        self.engine, self.directory, self.quick, self.minutes = engine, directory, quick, minutes
        self.url = engine.url
        """Where the other parts find an engine: this one, unless a measure brings its own."""
        self.pids: dict[str, int] = {}
        self.view: View
        self.tasks: Tasks

    @property
    def calls(self) -> Path:
        """What the worker has begun: a line for each."""
        return self.directory / CALLS

    @property
    def leases(self) -> Path:
        """What the hosts say of their leases at the end."""
        return self.directory / LEASES

    @contextlib.asynccontextmanager
    async def role(self, role: str, directory: Path | None = None) -> AsyncGenerator[None]:
        """Run a part in a process of its own."""
        command = [sys.executable, "-m", "bench.tasks_parts", role, self.url, str(directory or self.directory)]
        process = await asyncio.create_subprocess_exec(*command, preexec_fn=die_with(os.getpid()))
        self.pids[role] = process.pid
        try:
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    @contextlib.asynccontextmanager
    async def platform(self) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for role in ("dispatcher", "agent"):
                await stack.enter_async_context(self.role(role))
            store = await stack.enter_async_context(JetStream(self.url))
            progress = await stack.enter_async_context(JetStream(self.url, bucket=PROGRESS))
            self.view = View(store, progress)
            running = asyncio.create_task(self.view.run())
            stack.push_async_callback(end_task, running)
            await self.view.ready()
            self.tasks = Tasks(store, view=self.view)
            task = await self.tasks.submit(Request("bench.nothing@1"))  # until all are up
            await self.tasks.wait(task.id, 60)
            yield


async def end_task(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def nothing_on(thing: str) -> Request:
    """Ask for a task that holds a thing and does nothing, on the host that has an agent."""
    return Request("bench.nothing@1", {}, (Resource("thing", thing),), host="h1", placement=PINNED)


async def latencies(parts: Parts, count: int) -> list[float]:
    """Return the seconds from submitting a task until its end is seen, one after the other."""
    taken: list[float] = []
    for number in range(count):
        begin = time.perf_counter()
        task = await parts.tasks.submit(nothing_on(f"t{number % 8}"))
        ended = await parts.tasks.wait(task.id, 60)
        taken.append(time.perf_counter() - begin)
        assert ended.state is State.DONE, ended
    return taken


async def burst(parts: Parts, count: int) -> float:
    """Return how many tasks a second end when all are submitted at once, each on a resource of its own."""
    begin = time.perf_counter()
    async with parts.view.subscribe(parts.view.revision) as subscription:
        made = await asyncio.gather(*(parts.tasks.submit(nothing_on(f"b{number}")) for number in range(count)))
        open_ones = {task.id for task in made}
        while open_ones:
            for news in await subscription.news():
                if news.kind == "task" and (news.value is None or news.value.state in ENDED):
                    open_ones.discard(news.id)
    return count / (time.perf_counter() - begin)


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def memory_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


async def run_dispatcher(url: str, directory: Path) -> None:
    async with JetStream(url) as store:
        with History(directory / "history.db") as history:
            await Dispatcher(store, "bench", archive=Archive(history, Copy(store))).run()


async def run_agent(url: str, directory: Path) -> None:
    routines = Routines()

    async def nothing(context: Context) -> None:
        return None

    routines.add("bench.nothing@1", nothing)
    async with JetStream(url) as store, JetStream(url, bucket=PROGRESS) as progress:
        with Journal(directory / "journal.db") as journal:
            await Agent(store, progress, routines, journal, "h1").run()


async def run_worker(url: str, directory: Path) -> None:
    log = os.open(directory / CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def nothing(call: LaneCall) -> None:
        os.write(log, f"{call.id}\n".encode())

    async with JetStream(url) as store, LaneWorker(store) as worker:
        await worker.work(nothing)


async def run_hosts(url: str, directory: Path) -> None:
    """Hosts that do nothing but renew their leases; at the end they tell what was left of the shortest."""
    async with JetStream(url) as store:
        leases = [
            await store.lease(f"host.s{number}", {"host": f"s{number}"}, store.lease_ttl_s) for number in range(300)
        ]
        least, ended = store.lease_ttl_s, asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        while not ended.is_set():
            least = min(least, *(lease.left_s() for lease in leases))
            await asyncio.sleep(0.05)
        lost = sum(not lease.held for lease in leases)
        (directory / LEASES).write_text(json.dumps({"lost": lost, "least_s": least}))


ROLES = {"dispatcher": run_dispatcher, "agent": run_agent, "worker": run_worker, "hosts": run_hosts}

if __name__ == "__main__":
    role, url, directory = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(ROLES[role](url, Path(directory)))
