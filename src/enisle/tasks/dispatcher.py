"""The dispatcher: whoever holds its lease turns the plan into changes of the store.

Several may run; every change is conditional on what the picture said, so two that believe to lead waste work and break
nothing. The picture is built from one watch and guarded by revisions: an event older than what we know is dropped.
Batches that touch different keys go together: what waits while one commit is on its way makes the next.
One event loop owns it.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import islice

from enisle.tasks.picture import Picture
from enisle.tasks.policy import Batch, plan
from enisle.tasks.records import Assignment, Lock, Task
from enisle.tasks.safety import Safety
from enisle.tasks.silence import Silence
from enisle.tasks.store import ABSENT, Change, Conflict, Entry, Lease, Store, Unavailable, Value

LEASE = "lease.dispatcher"
TOGETHER = 16
"""Batches of one plan touch different keys, so several may be one commit."""
FLIGHTS = 3
"""Commits on their way at once."""
ROUND_S = 0.5
"""The longest time between two looks: leases end without an event."""
FORGOTTEN_S = 90.0
"""When the engine has surely forgotten a key that was deleted."""
SKEW_S = 2.0
"""A client's clock that is off by more than this is set right by the engine's."""


@dataclass(frozen=True, slots=True)
class DispatcherStatistics:
    """What a dispatcher has done. `batches` were made in `commits`; `conflicts`: what another changed first."""

    leads: bool
    active: int
    ended: int
    batches: int
    commits: int
    conflicts: int


class Dispatcher:
    """`async with asyncio.TaskGroup() as group: group.create_task(Dispatcher(store, "me").run())`.

    `archive` moves what has ended out of the store; `paused`, when not empty, says why nothing is decided, and so does
    `safety` when it is not ok.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        ttl_s: float = 3.0,
        archive: "Callable[[Dispatcher], Awaitable[None]] | None" = None,
        safety: "Safety | None" = None,
    ) -> None:
        self._safety = safety
        self._store, self.name, self._ttl_s, self._archive = store, name, ttl_s, archive
        self.picture = Picture()
        self.paused = ""
        self.audits: dict[str, Value] = {}
        self._revisions: dict[str, int] = {}
        self._gone: deque[tuple[float, str, int]] = deque()
        self._silence = Silence(ttl_s)
        self._busy: set[str] = set()
        self._flights: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        """A defect of ours in a commit: it ends us, and whoever takes over looks anew."""
        self._news = asyncio.Event()
        self._lease: Lease | None = None
        self._current = self._led = False
        self._clock = time.time() - time.monotonic()  # a clock that is set while we run does not move deadlines
        self.conflicts = self.batches = self.commits = 0

    @property
    def leads(self) -> bool:
        return self._lease is not None and self._lease.held

    @property
    def decides(self) -> bool:
        return self.leads and self._current and not self.paused and self._trusts_the_store()

    def _trusts_the_store(self) -> bool:
        """Whether the store is the one we had, and the tokens of this picture are of its epoch."""
        return self._safety is None or (self._safety.ok and self._safety.epoch == self.picture.epoch)

    def now(self) -> float:
        return self._clock + time.monotonic()

    def statistics(self) -> DispatcherStatistics:
        picture = self.picture
        return DispatcherStatistics(
            self.leads, picture.active(), len(picture.ended), self.batches, self.commits, self.conflicts
        )

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._lead())
                group.create_task(self._work())
                if self._archive:
                    group.create_task(_forever(self._archive(self)))
        finally:
            for flight in self._flights:
                flight.cancel()
            if self._lease:
                await self._lease.release()

    async def _lead(self) -> None:
        while True:
            begin = time.monotonic()
            if not self.leads:
                try:
                    self._lease = await self._store.lease(LEASE, {"dispatcher": self.name}, self._ttl_s)
                    if self._led:
                        self._silence.spare()
                    self._led = True
                    self.picture.mark_everything()
                    self._news.set()
                except (Conflict, Unavailable):
                    pass
                if time.monotonic() - begin > 1:
                    self._silence.spare()
            await asyncio.sleep(self._ttl_s / 10)

    # ---- the picture -----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for entry in self._store.watch(""):
            if entry is None:
                self._begin_anew()
                continue
            if entry.key:
                self.learn(entry)
            if entry.current and not self._current:
                self._current = True
                self.picture.mark_everything()
                self._news.set()

    def _begin_anew(self) -> None:
        self.picture, self._current = Picture(), False
        self.audits.clear()
        self._revisions.clear()
        self._silence.begin_anew()

    def learn(self, entry: Entry) -> None:
        """Take what is known of a key into the picture, unless that or something newer is."""
        if entry.revision <= self._revisions.get(entry.key, ABSENT):
            return
        self._revisions[entry.key] = entry.revision
        kind, _, rest = entry.key.partition(".")
        picture, value = self.picture, entry.value
        if kind == "task":
            picture.put_task(rest, _first_look(Task.from_value(value), entry) if value else None)
        elif kind == "lock":
            picture.put_lock(entry.key, Lock.from_value(value) if value else None)
        elif kind == "asg":
            picture.put_order(entry.key, Assignment.from_host(entry.key, value) if value else None)
        elif kind == "res":
            picture.put_record(rest, value)
        elif kind == "stop":
            picture.put_stop(entry.key, value is not None)
        elif kind == "host":
            self._learn_host(rest, value)
        elif kind == "member":
            picture.put_member(rest, value)
        elif kind == "dead":
            picture.put_dead(rest, str(value.get("why", "")) if value else None)
        elif kind == "audit":
            if value:
                self.audits[entry.key] = value
            else:  # the one that leads has moved it to the history
                self.audits.pop(entry.key, None)
        elif entry.key == "cfg.epoch" and value:
            picture.epoch = int(value.get("epoch", 0))
        if value is None:
            self._gone.append((time.monotonic() + FORGOTTEN_S, entry.key, entry.revision))
        self._news.set()

    def _forget(self) -> None:
        """Drop what we know of keys that are gone, when the engine has forgotten them as well: revision 0 again."""
        while self._gone and self._gone[0][0] < time.monotonic():
            _, key, revision = self._gone.popleft()
            if self._revisions.get(key) == revision:
                del self._revisions[key]

    def _learn_host(self, host: str, lease: Value | None) -> None:
        self._silence.hear(host, lease is not None and not lease.get("left"))
        self.picture.put_lease(host, lease)

    def _judge_hosts(self) -> None:
        """A host with orders but without a lease is lost once its agent must have stopped."""
        for host in self._silence.forgotten(list(self.picture.live)):
            self._learn_host(host, None)
        for host in self._silence.lost(set(self.picture.working_hosts()) - self.picture.live):
            self.picture.put_lost(host)

    # ---- the work --------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            patience = min(ROUND_S, max(0.001, self.picture.next_due() - self.now()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._news.wait()
            self._news.clear()
            if self._broken:
                raise self._broken
            self._forget()
            if self.decides:
                self._judge_hosts()
                self._decide()

    def _decide(self) -> None:
        """Send as much of the plan on its way as may be at once; the end of each commit brings us here again."""
        room = (FLIGHTS - len(self._flights)) * TOGETHER
        if room <= 0:
            return
        batches = list(islice(plan(self.picture, self.now(), self._busy), room))
        for start in range(0, len(batches), TOGETHER):
            # The revisions this plan was made from: what is learned before a batch is sent must refuse it.
            group = [self._changes(batch) for batch in batches[start : start + TOGETHER]]
            keys = {change.key for changes in group for change in changes}
            self._busy |= keys
            flight = asyncio.create_task(self._fly(group), name="commit")
            self._flights.add(flight)
            flight.add_done_callback(lambda done, keys=keys: self._land(done, keys))

    def _land(self, flight: "asyncio.Task[None]", keys: set[str]) -> None:
        self._flights.discard(flight)
        self._busy -= keys
        self._news.set()
        if not flight.cancelled() and (error := flight.exception()):
            self._broken = error

    def _changes(self, batch: Batch) -> list[Change]:
        return [Change(key, value, max(ABSENT, self._revisions.get(key, ABSENT))) for key, value in batch]

    async def _fly(self, group: list[list[Change]]) -> None:
        """Commit what goes together, or each alone when another changed something in between."""
        try:
            await self._commit([change for changes in group for change in changes])
            self.batches += len(group)
        except Conflict as conflict:
            if len(group) == 1:
                await self._look_again(conflict.key)
            else:
                for changes in group:
                    await self._fly([changes])
        except Unavailable:
            await asyncio.sleep(0.2)

    async def _look_again(self, key: str) -> None:
        """Learn why a change was refused: the next round decides anew."""
        self.conflicts += 1
        self._revisions.pop(key, None)  # what we believed is wrong, whatever its number
        with contextlib.suppress(Unavailable):
            entry = await self._store.get_leader(key)
            if entry.revision == ABSENT:
                self._revisions[key] = -1
            self.learn(entry)

    async def commit(self, batch: Batch) -> int:
        """Make a batch real and take it into the picture. Raises Conflict, Unavailable."""
        return await self._commit(self._changes(batch))

    async def _commit(self, changes: list[Change]) -> int:
        last = await self._store.batch(changes)
        self.commits += 1
        for offset, change in zip(range(len(changes) - 1, -1, -1), changes, strict=True):
            self.learn(Entry(change.key, change.value, last - offset))
        return last

    def unfinished(self) -> int:
        return self.picture.active()


def _first_look(task: Task, entry: Entry) -> Task:
    """Give a new task its place, and its times by the engine's clock where its client's is off."""
    if task.order:
        return task
    skew = entry.time - task.submitted if entry.time else 0.0
    if abs(skew) <= SKEW_S:
        return replace(task, order=entry.revision)
    deadline = task.deadline + skew if task.deadline else 0.0
    return replace(task, order=entry.revision, submitted=entry.time, deadline=deadline)


async def _forever(work: Awaitable[None]) -> None:
    await work
