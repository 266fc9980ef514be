"""Handlers: islands, what runs in them, their files."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp

from enisle.api import forms
from enisle.api.cursors import page_of
from enisle.api.decode import read_body
from enisle.api.on_tasks import submitted
from enisle.api.services import Json
from enisle.api.table import Answer, Call
from enisle.errors import InvalidRequest

MAX_FILE = 16 << 20
PART = 256 << 10


def given(body: msgspec.Struct, *without: str) -> dict[str, Any]:
    """Return the fields of a body that say something, so that what stands on them keeps its own defaults."""
    told = msgspec.structs.asdict(body)
    return {name: value for name, value in told.items() if value and name not in without}


async def create(call: Call) -> Answer:
    body: forms.IslandRequest = call.body
    spec = call.services.island_spec(**given(body, "if_blocked"))
    return await submitted(call, await call.services.operations.create_island(spec, *_who(call), key=call.key))


async def index(call: Call) -> Answer:
    return chosen(call, await call.services.operations.islands(call.principal.tenant))


def chosen(call: Call, things: list[Json]) -> Answer:
    """Answer with the islands or machines that were asked for."""
    asked: forms.ThingFilter = call.query
    fit = [one for one in things if asked.state in ("", one["state"]) and asked.host in ("", one["host"])]
    filters = f"things {call.principal.tenant} {asked.state} {asked.host}"
    return Answer(page_of(fit, filters, asked.limit, asked.cursor))


async def show(call: Call) -> Answer:
    return Answer(await call.services.operations.island(call.path["name"], call.principal.tenant))


async def run(call: Call) -> Answer:
    body: forms.ExecRequest = call.body
    try:
        stdin = base64.b64decode(body.stdin, validate=True)
    except ValueError:
        raise InvalidRequest("the input cannot be read", "stdin is not base64", "encode it") from None
    task = await call.services.operations.exec_island(
        call.path["name"],
        body.argv,
        env=body.env,
        cwd=body.cwd,
        stdin=stdin,
        timeout_s=body.timeout_s,
        input=body.input,
        terminal=(body.rows, body.columns) if body.tty else (),
        **_asked(call),
    )
    return await submitted(call, task)


async def start(call: Call) -> Answer:
    return await submitted(call, await call.services.operations.start_island(call.path["name"], **_asked(call)))


async def stop(call: Call) -> Answer:
    return await submitted(call, await call.services.operations.stop_island(call.path["name"], **_asked(call)))


async def remove(call: Call) -> Answer:
    operations = call.services.operations
    return await submitted(
        call, await operations.remove_island(call.path["name"], force=call.query.force, **_asked(call))
    )


async def write_file(call: Call) -> Answer:
    content = await read_body(call.request, MAX_FILE)
    asked: forms.FileWrite = call.query
    mode = int(asked.mode, 8) if asked.mode else None
    operations = call.services.operations
    task = await operations.write_file(call.path["name"], asked.path, content, mode, **_asked(call))
    return await submitted(call, task)


async def read_file(call: Call) -> ASGIApp:
    """Send a file in parts; the first is read before the answer begins, so that what is wrong is told as a problem."""
    operations, name, path = call.services.operations, call.path["name"], call.query.path
    await operations.island(name, call.principal.tenant)
    first = await operations.read_file(name, path, 0, PART)

    async def parts() -> AsyncIterator[bytes]:
        part, offset = first, 0
        while part:
            yield part
            offset += len(part)
            part = await operations.read_file(name, path, offset, PART)

    return StreamingResponse(parts(), media_type="application/octet-stream")


async def listing(call: Call) -> Answer:
    return await _ask(call, "list_files", call.query.path)


async def processes(call: Call) -> Answer:
    return await _ask(call, "island_processes")


async def statistics(call: Call) -> Answer:
    name = call.path["name"]
    await call.services.operations.island(name, call.principal.tenant)
    return Answer(await call.services.operations.island_statistics(name))


async def _ask(call: Call, question: str, *words: str) -> Answer:
    name = call.path["name"]
    await call.services.operations.island(name, call.principal.tenant)
    return Answer({"items": await getattr(call.services.operations, question)(name, *words)})


def _who(call: Call) -> tuple[str, str]:
    return call.principal.tenant, call.principal.actor


def _asked(call: Call) -> dict[str, Any]:
    """Return who asks and how, as every operation takes it."""
    tenant, actor = _who(call)
    return {
        "tenant": tenant,
        "actor": actor,
        "key": call.key,
        "if_blocked": getattr(call.body, "if_blocked", "wait"),
    }
