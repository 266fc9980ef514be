"""What the store's keys hold: tasks, locks, assignments. Values without behaviour; JSON in, JSON out.

`task.<id>` the task with its execution context; `lock.<kind>.<id>` who holds a resource; `res.<kind>.<id>` what is
known of it; `asg.<host>.<task>` the order to a host to run a task, whose revision makes the fencing token of that
attempt; `stop.<host>.<task>` the wish to end it; `host.<host>` a host's lease; `dead.<host>` an operator's word that
it is gone; `audit.<id>` what an operator did, on its way to the history.
"""

import zlib
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from enisle.tasks.states import Event, State, after
from enisle.tasks.store import Value

EXCLUSIVE, SHARED = "exclusive", "shared"
WAIT, FAIL = "wait", "fail"
RETRYABLE, PINNED = "retryable", "pinned"


@dataclass(frozen=True, slots=True)
class Resource:
    """Something a task holds while it runs: an island, a host, a disk, a piece of a page."""

    kind: str
    id: str
    mode: str = EXCLUSIVE

    @property
    def key(self) -> str:
        return f"lock.{self.kind}.{self.id}"

    @property
    def name(self) -> str:
        """The name of its record and of its lock to whoever looks: `kind.id`."""
        return f"{self.kind}.{self.id}"

    def to_value(self) -> Value:
        return {"kind": self.kind, "id": self.id, "mode": self.mode}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task did not do what it was asked: as every error of ours, in three parts."""

    message: str
    why: str = ""
    hint: str = ""

    def to_value(self) -> Value:
        return {"message": self.message, "why": self.why, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Blocked:
    """What a waiting task waits for: the resource, the task that holds it or comes first, and the place in the row.

    A host that is not there is waited for as a resource is: `host/h1`, or `host/any`, by nobody.
    """

    resource: str
    by: str
    position: int
    since: float

    def to_value(self) -> Value:
        return {"resource": self.resource, "by": self.by, "position": self.position, "since": self.since}


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a routine is tried, and how long is waited between: doubling, up to a minute."""

    attempts: int = 1
    first_delay_s: float = 1.0

    def delay_s(self, attempt: int, task: str = "") -> float:
        """Return the seconds to wait after an attempt: between half and all of what doubling gives.

        The part depends on the task, so that tasks which failed together do not come back together.
        """
        whole = min(60.0, self.first_delay_s * 2 ** min(16, max(0, attempt - 1)))
        return whole * (0.5 + zlib.crc32(f"{task} {attempt}".encode()) / (1 << 33))


@dataclass(frozen=True, slots=True)
class Task:
    """A task and its execution context. Times are seconds since 1970; `order` 0: not yet looked at."""

    id: str
    routine: str
    arguments: dict[str, Any]
    resources: tuple[Resource, ...]
    digest: str
    submitted: float
    tenant: str = "default"
    actor: str = ""
    host: str = ""
    """Where it runs, must run when pinned, or should run first."""
    placement: str = RETRYABLE
    bound_by: str = ""
    """The resource whose record says where it must run, `kind/id`; then it is pinned until it is tried again."""
    retry: Retry = field(default_factory=Retry)
    deadline: float = 0.0
    if_blocked: str = WAIT
    state: State = State.QUEUED
    attempt: int = 0
    losses: int = 0
    """How many hosts were lost while they ran it."""
    order: int = 0
    not_before: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    blocked: Blocked | None = None
    cancel: str = ""
    """Why it shall be cancelled; empty: it shall not."""
    result: Any = None
    failure: Failure | None = None
    trace: str = ""
    address: str = ""
    """Where it was asked for."""

    @property
    def key(self) -> str:
        return f"task.{self.id}"

    def on(self, event: Event, **changes: Any) -> Self:
        """Return the task after an event. Raises StateError."""
        return replace(self, state=after(self.state, event), **changes)

    def to_value(self) -> Value:
        value = {name: getattr(self, name) for name in TASK_FIELDS}
        value["resources"] = [one.to_value() for one in self.resources]
        value["retry"] = {"attempts": self.retry.attempts, "first_delay_s": self.retry.first_delay_s}
        value["blocked"] = self.blocked.to_value() if self.blocked else None
        value["failure"] = self.failure.to_value() if self.failure else None
        return value

    @classmethod
    def from_value(cls, value: Value) -> Self:
        parts = dict(value)
        parts["resources"] = tuple(Resource(**one) for one in parts["resources"])
        parts["retry"] = Retry(**parts["retry"])
        parts["state"] = State(parts["state"])
        parts["blocked"] = Blocked(**parts["blocked"]) if parts["blocked"] else None
        parts["failure"] = Failure(**parts["failure"]) if parts["failure"] else None
        return cls(**parts)


