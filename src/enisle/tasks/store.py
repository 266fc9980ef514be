"""The store of the task system in five verbs: cas, batch, get_leader, watch, lease.

All of what is durable is keys with JSON values and revisions; revisions rise over the whole store, so the revision a
change got is a fencing token. What the engine is made of stays behind this door (`jetstream.py`). One event loop owns
a store; its calls may be awaited side by side.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from enisle.errors import HostError, StateError

Value = dict[str, Any]

ABSENT = 0
"""The revision of a key that was never written, or whose end the engine has forgotten."""


class Conflict(StateError):
    """A key has another revision than the change expected: somebody else was first."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(
            f"{key} has changed", f"revision {found} instead of {expected}", "read it again and decide anew"
        )
        self.key, self.expected, self.found = key, expected, found


class Unavailable(HostError):
    """The engine did not answer in time; whether a change took effect has been found out where that is possible."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key's new value (None: deleted), if its revision is still `expected`."""

    key: str
    value: Value | None
    expected: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as the engine holds it; `value` None: deleted. `current`: all that was there before has been told.

    `time`: when it became so by the engine's clock, in seconds since 1970; 0: not told.
    """

    key: str
    value: Value | None
    revision: int
    current: bool = True
    time: float = field(default=0.0, compare=False)


class Lease(Protocol):
    """A key of ours that vanishes `ttl_s` after its last renewal."""

    @property
    def held(self) -> bool:
        """Whether the last good renewal began less than the time to live ago, by the monotonic clock."""
        ...

    def left_s(self) -> float:
        """Return the seconds it is ours for certain: negative when it may be another's."""
        ...

    async def release(self, last: Value | None = None) -> None: ...


class Store(Protocol):
    """Every implementation passes tests/unit/tasks/store_contract.py."""

    async def cas(self, key: str, value: Value | None, expected: int) -> int:
        """Change one key; return its new revision. Raises Conflict, Unavailable."""
        ...

    async def batch(self, changes: Sequence[Change]) -> int:
        """Make all changes or none; return the revision of the last, the others just before it in their order.

        Raises Conflict (naming a key that had changed), Unavailable.
        """
        ...

    async def get_leader(self, key: str) -> Entry:
        """Return a key as the engine's leader has it: never stale. Raises Unavailable."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[Entry | None]:
        """Yield every key under `prefix` (it ends with a dot, or is one key) as it is, then each change.

        Only the latest value of a key is promised. None is yielded when everything is told anew from the start: the
        reader's picture may hold what is gone.
        """
        ...

    async def lease(self, key: str, value: Value, ttl_s: float) -> Lease:
        """Take a key that nobody holds and keep renewing it. Raises Conflict, Unavailable."""
        ...
