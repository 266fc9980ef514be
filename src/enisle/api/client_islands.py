"""The islands of a platform, as its client shows them: made, used, removed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from enisle.api import schemas
from enisle.api.client_commands import PlatformCommand, open_body
from enisle.api.reaching import Json, new_key
from enisle.api.results import Result, Text, command_body, island_body, require_done

if TYPE_CHECKING:
    from enisle.api.client import Platform

Output = Callable[[bytes], object]


class IslandList:
    """The islands of a platform."""

    def __init__(self, platform: "Platform") -> None:
        self._platform = platform

    def create(
        self,
        *,
        name: str = "",
        memory: str | int = "",
        program: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float | None = 60,
        **more: Any,
    ) -> "PlatformIsland":
        """Make an island and return it when it runs; `more` as for `enisle.Island`, and `host`.

        Raises InvalidRequest, StateError when the name is taken, TaskFailed, TimeoutError.
        """
        body = island_body(program, env, {"name": name, "memory": memory, **more})
        task = self._platform.ask("POST", "/v1/islands", schemas.Task, new_key(), json=body)
        done = require_done(self._platform.tasks.wait(task.id, timeout))
        return self.get(str(done.arguments["name"]))

    def get(self, name: str) -> "PlatformIsland":
        """Return an island. Raises NotFound."""
        found = self._platform.ask("GET", f"/v1/islands/{name}", schemas.Island)
        return PlatformIsland(self._platform, found)

    def list(self, state: str = "", host: str = "") -> Sequence["PlatformIsland"]:
        query = {"state": state, "host": host}
        found = self._platform.ask("GET", "/v1/islands", schemas.Islands, params=query)
        return [PlatformIsland(self._platform, one) for one in found.items]


class PlatformIsland:
    """An island of a platform. As a context manager it is removed at the end."""

    def __init__(self, platform: "Platform", seen: schemas.Island) -> None:
        self._platform, self.name, self.seen = platform, seen.name, seen
        self.files = IslandFiles(platform, seen.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove(force=True)

    def refresh(self) -> schemas.Island:
        """Look again and return what is seen. Raises NotFound."""
        self.seen = self._platform.ask("GET", f"/v1/islands/{self.name}", schemas.Island)
        return self.seen

    def start_command(
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
        return self._platform.ask("POST", f"/v1/islands/{self.name}/exec", schemas.Task, new_key(), json=body)

    def open(
        self,
        argv: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        tty: bool = False,
        size: tuple[int, int] = (24, 80),
        **more: Any,
    ) -> PlatformCommand:
        """Start a command that is written to and read from while it runs; `tty`: at a terminal of (rows, columns).

        `more`: timeout, if_blocked. It goes on when nobody is there; `attach(task)` comes back to it.
        """
        body = open_body(argv, env, cwd, tty, size, more)
        path = f"/v1/islands/{self.name}/exec"
        return PlatformCommand(
            self._platform, (self._platform.ask("POST", path, schemas.Task, new_key(), json=body)).id
        )

    def attach(self, task: str) -> PlatformCommand:
        """Return a command that was opened before, by its task."""
        return PlatformCommand(self._platform, task)

    def exec(
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
        task, text = self.start_command(argv, **more), Text()
        for name, told in self._platform.stream(f"/v1/tasks/{task.id}/output"):
            if name == "chunk":
                chunk = msgspec.convert(told, schemas.Chunk)
                content, listener = text.add(chunk), on_stderr if chunk.stream == "stderr" else on_stdout
                if listener:
                    listener(content)
            elif name == "end":
                text.truncated = bool(told.get("truncated"))
        return text.result(require_done(self._platform.tasks.wait(task.id)))

    def logs(self, follow: bool = False) -> Iterator[bytes]:
        """Yield what the island's program wrote, and with `follow` what it writes until it ends."""
        if follow:
            for name, told in self._platform.stream(f"/v1/islands/{self.name}/logs"):
                if name == "chunk":
                    yield Text().add(msgspec.convert(told, schemas.Chunk))
            return
        after = 0
        while True:
            told = self._platform.ask("GET", f"/v1/islands/{self.name}/logs", schemas.Output, params={"after": after})
            yield from (Text().add(chunk) for chunk in told.chunks)
            if not told.chunks:
                return
            after = told.next

    def processes(self) -> Sequence[Json]:
        return self._platform.ask("GET", f"/v1/islands/{self.name}/processes", schemas.Things).items

    def statistics(self) -> Json:
        return self._platform.ask("GET", f"/v1/islands/{self.name}/statistics", dict[str, Any])

    def start(self) -> None:
        self._do("POST", "/start")

    def stop(self) -> None:
        self._do("POST", "/stop")

    def remove(self, force: bool = False) -> None:
        """Remove it; one that runs only with `force`."""
        self._do("DELETE", "", params={"force": "1" if force else "0"})

    def _do(self, method: str, what: str, **more: Any) -> None:
        if method == "POST":
            more["json"] = {}
        task = self._platform.ask(method, f"/v1/islands/{self.name}{what}", schemas.Task, new_key(), **more)
        require_done(self._platform.tasks.wait(task.id))


class IslandFiles:
    """The files of an island."""

    def __init__(self, platform: "Platform", name: str) -> None:
        self._platform, self._base = platform, f"/v1/islands/{name}"

    def read(self, path: str) -> bytes:
        """Raises NotFound, StateError."""
        return self._platform.ask("GET", f"{self._base}/files", bytes, params={"path": path})

    def write(self, path: str, content: bytes | str, mode: int | None = None) -> None:
        """Make `content` the whole of a file (at most 16 MiB)."""
        query = {"path": path} | ({"mode": f"{mode:o}"} if mode is not None else {})
        raw = content.encode() if isinstance(content, str) else content
        headers = {"Content-Type": "application/octet-stream"}
        task = self._platform.ask(
            "PUT", f"{self._base}/files", schemas.Task, new_key(), params=query, content=raw, headers=headers
        )
        require_done(self._platform.tasks.wait(task.id))

    def list(self, path: str = "/") -> Sequence[Json]:
        return self._platform.ask("GET", f"{self._base}/listing", schemas.Things, params={"path": path}).items
