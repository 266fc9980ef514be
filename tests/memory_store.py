"""The five verbs in memory: what tests use where the engine is not the point. Passes `store_contract`, as it does."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from enisle.tasks import Change, Conflict, Entry
from enisle.tasks.leases import RenewedLease


class MemoryStore:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self._watchers: list[tuple[str, asyncio.Queue[Entry]]] = []
        self._expiry: dict[str, asyncio.TimerHandle] = {}

    def now(self, key: str) -> Entry:
        return self.entries.get(key, Entry(key, None, 0))

    async def cas(self, key: str, value: dict | None, expected: int, ttl_s: float = 0) -> int:
        return await self.batch([Change(key, value, expected)], ttl_s)

    async def batch(self, changes: Sequence[Change], ttl_s: float = 0) -> int:
        await asyncio.sleep(0)
        for change in changes:
            if self.now(change.key).revision != change.expected:
                raise Conflict(change.key, change.expected, self.now(change.key).revision)
        for change in changes:
            self._put(change.key, change.value)
            if timer := self._expiry.pop(change.key, None):
                timer.cancel()
            if ttl_s and change.value is not None:
                self._expiry[change.key] = asyncio.get_running_loop().call_later(ttl_s, self._put, change.key, None)
        return self.revision

    def _put(self, key: str, value: dict | None) -> None:
        self.revision += 1
        self.entries[key] = entry = Entry(key, value, self.revision)
        for prefix, queue in self._watchers:
            if matches(prefix, key):
                queue.put_nowait(entry)

    async def get_leader(self, key: str) -> Entry:
        await asyncio.sleep(0)
        return self.now(key)

    async def watch(self, prefix: str) -> AsyncIterator[Entry | None]:
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        there = [entry for entry in self.entries.values() if matches(prefix, entry.key)]
        self._watchers.append((prefix, queue))
        try:
            yield None
            for number, entry in enumerate(there, 1):
                yield Entry(entry.key, entry.value, entry.revision, number == len(there))
            if not there:
                yield Entry("", None, 0)
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove((prefix, queue))

    async def lease(self, key: str, value: dict, ttl_s: float) -> RenewedLease:
        lease = RenewedLease(self, key, value, ttl_s)
        await lease.take()
        return lease


def matches(prefix: str, key: str) -> bool:
    return key.startswith(prefix) if not prefix or prefix.endswith(".") else key == prefix
