"""The islands of a platform, as its client for coroutines shows them: made, used, removed."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from enisle.api import schemas
from enisle.api.client_commands import AsyncPlatformCommand, open_body
from enisle.api.reaching import Json, new_key
from enisle.api.results import Result, Text, command_body, island_body, require_done

if TYPE_CHECKING:
    from enisle.api.client_async import AsyncPlatform

Output = Callable[[bytes], object]


class AsyncIslandList:
    """The islands of a platform."""

    def __init__(self, platform: "AsyncPlatform") -> None:
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

    async def list(self, state: str = "", host: str = "") -> Sequence["AsyncPlatformIsland"]:
        query = {"state": state, "host": host}
        found = await self._platform.ask("GET", "/v1/islands", schemas.Islands, params=query)
        return [AsyncPlatformIsland(self._platform, one) for one in found.items]


class AsyncPlatformIsland:
    """An island of a platform. As a context manager it is removed at the end."""

    def __init__(self, platform: "AsyncPlatform", seen: schemas.Island) -> None:
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

    async def open(
        self,
        argv: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        tty: bool = False,
        size: tuple[int, int] = (24, 80),
        **more: Any,
    ) -> AsyncPlatformCommand:
        """Start a command that is written to and read from while it runs; `tty`: at a terminal of (rows, columns).

        `more`: timeout, if_blocked. It goes on when nobody is there; `attach(task)` comes back to it.
        """
        body = open_body(argv, env, cwd, tty, size, more)
        path = f"/v1/islands/{self.name}/exec"
        return AsyncPlatformCommand(
            self._platform, (await self._platform.ask("POST", path, schemas.Task, new_key(), json=body)).id
        )

    def attach(self, task: str) -> AsyncPlatformCommand:
        """Return a command that was opened before, by its task."""
        return AsyncPlatformCommand(self._platform, task)

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

    def __init__(self, platform: "AsyncPlatform", name: str) -> None:
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
