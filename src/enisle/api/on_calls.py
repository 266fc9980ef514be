"""Handlers: calls, short programs that any free host does."""

from typing import Any

import msgspec

from enisle.api import forms, schemas
from enisle.api.services import Json
from enisle.api.shapes import failure_json
from enisle.api.table import Answer, Call
from enisle.tasks import Outcome

OUTCOME = tuple(field.name for field in msgspec.structs.fields(schemas.CallOutcome))


async def submit(call: Call) -> Answer:
    """Answer with the outcome if it comes in time, else with 202 and where it will be."""
    body: forms.CallRequest = call.body
    arguments = {name: value for name, value in msgspec.structs.asdict(body).items() if value}
    identity, outcome = await call.services.calls.run(arguments, call.principal.tenant, call.key, call.query.wait)
    return Answer(call_json(identity, outcome), 200 if outcome else 202, {"Location": f"/v1/calls/{identity}"})


async def show(call: Call) -> Answer:
    identity = call.path["call"]
    outcome = await call.services.calls.wait(identity, call.principal.tenant, call.query.wait)
    return Answer(call_json(identity, outcome))


def call_json(identity: str, outcome: Outcome | None) -> Json:
    """Return a call as `schemas.Called` describes it."""
    result: Any = outcome.result if outcome else None
    return {
        "id": identity,
        "state": "waiting" if outcome is None else "failed" if outcome.failure else "done",
        "runs": outcome.runs if outcome else None,
        "result": {name: result.get(name) for name in OUTCOME} if isinstance(result, dict) else None,  # pyright: ignore[reportUnknownMemberType]
        "failure": failure_json(outcome.failure) if outcome else None,
    }
