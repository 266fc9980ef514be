"""Handlers: the platform itself and its hosts."""

from typing import Any

from starlette.responses import Response

import enisle
from enisle.api.metrics import exposition
from enisle.api.table import Answer, Call
from enisle.errors import NotFound, StateError


async def index(call: Call) -> Answer:
    return Answer({"items": await call.services.operations.hosts()})


async def show(call: Call) -> Answer:
    return Answer(await call.services.operations.host(call.path["name"]))


async def join(call: Call) -> Answer:
    admitted = await call.services.admit_host(call.body.name, call.body.public_key)
    await note(call, "admit-host", host=call.body.name, public_key=call.body.public_key)
    return Answer(admitted, 201)


async def note(call: Call, act: str, **about: Any) -> None:
    """Tell the audit what was done."""
    await call.services.book.note(act, call.principal.actor, call.principal.tenant, **about)


async def declare_dead(call: Call) -> Answer:
    name = call.path["name"]
    await call.tasks().declare_dead(name, call.body.reason)
    return Answer({"name": name, "state": "gone"})


async def drain(call: Call) -> Answer:
    return await _drained(call, True)


async def undrain(call: Call) -> Answer:
    return await _drained(call, False)


async def _drained(call: Call, on: bool) -> Answer:
    name = call.path["name"]
    await call.tasks().drain(name, call.body.reason, on)
    found = await call.services.operations.host(name)
    if found["state"] in ("live", "draining"):  # our own picture may not have it yet
        found |= {"state": "draining" if on else "live", "why": call.body.reason if on else ""}
    return Answer(found)


async def remove(call: Call) -> Answer:
    """Forget a host. One with a key at our engine is silenced first; another has to be silent."""
    name, silenced = call.path["name"], True
    try:
        await call.services.expel_host(name)
    except (NotFound, StateError):
        silenced = False
    await call.tasks().forget_host(name, silenced)
    await note(call, "expel-host", host=call.path["name"])
    return Answer(None, 204)


async def version(call: Call) -> Answer:
    return Answer({"version": enisle.__version__, "api": "v1"})


async def health(call: Call) -> Answer:
    found = await call.services.health()
    reasons = [*([f"safe mode: {found.safe_mode}"] if found.safe_mode else []), *found.reasons]
    headers = {"Cache-Control": "no-store"}
    return Answer({"ok": found.ok, "reasons": reasons}, 200 if found.ok else 503, headers)


async def metrics(call: Call) -> Response:
    text = await exposition(call.services, call.follower)
    return Response(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
