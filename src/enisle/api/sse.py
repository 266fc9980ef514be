"""A stream of events to one reader (WHATWG HTML, "Server-sent events"), never ahead of it by more than a few pieces.

Its source is asked for more only when the reader's socket took what was there: what waits, waits in the source, which
keeps only the latest of everything. A reader whose socket takes nothing for `PATIENCE_S` is dropped, and with it what
the kernel holds for it.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

from starlette.types import Receive, Scope, Send

from enisle.api.problems import log
from enisle.api.services import Services

PATIENCE_S = 20.0
HEARTBEAT_S = 10.0
AHEAD = 1024
"""Bytes that may wait in the process and, besides, unsent in the kernel (tcp(7), TCP_NOTSENT_LOWAT)."""
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


def event(name: str, data: bytes, identity: str = "") -> bytes:
    """Return one event; `data` is one line of JSON."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {name}\ndata: ".encode() + data + b"\n\n"


HEARTBEAT = b": still here\n\n"


class EventStream:
    """An answer whose parts come from a generator of bytes. It ends with its source, its reader or the process.

    `at_once`: somebody may be typing; else small parts wait for each other.
    """

    def __init__(self, services: Services, source: AsyncGenerator[bytes, None], at_once: bool = False) -> None:
        self._services, self._source, self._at_once = services, source, at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        measures = self._services.measures
        measures.readers += 1
        ends = [
            asyncio.ensure_future(self._pump(scope, send)),
            asyncio.ensure_future(_gone(receive)),
            asyncio.ensure_future(self._services.closing.wait()),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if ends[0].done() and (defect := ends[0].exception()):
                log.error("a stream met a defect of ours", exc_info=defect)
                abort(scope)
            elif ends[2].done():
                abort(scope)
        finally:
            measures.readers -= 1
            for one in ends:
                one.cancel()
            await asyncio.wait(ends)
            await self._source.aclose()

    async def _pump(self, scope: Scope, send: Send) -> None:
        _keep_close(scope, self._at_once)
        try:
            await self._send(send, {"type": "http.response.start", "status": 200, "headers": HEADERS})
            async for part in self._source:
                await self._send(send, {"type": "http.response.body", "body": part, "more_body": True})
                # The server waits before it writes; this waits until it could write more, so that what the source is
                # asked for next is not made before its time.
                await self._send(send, {"type": "http.response.body", "body": b"", "more_body": True})
            await self._send(send, {"type": "http.response.body", "body": b""})
        except TimeoutError:
            self._services.measures.dropped += 1
            abort(scope)
        except OSError:
            pass  # it hung up

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await send(message)


async def with_heartbeats(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield what `source` does, and a comment whenever it was silent for `HEARTBEAT_S`."""
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(source))
            await asyncio.wait([following], timeout=HEARTBEAT_S)
            if not following.done():
                yield HEARTBEAT
                continue
            try:
                part = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield part
    finally:
        if following:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        await source.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> asyncio.Transport | None:
    """Return the connection, which our server's protocol puts into the scope; other servers do not."""
    return scope.get("enisle.transport")


def _keep_close(scope: Scope, at_once: bool) -> None:
    """Let little wait between us and the reader, so that what it gets is new."""
    if transport := _transport(scope):
        transport.set_write_buffer_limits(high=AHEAD)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, AHEAD)
                # Events of a busy platform go together: a packet each fills a small window with their headers.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, at_once)


def abort(scope: Scope) -> None:
    """Cut the connection: closing it in order would wait for a reader that does not read."""
    if transport := _transport(scope):
        transport.abort()