TASK_FIELDS = tuple(one.name for one in fields(Task))


@dataclass(frozen=True, slots=True)
class Lock:
    """Who holds a resource: one task, or several that share it."""

    holders: tuple[str, ...]
    mode: str

    def to_value(self) -> Value:
        return {"holders": list(self.holders), "mode": self.mode}

    @classmethod
    def from_value(cls, value: Value) -> Self:
        return cls(tuple(value["holders"]), value["mode"])


ASSIGNED, FINISHED, FAILED, STOPPED = "assigned", "finished", "failed", "stopped"


@dataclass(frozen=True, slots=True)
class Assignment:
    """An order to a host; its agent writes the outcome into it, expecting the revision it was given."""

    task: str
    host: str
    attempt: int
    context: Value
    """The task as it was when the order was given: all the host needs to know. Empty in an outcome."""
    records: dict[str, Value] = field(default_factory=dict)
    """The records of what it holds when it starts, by `kind.id`; what has none is absent."""
    epoch: int = 0
    """The life of the store that gave the order: the high part of the fencing token."""
    status: str = ASSIGNED
    result: Any = None
    failure: Failure | None = None
    temporary: bool = False
    """A failure that another attempt may not meet."""
    changes: dict[str, Value | None] = field(default_factory=dict)
    """Records as they are from the end of this attempt on, None: gone; only of what it holds alone."""

    @property
    def key(self) -> str:
        return f"asg.{self.host}.{self.task}"

    def to_value(self) -> Value:
        value = {name: getattr(self, name) for name in ASSIGNMENT_FIELDS}
        value["failure"] = self.failure.to_value() if self.failure else None
        return value

    @classmethod
    def from_value(cls, value: Value) -> Self:
        parts = dict(value)
        parts["failure"] = Failure(**parts["failure"]) if parts["failure"] else None
        return cls(**parts)

    @classmethod
    def from_host(cls, key: str, value: Value) -> Self:
        """Return an order as its host left it; what makes no sense is a failure, since a host may write anything."""
        host, _, task = key.removeprefix("asg.").partition(".")
        try:
            order = cls.from_value(value)
            if _makes_sense(order) and (order.host, order.task) == (host, task):
                return order
        except (TypeError, KeyError, AttributeError):
            pass
        failure = Failure("its host answered what makes no sense", f"host {host}", "see that host's log")
        return cls(task, host, 0, {}, status=FAILED, failure=failure)


def _makes_sense(order: Any) -> bool:
    """Whether what is typed as it is was also written so."""
    told, changes = order.failure, order.changes
    if not isinstance(changes, dict) or order.status not in (ASSIGNED, FINISHED, FAILED, STOPPED):
        return False
    values: list[object] = list(changes.values())  # pyright: ignore[reportUnknownArgumentType]
    if not all(value is None or isinstance(value, dict) for value in values):
        return False
    return told is None or all(isinstance(part, str) for part in (told.message, told.why, told.hint))


ASSIGNMENT_FIELDS = tuple(one.name for one in fields(Assignment))
