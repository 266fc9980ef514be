"""Leases: keys that end by themselves unless renewed, and whose holder knows how long they are his for certain.

The time is counted from the START of the last good renewal by the monotonic clock: the engine's clock began later, so
the holder stops before anybody else may begin. One event loop owns a lease.
"""

import asyncio
import time
from typing import Protocol
from weakref import WeakKeyDictionary

from enisle.tasks.store import Change, Conflict, Entry, Unavailable, Value

RENEWALS_PER_TTL = 3
RENEWAL_S = 1.0
"""The longest time between two renewals: on a cluster the rest of a longer lease is for the election of a leader."""
ABANDONED_TTLS = 2.5
"""How many times its life a key must stand still before it is taken though the engine still has it."""
SEEN: "WeakKeyDictionary[LeaseStore, dict[str, tuple[int, float]]]" = WeakKeyDictionary()
"""Leases of others that were in the way: their revision, and since when it has been seen."""


class LeaseStore(Protocol):
    async def batch(self, changes: list[Change], ttl_s: float = 0) -> int: ...
    async def get_leader(self, key: str) -> Entry: ...


class RenewedLease:
    """A lease renewed by a task of its own until released or lost to another."""

    def __init__(self, store: LeaseStore, key: str, value: Value, ttl_s: float) -> None:
        self.key, self.value, self.ttl_s = key, value, ttl_s
        self._store = store
        self._revision = 0
        self._good_since = float("-inf")
        self._renewer: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()

    @property
    def held(self) -> bool:
        return self.left_s() > 0

    def left_s(self) -> float:
        return self._good_since + self.ttl_s - time.monotonic() if not self.lost.is_set() else -1.0

    async def take(self) -> None:
        """Raises Conflict when another holds it, Unavailable."""
        now = await self._store.get_leader(self.key)
        if now.value is not None and not now.value.get("left") and not self._is_abandoned(now):
            raise Conflict(self.key, 0, now.revision)
        begin = time.monotonic()
        self._revision = await self._store.batch([Change(self.key, self.value, now.revision)], self.ttl_s)
        self._good_since = begin
        self._renewer = asyncio.create_task(self._renew(), name=f"lease {self.key}")

    def _is_abandoned(self, entry: Entry) -> bool:
        """Whether a key has stood still, before our eyes, for so long that its holder has given it up.

        The engine ends it by itself; one that was killed has been seen to forget that.
        """
        seen = SEEN.setdefault(self._store, {})
        revision, since = seen.get(self.key, (0, 0.0))
        if revision != entry.revision:
            seen[self.key] = entry.revision, time.monotonic()
            return False
        return time.monotonic() - since > ABANDONED_TTLS * self.ttl_s

    async def _renew(self) -> None:
        while not self.lost.is_set():
            await asyncio.sleep(min(RENEWAL_S, self.ttl_s / RENEWALS_PER_TTL))
            begin = time.monotonic()
            try:
                async with asyncio.timeout(self.ttl_s):
                    self._revision = await self._store.batch([Change(self.key, self.value, self._revision)], self.ttl_s)
                self._good_since = begin
            except Conflict:
                self.lost.set()
            except (TimeoutError, Unavailable):
                continue  # left_s tells; the next renewal may still come in time

    async def release(self, last: Value | None = None) -> None:
        """Give it up at once, for whoever waits; the `last` word stays where the lease was, with the time it `left`."""
        if self._renewer:
            self._renewer.cancel()
            await asyncio.wait([self._renewer])
        if self.held:
            try:
                await self._store.batch([Change(self.key, last, self._revision)])
            except (Conflict, Unavailable):
                pass  # it ends by itself
        self.lost.set()
