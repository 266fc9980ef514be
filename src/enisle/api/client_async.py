"""The Python client for coroutines: what `client` does, awaited.

    async with AsyncPlatform() as platform, await platform.islands.create(memory="256M") as island:
        print((await island.exec(["uname", "-a"])).stdout)

Errors come back as the kinds of `enisle.errors`. What changes something carries a key, so it is asked again when an
answer is lost, and done once. One event loop owns a platform.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx
import msgspec

from enisle.api import schemas
from enisle.api.reaching import (
    PATIENCE_S,
    EventReader,
    Json,
    error_of,
    find_address,
    is_worth_asking_again,
    lost,
    new_key,
    pauses,
)
from enisle.api.results import ENDED, Event, Result, Text, command_body, island_body, require_done

Kind = TypeVar("Kind")
Output = Callable[[bytes], object]


class AsyncPlatform:
    """A platform. Without an address: ENISLE_URL, else the current context, else the one of this computer."""

    def __init__(self, url: str | None = None, token: str | None = None, *, ca: str = "") -> None:
        address = find_address(url, token)
        self.url = address.url
        self._http = httpx.AsyncClient(**(address._replace(ca=ca) if ca else address).options())
        self.tasks, self.islands, self.vms = AsyncTaskList(self), AsyncIslandList(self), AsyncVmList(self)
        self.hosts, self.tokens = AsyncHostList(self), AsyncTokenList(self)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask(self, method: str, path: str, kind: type[Kind], key: str = "", **more: Any) -> Kind:
        """Return an answer. Raises EnisleError. Asked again when lost, if it is a GET or has a key."""
        if key:
            more.setdefault("headers", {})["Idempotency-Key"] = key
        response = await self._send(method, path, bool(key) or method in ("GET", "DELETE"), more)
        if kind is bytes:
            return response.content  # pyright: ignore[reportReturnType]
        return msgspec.json.decode(response.content or b"null", type=kind)

    async def _send(self, method: str, path: str, again: bool, more: Json) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        for pause in pauses():
            try:
                response = await self._http.request(method, path, **more)
                if response.is_success:
                    return response
                problem = error_of(response)
                again = again and is_worth_asking_again(response)
            except httpx.TransportError as error:
                problem = lost(self.url, error)
            if not again or time.monotonic() + pause > deadline:
                raise problem
            await asyncio.sleep(pause)
        raise AssertionError

    async def events(self) -> AsyncIterator[Event]:
        """Yield everything that is, `current`, then what changes, for ever; resumed where it broke off."""
        async for name, told in self.stream("/v1/events"):
            yield Event(name, str(told.get("id", "")), told.get("value"))

    async def stream(self, path: str, **query: Any) -> AsyncIterator[tuple[str, Any]]:
        """Yield a stream's events; a connection that breaks is made again. Raises EnisleError."""
        reader, since = EventReader(), time.monotonic()
        for pause in pauses():
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": reader.last} if reader.last else {})
            try:
                async with self._http.stream("GET", path, params=query, headers=headers) as response:
                    if not response.is_success:
                        await response.aread()
                        raise error_of(response)
                    async for line in response.aiter_lines():
                        since = time.monotonic()
                        if event := reader.feed(line):
                            yield event
                            if event[0] in ("end", "problem"):
                                return
            except httpx.TransportError as error:
                if time.monotonic() - since > PATIENCE_S:
                    raise lost(self.url, error) from error
            reader = reader.again()
            await asyncio.sleep(pause)

    async def health(self) -> schemas.Health:
        """Return whether the platform works, and why not."""
        response = await self._http.get("/healthz")
        return msgspec.json.decode(response.content, type=schemas.Health)


