"""Output of tasks and islands: one answer that may wait, or a stream of pieces that can be resumed."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp

from enisle.api.on_input import glance
from enisle.api.problems import document, encode
from enisle.api.services import Json
from enisle.api.sse import EventStream, event, with_heartbeats
from enisle.api.table import Answer, Call
from enisle.errors import EnisleError, InvalidRequest

SHORT_S = 0.05
"""Before a host is asked again that could not wait for something new."""
WAIT_S = 5.0
Ask = Callable[[int, float], Awaitable[Json]]


async def of_task(call: Call) -> Answer | ASGIApp:
    identity, operations = await glance(call), call.services.operations
    tail = [call.query.tail]

    async def ask(after: int, wait_s: float) -> Json:
        """The tail is of the first answer; what follows goes on from there."""
        told = await operations.task_output(identity, after, wait_s, tail[0])
        tail[0] = 0
        return told

    return await _answer(call, ask)


async def of_island(call: Call) -> Answer | ASGIApp:
    operations, name, tenant = call.services.operations, call.path["name"], call.principal.tenant
    await operations.island(name, tenant)
    tail = [call.query.tail]

    async def ask(after: int, wait_s: float) -> Json:
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            told = await operations.logs(name, after, tail[0], max(0.0, end - asyncio.get_running_loop().time()))
            if told["chunks"] or told["ended"] or asyncio.get_running_loop().time() >= end:
                tail[0] = 0
                return told
            await asyncio.sleep(SHORT_S)

    return await _answer(call, ask)


async def _answer(call: Call, ask: Ask) -> Answer | ASGIApp:
    after = _resumed(call)
    if "text/event-stream" not in call.request.headers.get("accept", ""):
        return Answer(await ask(after, call.query.wait))
    first = await ask(after, 0)  # what is wrong is told as a problem, not in the middle of a stream
    return EventStream(call.services, with_heartbeats(_stream(ask, first)), at_once=True)


async def _stream(ask: Ask, told: Json) -> AsyncGenerator[bytes, None]:
    """Yield pieces as events `chunk`, whose id is where to resume, and `end`; a failure is an event `problem`."""
    while True:
        chunks: list[dict[str, Any]] = told["chunks"]
        for chunk in chunks:
            yield event("chunk", encode(chunk), str(chunk["n"] + 1))
        if told["ended"] and not chunks:
            yield event("end", encode({"truncated": told["truncated"]}), str(told["next"]))
            return
        try:
            told = await ask(told["next"], 0 if told["ended"] else WAIT_S)
        except EnisleError as error:
            yield event("problem", encode(document(error)))
            return


def _resumed(call: Call) -> int:
    """Return where to go on: Last-Event-ID, else `after`. Raises InvalidRequest."""
    given = call.request.headers.get("last-event-id", "")
    if not given:
        return call.query.after
    if not (given.isascii() and given.isdigit() and len(given) <= 16):
        raise InvalidRequest(f"no piece of output is named {given[:60]!r}", "it has a number", "use `after`")
    return int(given)
