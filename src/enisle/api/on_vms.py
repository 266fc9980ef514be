"""Handlers: full Linux machines."""

from typing import Any

from enisle.api.on_islands import chosen, given
from enisle.api.on_tasks import submitted
from enisle.api.table import Answer, Call


async def index(call: Call) -> Answer:
    return chosen(call, await call.services.operations.vms(call.principal.tenant))


async def show(call: Call) -> Answer:
    return Answer(await call.services.operations.vm(call.path["name"], call.principal.tenant))


async def run(call: Call) -> Answer:
    spec = call.services.vm_spec(**given(call.body))
    return await submitted(call, await call.services.operations.run_vm(spec, **_asked(call)))


async def stop(call: Call) -> Answer:
    return await _do(call, "stop_vm", timeout_s=call.body.timeout_s)


async def pause(call: Call) -> Answer:
    return await _do(call, "pause_vm")


async def resume(call: Call) -> Answer:
    return await _do(call, "resume_vm")


async def remove(call: Call) -> Answer:
    return await _do(call, "remove_vm", force=call.query.force)


async def introspect(call: Call) -> Answer:
    return await _do(call, "introspect_vm", view=call.body.view)


async def _do(call: Call, operation: str, **more: Any) -> Answer:
    act = getattr(call.services.operations, operation)
    return await submitted(call, await act(call.path["name"], **more, **_asked(call)))


def _asked(call: Call) -> dict[str, Any]:
    return {"tenant": call.principal.tenant, "actor": call.principal.actor, "key": call.key}
