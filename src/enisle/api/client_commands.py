"""Commands that are talked to, as the client shows them: written to, read from, resized, waited for; sync and async.

Leaving one alone does not end it: it goes on without anybody, and `attach` comes back to it. Not for several threads.
"""

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from enisle.api import schemas
from enisle.api.reaching import new_key
from enisle.api.results import ENDED, Result, Text, command_body, require_done

if TYPE_CHECKING:
    from enisle.api.client import Platform
    from enisle.api.client_async import AsyncPlatform

PIECE = 64 << 10
OCTETS = {"Content-Type": "application/octet-stream"}


def open_body(
    argv: Sequence[str] | str, env: Mapping[str, str] | None, cwd: str, tty: bool, size: tuple[int, int], more: Any
) -> dict[str, Any]:
    """Return the body that starts a command whose input stays open; `size`: (rows, columns) of its terminal."""
    terminal = {"tty": True, "rows": size[0], "columns": size[1]} if tty else {}
    return command_body(argv, env, cwd, b"", more.pop("timeout", None)) | terminal | {"input": "open", **more}


class _Command:
    """What both kinds of command have: a task, and how far its input is."""

    def __init__(self, task: str) -> None:
        self.task = task
        self._path = f"/v1/tasks/{task}"
        self._writer, self._offset = os.urandom(8).hex(), 0

    def _pieces(self, content: bytes | str) -> Iterator[bytes]:
        """Yield what is to be sent next until all was taken: `_took` moves on."""
        rest = content.encode() if isinstance(content, str) else content
        begin = self._offset
        while self._offset - begin < len(rest):
            at = self._offset - begin
            yield rest[at : at + PIECE]

    def _sending(self, piece: bytes, end: bool = False) -> dict[str, Any]:
        query = {"offset": self._offset, "writer": self._writer} | ({"end": "true"} if end else {})
        return {"params": query, "content": piece, "headers": dict(OCTETS)}


class PlatformCommand(_Command):
    """A command on an island, running. Iterate over it for ("stdout" or "stderr", bytes)."""

    def __init__(self, platform: "Platform", task: str) -> None:
        super().__init__(task)
        self._platform = platform

    def write(self, content: bytes | str) -> None:
        """Return when the command's input has taken all of it. Raises StateError when it takes no more."""
        for piece in self._pieces(content):
            self._offset = self._send(piece).next

    def end(self) -> None:
        """Let the command read the end of its input."""
        while self._send(b"", end=True).later:
            pass

    def _send(self, piece: bytes, end: bool = False) -> schemas.Taken:
        sending = self._sending(piece, end)
        return self._platform.ask("POST", f"{self._path}/input", schemas.Taken, new_key(), **sending)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the command's terminal. Raises StateError without one."""
        size = {"rows": rows, "columns": columns}
        self._platform.ask("POST", f"{self._path}/terminal", type(None), new_key(), json=size)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for name, told in self._platform.stream(f"{self._path}/output"):
            if name == "chunk":
                chunk = msgspec.convert(told, schemas.Chunk)
                yield chunk.stream, Text().add(chunk)

    def wait(self, timeout: float | None = None) -> Result:
        """Return how it ended; output has to be read from it. Raises TimeoutError, TaskFailed, StateError."""
        return Text().result(require_done(self._platform.tasks.wait(self.task, timeout)))

    def cancel(self) -> None:
        """End it."""
        self._platform.tasks.cancel(self.task, "its client is done with it")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._platform.tasks.get(self.task).state not in ENDED:
            self.cancel()


class AsyncPlatformCommand(_Command):
    """A command on an island, running. Iterate over it for ("stdout" or "stderr", bytes)."""

    def __init__(self, platform: "AsyncPlatform", task: str) -> None:
        super().__init__(task)
        self._platform = platform

    async def write(self, content: bytes | str) -> None:
        """Return when the command's input has taken all of it. Raises StateError when it takes no more."""
        for piece in self._pieces(content):
            self._offset = (await self._send(piece)).next

    async def end(self) -> None:
        """Let the command read the end of its input."""
        while (await self._send(b"", end=True)).later:
            pass

    async def _send(self, piece: bytes, end: bool = False) -> schemas.Taken:
        sending = self._sending(piece, end)
        return await self._platform.ask("POST", f"{self._path}/input", schemas.Taken, new_key(), **sending)

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of the command's terminal. Raises StateError without one."""
        size = {"rows": rows, "columns": columns}
        await self._platform.ask("POST", f"{self._path}/terminal", type(None), new_key(), json=size)

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        async for name, told in self._platform.stream(f"{self._path}/output"):
            if name == "chunk":
                chunk = msgspec.convert(told, schemas.Chunk)
                yield chunk.stream, Text().add(chunk)

    async def wait(self, timeout: float | None = None) -> Result:
        """Return how it ended; output has to be read from it. Raises TimeoutError, TaskFailed, StateError."""
        return Text().result(require_done(await self._platform.tasks.wait(self.task, timeout)))

    async def cancel(self) -> None:
        """End it."""
        await self._platform.tasks.cancel(self.task, "its client is done with it")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if (await self._platform.tasks.get(self.task)).state not in ENDED:
            await self.cancel()
