"""Who did what: a record for each act that is more than a task of one's own.

The record (`audit.<id>`) is written before the act is answered, in the same batch where the act is a change of the
store. The dispatcher moves it to the history, where it stays thirty days and nothing changes it. A task is its own
record of having been submitted: it has who, when and from where. Pure, but for the clock.
"""

import time
import uuid
from contextvars import ContextVar

from enisle.tasks.records import Task
from enisle.tasks.store import Value

EVERY = "*"
"""In a tenant's place: all of them. What is new belongs to one."""
ADDRESS: ContextVar[str] = ContextVar("address", default="")
"""Where whoever asks is, for the length of a request; empty: not known."""


def audit_record(act: str, actor: str, tenant: str, reason: str = "", **more: object) -> tuple[str, Value]:
    """Return the key and the value that tell of an act."""
    now = time.time()
    key = f"audit.{int(now * 1000):013x}-{uuid.uuid4().hex[:8]}"
    told: Value = {"act": act, "reason": reason, "at": now, "actor": actor, "tenant": tenant}
    return key, told | {"address": ADDRESS.get()} | more


def act_of(task: Task) -> Value:
    """Return what a task tells of its submission, as a record with its `id`."""
    told: Value = {"id": f"submit-{task.id}", "act": "submit", "reason": "", "at": task.submitted, "actor": task.actor}
    told |= {"tenant": task.tenant, "address": task.address, "task": task.id, "routine": task.routine}
    return told | ({"resources": [f"{one.kind}/{one.id}" for one in task.resources]} if task.resources else {})


def act_fits(record: Value, actor: str = "", tenant: str = "", act: str = "", since: float = 0.0) -> bool:
    """Whether a record is among those asked for; what is empty asks for nothing."""
    asked = (("actor", actor), ("tenant", tenant), ("act", act))
    return float(record["at"]) >= since and all(not value or record.get(name) == value for name, value in asked)


def act_place(record: Value) -> tuple[float, str]:
    """Return a record's place in the order of all of them."""
    return float(record["at"]), str(record["id"])