class AsyncTaskList:
    """The tasks of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def submit(
        self,
        routine: str,
        arguments: Mapping[str, Any] | None = None,
        resources: Sequence[tuple[str, str] | tuple[str, str, str]] = (),
        *,
        key: str = "",
        **more: Any,
    ) -> schemas.Task:
        """Submit a task and return it at once; `resources` are (kind, id) or (kind, id, mode).

        `more`: host, placement, attempts, deadline_s, if_blocked. Raises InvalidRequest, StateError when blocked.
        """
        held = [dict(zip(("kind", "id", "mode"), one, strict=False)) for one in resources]
        body = {"routine": routine, "arguments": dict(arguments or {}), "resources": held, **more}
        return await self._platform.ask("POST", "/v1/tasks", schemas.Task, key or new_key(), json=body)

    async def get(self, task: str, wait: float = 0) -> schemas.Task:
        """Return a task, after at most `wait` seconds when it ends later. Raises NotFound."""
        return await self._platform.ask("GET", f"/v1/tasks/{task}", schemas.Task, params={"wait": min(30.0, wait)})

    async def list(self, state: str = "", resource: str = "", routine: str = "") -> AsyncIterator[schemas.Task]:
        """Yield tasks, newest first; pages are asked for as they are needed."""
        query = {"state": state, "resource": resource, "routine": routine, "limit": 100, "cursor": ""}
        while True:
            page = await self._platform.ask("GET", "/v1/tasks", schemas.TaskPage, params=query)
            for task in page.items:
                yield task
            if not page.next:
                return
            query["cursor"] = page.next

    async def wait(self, task: str, timeout: float | None = None) -> schemas.Task:
        """Return a task at its end. Raises TimeoutError, NotFound."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            left = deadline - time.monotonic()
            found = await self.get(task, max(0.0, min(25.0, left)))
            if found.state in ENDED:
                return found
            if time.monotonic() >= deadline:
                raise TimeoutError(f"task {task} is {found.state} after {timeout} s")

    async def cancel(self, task: str, why: str = "") -> schemas.Task:
        """Ask for the end of a task. Raises StateError when it has ended."""
        return await self._platform.ask("POST", f"/v1/tasks/{task}/cancel", schemas.Task, json={"why": why})

    async def retry(self, task: str) -> schemas.Task:
        """Submit an ended task again."""
        return await self._platform.ask("POST", f"/v1/tasks/{task}/retry", schemas.Task, json={})

    async def output(self, task: str) -> AsyncIterator[schemas.Chunk]:
        """Yield what a task's command writes, as it comes, to its end."""
        async for name, told in self._platform.stream(f"/v1/tasks/{task}/output"):
            if name == "chunk":
                yield msgspec.convert(told, schemas.Chunk)

    async def routines(self) -> Sequence[schemas.RoutineEntry]:
        return (await self._platform.ask("GET", "/v1/routines", schemas.RoutineList)).items

    async def resources(self) -> Sequence[schemas.HeldResource]:
        return (await self._platform.ask("GET", "/v1/resources", schemas.ResourceList)).items

    async def unlock(self, kind: str, id: str, reason: str) -> schemas.Freed:
        """Unlock a resource, as an operator. Raises StateError when it is not locked."""
        path = f"/v1/resources/{kind}/{id}/unlock"
        return await self._platform.ask("POST", path, schemas.Freed, json={"reason": reason})


class AsyncIslandList:
    """The islands of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def create(
        self,
        *,
        name: str = "",
        memory: str | int = "",
        program: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float | None = 60,
        **more: Any,
    ) -> "AsyncPlatformIsland":
        """Make an island and return it when it runs; `more` as for `enisle.Island`, and `host`.

        Raises InvalidRequest, StateError when the name is taken, TaskFailed, TimeoutError.
        """
        body = island_body(program, env, {"name": name, "memory": memory, **more})
        task = await self._platform.ask("POST", "/v1/islands", schemas.Task, new_key(), json=body)
        done = require_done(await self._platform.tasks.wait(task.id, timeout))
        return await self.get(str(done.arguments["name"]))

    async def get(self, name: str) -> "AsyncPlatformIsland":
        """Return an island. Raises NotFound."""
        found = await self._platform.ask("GET", f"/v1/islands/{name}", schemas.Island)
        return AsyncPlatformIsland(self._platform, found)

    async def list(self) -> Sequence["AsyncPlatformIsland"]:
        found = await self._platform.ask("GET", "/v1/islands", schemas.Islands)
        return [AsyncPlatformIsland(self._platform, one) for one in found.items]


class AsyncPlatformIsland:
    """An island of a platform. As a context manager it is removed at the end."""

    def __init__(self, platform: AsyncPlatform, seen: schemas.Island) -> None:
        self._platform, self.name, self.seen = platform, seen.name, seen
        self.files = AsyncIslandFiles(platform, seen.name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.remove(force=True)

    async def refresh(self) -> schemas.Island:
        """Look again and return what is seen. Raises NotFound."""
        self.seen = await self._platform.ask("GET", f"/v1/islands/{self.name}", schemas.Island)
        return self.seen

    async def start_command(
        self,
        argv: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        stdin: bytes | str = b"",
        timeout: float | None = None,
        if_blocked: str = "wait",
    ) -> schemas.Task:
        """Submit a command and return its task at once; a text is given to `sh -c`."""
        body = command_body(argv, env, cwd, stdin, timeout) | {"if_blocked": if_blocked}
        return await self._platform.ask("POST", f"/v1/islands/{self.name}/exec", schemas.Task, new_key(), json=body)

    async def exec(
        self,
        argv: Sequence[str] | str,
        *,
        on_stdout: Output | None = None,
        on_stderr: Output | None = None,
        **more: Any,
    ) -> Result:
        """Run a command to its end; output is passed on as it comes. `more` as for `start_command`.

        Raises TaskFailed when it could not be run, StateError when it was cancelled.
        """
        task, text = await self.start_command(argv, **more), Text()
        async for name, told in self._platform.stream(f"/v1/tasks/{task.id}/output"):
            if name == "chunk":
                chunk = msgspec.convert(told, schemas.Chunk)
                content, listener = text.add(chunk), on_stderr if chunk.stream == "stderr" else on_stdout
                if listener:
                    listener(content)
            elif name == "end":
                text.truncated = bool(told.get("truncated"))
        return text.result(require_done(await self._platform.tasks.wait(task.id)))

    async def logs(self, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what the island's program wrote, and with `follow` what it writes until it ends."""
        if follow:
            async for name, told in self._platform.stream(f"/v1/islands/{self.name}/logs"):
                if name == "chunk":
                    yield Text().add(msgspec.convert(told, schemas.Chunk))
            return
        after = 0
        while True:
            told = await self._platform.ask(
                "GET", f"/v1/islands/{self.name}/logs", schemas.Output, params={"after": after}
            )
            for chunk in told.chunks:
                yield Text().add(chunk)
            if not told.chunks:
                return
            after = told.next

    async def processes(self) -> Sequence[Json]:
        return (await self._platform.ask("GET", f"/v1/islands/{self.name}/processes", schemas.Things)).items

    async def statistics(self) -> Json:
        return await self._platform.ask("GET", f"/v1/islands/{self.name}/statistics", dict[str, Any])

    async def start(self) -> None:
        await self._do("POST", "/start")

    async def stop(self) -> None:
        await self._do("POST", "/stop")

    async def remove(self, force: bool = False) -> None:
        """Remove it; one that runs only with `force`."""
        await self._do("DELETE", "", params={"force": "1" if force else "0"})

    async def _do(self, method: str, what: str, **more: Any) -> None:
        if method == "POST":
            more["json"] = {}
        task = await self._platform.ask(method, f"/v1/islands/{self.name}{what}", schemas.Task, new_key(), **more)
        require_done(await self._platform.tasks.wait(task.id))


