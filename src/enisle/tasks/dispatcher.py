"""The dispatcher: whoever holds its lease turns the plan into changes of the store.

Several may run; every change is conditional on what the picture said, so two that believe to lead waste work and break
nothing. The picture is built from one watch and guarded by revisions: an event older than what we know is dropped.
One event loop owns it.
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Any

from enisle.tasks.policy import Batch, Picture, plan
from enisle.tasks.records import Assignment, Lock, Task
from enisle.tasks.states import ENDED
from enisle.tasks.store import ABSENT, Change, Conflict, Entry, Lease, Store, Unavailable

LEASE = "lease.dispatcher"
LOSS_MARGIN_S = 1.0
"""Added to a host's silence before it is lost: its agent has stopped every step by then."""
TOGETHER = 16
"""Batches of one plan touch different keys, so several may be on their way at once."""
ROUND_S = 0.5
"""The longest time between two looks: deadlines and delays pass without an event."""


class Dispatcher:
    """`async with asyncio.TaskGroup() as group: group.create_task(Dispatcher(store, "me").run())`."""

    def __init__(self, store: Store, name: str, ttl_s: float = 3.0) -> None:
        self._store, self.name, self._ttl_s = store, name, ttl_s
        self.picture = Picture()
        self._revisions: dict[str, int] = {}
        self._gone_since: dict[str, float] = {}
        self._news = asyncio.Event()
        self._lease: Lease | None = None
        self._current = False
        self.conflicts = self.batches = 0

    @property
    def leads(self) -> bool:
        return self._lease is not None and self._lease.held

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._lead())
                group.create_task(self._work())
        finally:
            if self._lease:
                await self._lease.release()

    async def _lead(self) -> None:
        while True:
            if not self.leads:
                try:
                    self._lease = await self._store.lease(LEASE, {"dispatcher": self.name}, self._ttl_s)
                    self._news.set()
                except (Conflict, Unavailable):
                    pass
            await asyncio.sleep(self._ttl_s / 10)

    # ---- the picture -----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for entry in self._store.watch(""):
            if entry is None:
                self.picture, self._current = Picture(), False
                self._revisions.clear()
                self._gone_since.clear()
                continue
            if entry.key:
                self.learn(entry)
            if entry.current:
                self._current = True
                self._news.set()

    def learn(self, entry: Entry) -> None:
        """Take what is known of a key into the picture, unless something newer is."""
        if entry.revision < self._revisions.get(entry.key, ABSENT):
            return
        self._revisions[entry.key] = entry.revision
        kind, _, rest = entry.key.partition(".")
        picture, value = self.picture, entry.value
        if kind == "task":
            if value is None:
                picture.tasks.pop(rest, None)
            else:
                task = Task.from_value(value)
                picture.tasks[rest] = task if task.order else replace(task, order=entry.revision)
        elif kind == "lock":
            _keep(picture.locks, entry.key, Lock.from_value(value) if value else None)
        elif kind == "asg":
            _keep(picture.assignments, entry.key, Assignment.from_value(value) if value else None)
        elif kind == "stop":
            (picture.stops.discard if value is None else picture.stops.add)(entry.key)
        elif kind == "host":
            self._learn_host(rest, value is not None)
        self._news.set()

    def _learn_host(self, host: str, alive: bool) -> None:
        if alive:
            self.picture.live.add(host)
            self.picture.lost.discard(host)
            self._gone_since.pop(host, None)
        else:
            self.picture.live.discard(host)
            self._gone_since.setdefault(host, time.monotonic())

    def _judge_hosts(self) -> None:
        """A host with orders but without a lease is lost once its agent must have stopped."""
        now = time.monotonic()
        for assignment in self.picture.assignments.values():
            if assignment.host not in self.picture.live:
                since = self._gone_since.setdefault(assignment.host, now)
                if now - since >= LOSS_MARGIN_S:
                    self.picture.lost.add(assignment.host)

    # ---- the work --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_S):
                    await self._news.wait()
            self._news.clear()
            if self.leads and self._current:
                await self._round()

    async def _round(self) -> None:
        self._judge_hosts()
        batches = list(plan(self.picture, time.time()))
        for start in range(0, len(batches), TOGETHER):
            if self.leads:
                await asyncio.gather(*(self._try(batch) for batch in batches[start : start + TOGETHER]))

    async def _try(self, batch: Batch) -> None:
        """Commit, or learn why not: the next round decides anew."""
        try:
            await self.commit(batch)
        except Conflict as conflict:
            self.conflicts += 1
            self._revisions.pop(conflict.key, None)  # what we believed is wrong, whatever its number
            with contextlib.suppress(Unavailable):
                self.learn(await self._store.get_leader(conflict.key))
        except Unavailable:
            self._news.set()

    async def commit(self, batch: Batch) -> int:
        """Make one batch real and take it into the picture. Raises Conflict, Unavailable."""
        changes = [Change(key, value, self._revisions.get(key, ABSENT)) for key, value in batch]
        last = await self._store.batch(changes)
        self.batches += 1
        for offset, change in enumerate(reversed(changes)):
            self.learn(Entry(change.key, change.value, last - offset))
        return last

    def unfinished(self) -> int:
        return sum(task.state not in ENDED for task in self.picture.tasks.values())


def _keep(where: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value
