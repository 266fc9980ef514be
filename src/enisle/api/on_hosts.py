"""Handlers: the platform itself and its hosts."""

from starlette.responses import Response

from enisle.api.metrics import exposition
from enisle.api.table import Answer, Call


async def index(call: Call) -> Answer:
    return Answer({"items": await call.services.operations.hosts()})


async def show(call: Call) -> Answer:
    return Answer(await call.services.operations.host(call.path["name"]))


async def join(call: Call) -> Answer:
    return Answer(await call.services.admit_host(call.body.name, call.body.public_key), 201)


async def declare_dead(call: Call) -> Answer:
    name = call.path["name"]
    await call.tasks().declare_dead(name, call.body.reason)
    return Answer({"name": name, "state": "gone"})


async def remove(call: Call) -> Answer:
    await call.services.expel_host(call.path["name"])
    return Answer(None, 204)


async def health(call: Call) -> Answer:
    found = await call.services.health()
    reasons = [*([f"safe mode: {found.safe_mode}"] if found.safe_mode else []), *found.reasons]
    headers = {"Cache-Control": "no-store"}
    return Answer({"ok": found.ok, "reasons": reasons}, 200 if found.ok else 503, headers)


async def metrics(call: Call) -> Response:
    text = await exposition(call.services, call.follower)
    return Response(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
