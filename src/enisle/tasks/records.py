"""What the store's keys hold: tasks, locks, assignments. Values without behaviour; JSON in, JSON out.

`task.<id>` the task with its execution context; `lock.<kind>.<id>` who holds a resource; `asg.<host>.<task>` the
order to a host to run it, whose revision is the fencing token of that attempt; `host.<host>` a host's lease.
"""

from dataclasses import asdict, dataclass, field, replace
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


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task did not do what it was asked: as every error of ours, in three parts."""

    message: str
    why: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """What a waiting task waits for: the resource, the task that holds it or comes first, and the place in the row."""

    resource: str
    by: str
    position: int
    since: float


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a routine is tried, and how long is waited between: doubling, up to a minute."""

    attempts: int = 1
    first_delay_s: float = 1.0

    def delay_s(self, attempt: int) -> float:
        return min(60.0, self.first_delay_s * 2 ** max(0, attempt - 1))


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
    """Where it runs, or must run when `pinned`."""
    placement: str = RETRYABLE
    retry: Retry = field(default_factory=Retry)
    deadline: float = 0.0
    if_blocked: str = WAIT
    state: State = State.QUEUED
    attempt: int = 0
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

    @property
    def key(self) -> str:
        return f"task.{self.id}"

    def on(self, event: Event, **changes: Any) -> Self:
        """Return the task after an event. Raises StateError."""
        return replace(self, state=after(self.state, event), **changes)

    def to_value(self) -> Value:
        return asdict(self)

    @classmethod
    def from_value(cls, value: Value) -> Self:
        parts = dict(value)
        parts["resources"] = tuple(Resource(**one) for one in parts["resources"])
        parts["retry"] = Retry(**parts["retry"])
        parts["state"] = State(parts["state"])
        parts["blocked"] = Blocked(**parts["blocked"]) if parts["blocked"] else None
        parts["failure"] = Failure(**parts["failure"]) if parts["failure"] else None
        return cls(**parts)


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
    """An order to a host; its agent writes the outcome into it, expecting the revision it was given (its token)."""

    task: str
    host: str
    attempt: int
    context: Value
    """The task as it was when the order was given: all the host needs to know."""
    status: str = ASSIGNED
    result: Any = None
    failure: Failure | None = None
    temporary: bool = False
    """A failure that another attempt may not meet."""

    @property
    def key(self) -> str:
        return f"asg.{self.host}.{self.task}"

    def to_value(self) -> Value:
        return asdict(self)

    @classmethod
    def from_value(cls, value: Value) -> Self:
        parts = dict(value)
        parts["failure"] = Failure(**parts["failure"]) if parts["failure"] else None
        return cls(**parts)