class AsyncIslandFiles:
    """The files of an island."""

    def __init__(self, platform: AsyncPlatform, name: str) -> None:
        self._platform, self._base = platform, f"/v1/islands/{name}"

    async def read(self, path: str) -> bytes:
        """Raises NotFound, StateError."""
        return await self._platform.ask("GET", f"{self._base}/files", bytes, params={"path": path})

    async def write(self, path: str, content: bytes | str, mode: int | None = None) -> None:
        """Make `content` the whole of a file (at most 16 MiB)."""
        query = {"path": path} | ({"mode": f"{mode:o}"} if mode is not None else {})
        raw = content.encode() if isinstance(content, str) else content
        headers = {"Content-Type": "application/octet-stream"}
        task = await self._platform.ask(
            "PUT", f"{self._base}/files", schemas.Task, new_key(), params=query, content=raw, headers=headers
        )
        require_done(await self._platform.tasks.wait(task.id))

    async def list(self, path: str = "/") -> Sequence[Json]:
        return (await self._platform.ask("GET", f"{self._base}/listing", schemas.Things, params={"path": path})).items


class AsyncVmList:
    """The full Linux machines of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def list(self) -> Sequence[schemas.Vm]:
        return (await self._platform.ask("GET", "/v1/vms", schemas.Vms)).items

    async def get(self, name: str) -> schemas.Vm:
        return await self._platform.ask("GET", f"/v1/vms/{name}", schemas.Vm)

    async def run(self, kernel: str, **more: Any) -> schemas.Task:
        """Boot a kernel; `more`: name, initrd, append, memory, processors, disks, accelerator, host."""
        body = {"kernel": kernel, **more}
        return await self._platform.ask("POST", "/v1/vms", schemas.Task, new_key(), json=body)

    async def act(self, name: str, action: str, **more: Any) -> schemas.Task:
        """Submit `stop`, `pause`, `resume`, or `introspect` with its view."""
        return await self._platform.ask("POST", f"/v1/vms/{name}/{action}", schemas.Task, new_key(), json=more)

    async def remove(self, name: str) -> schemas.Task:
        return await self._platform.ask("DELETE", f"/v1/vms/{name}", schemas.Task, new_key())


class AsyncHostList:
    """The hosts of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def list(self) -> Sequence[schemas.Host]:
        return (await self._platform.ask("GET", "/v1/hosts", schemas.Hosts)).items

    async def get(self, name: str) -> schemas.Host:
        return await self._platform.ask("GET", f"/v1/hosts/{name}", schemas.Host)

    async def declare_dead(self, name: str, reason: str) -> schemas.Given:
        path = f"/v1/hosts/{name}/declare-dead"
        return await self._platform.ask("POST", path, schemas.Given, json={"reason": reason})

    async def remove(self, name: str) -> None:
        await self._platform.ask("DELETE", f"/v1/hosts/{name}", type(None))


class AsyncTokenList:
    """The tokens of a platform; needs the scope admin."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def create(
        self, name: str, scopes: Sequence[str] = ("read",), tenant: str = "default", expires_s: float = 0
    ) -> schemas.TokenEntry:
        """Make a token; its secret is in `token`, this once."""
        body = {"name": name, "scopes": list(scopes), "tenant": tenant, "expires_s": expires_s}
        return await self._platform.ask("POST", "/v1/tokens", schemas.TokenEntry, json=body)

    async def list(self) -> Sequence[schemas.TokenEntry]:
        return (await self._platform.ask("GET", "/v1/tokens", schemas.TokenList)).items

    async def revoke(self, token: str) -> None:
        """Raises NotFound."""
        await self._platform.ask("DELETE", f"/v1/tokens/{token}", type(None))
