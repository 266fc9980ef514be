"""A host's agent: it takes the orders for its host, runs their routines and writes the outcomes.

Fenced three ways: it begins no step unless its lease surely outlives the margin, it stops every step before the lease
ends, and its outcome is only taken at the revision its order came with. Runs outlive its death through the journal, and
the loss of its lease: what is still ordered when it has one again goes on. One event loop owns it.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from enisle.tasks.journal import Journal
from enisle.tasks.objects import Objects
from enisle.tasks.records import ASSIGNED, Assignment
from enisle.tasks.routines import Routines
from enisle.tasks.runs import Run
from enisle.tasks.store import Conflict, Entry, Lease, Store, Unavailable, Value

KILL_MARGIN_S = 0.3
REMEMBERED = 1000
"""Orders taken back, of which a late word is known for what it is."""


@dataclass(frozen=True, slots=True)
class AgentStatistics:
    """What an agent does. `refused`: outcomes that came too late; `fenced`: runs it ended for want of a lease."""

    running: int
    reported: int
    refused: int
    fenced: int


class Agent:
    """`Agent(store, progress, routines, journal, "host").run()` in a task group.

    `facts` of the host go into its lease for all to see; results too large for a key go into `objects`.
    """

    def __init__(
        self,
        store: Store,
        progress: Store,
        routines: Routines,
        journal: Journal,
        host: str,
        ttl_s: float = 3.0,
        facts: Value | None = None,
        objects: Objects | None = None,
    ):
        self._store, self._progress, self.routines, self.journal = store, progress, routines, journal
        self.host, self._ttl_s, self.objects = host, ttl_s, objects
        self._facts = {"started": time.time(), **(facts or {}), "host": host}
        self.lease: Lease | None = None
        self._leased_at = 0
        """A revision when we surely had the lease: what was ordered later was ordered from us."""
        self._orders: dict[str, tuple[int, Assignment]] = {}
        """What is ordered now, with the revision of the order."""
        self._runs: dict[str, Run] = {}
        self._handled: dict[str, int] = {}
        """Orders that were begun, by task: a revision is run once however often it is told."""
        self._gone: OrderedDict[str, int] = OrderedDict()
        self._stops: dict[str, str] = {}
        self._group = asyncio.TaskGroup()
        self.reported = self.refused = self.fenced = 0

    def statistics(self) -> AgentStatistics:
        return AgentStatistics(len(self._runs), self.reported, self.refused, self.fenced)

    async def run(self) -> None:
        last: Value | None = None
        try:
            async with self._group as group:
                group.create_task(self._hold_lease())
                group.create_task(self._watch_orders())
                group.create_task(self._watch_stops())
                group.create_task(self._guard())
        except asyncio.CancelledError:
            last = {**self._facts, "left": time.time()}  # told to end: it left in order, and is not lost
            raise
        finally:
            if self.lease:
                await self.lease.release(last)

    def left_s(self) -> float:
        return self.lease.left_s() if self.lease else -1.0

    async def _hold_lease(self) -> None:
        key = f"host.{self.host}"
        while True:
            if self.left_s() <= 0:
                try:
                    lease = await self._store.lease(key, self._facts, self._ttl_s)
                    self._leased_at = (await self._store.get_leader(key)).revision
                    self.lease = lease
                    for task in list(self._orders):
                        self._begin(task)
                except (Conflict, Unavailable):
                    pass
            await asyncio.sleep(self._ttl_s / 10)

    async def _guard(self) -> None:
        """Stop what runs before the lease can be over: whoever gets the work next must find us idle."""
        while True:
            if self._runs and self.left_s() < KILL_MARGIN_S:
                for run in self._runs.values():
                    self.fenced += not run.fenced
                    run.fence()
            await asyncio.sleep(0.05)

    # ---- orders ----------------------------------------------------------------------------------------------------

    async def _watch_orders(self) -> None:
        told: set[str] | None = None
        async for entry in self._store.watch(f"asg.{self.host}."):
            if entry is None:
                told = set()
                continue
            if entry.key:
                if told is not None:
                    told.add(entry.key.rsplit(".", 1)[1])
                self._take(entry)
            if told is not None and entry.current:
                for task in self._orders.keys() - told:  # taken back while we did not look
                    self._drop(task)
                told = None

    async def _watch_stops(self) -> None:
        async for entry in self._store.watch(f"stop.{self.host}."):
            if entry is None or not entry.key:
                continue
            task = entry.key.rsplit(".", 1)[1]
            if entry.value is None:
                self._stops.pop(task, None)
                continue
            self._stops[task] = why = str(entry.value.get("why", ""))
            if run := self._runs.get(task):
                run.stop(why)

    def _take(self, entry: Entry) -> None:
        task = entry.key.rsplit(".", 1)[1]
        if entry.revision <= self._gone.get(task, 0):
            return  # told late: it was taken back
        if entry.value is None:
            self._gone[task] = entry.revision
            if len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)
            self._drop(task)
            return
        order = Assignment.from_value(entry.value)
        known = self._orders.get(task)
        if known and known[0] >= entry.revision:
            return
        self._orders[task] = entry.revision, order
        run = self._runs.get(task)
        if run and order.status == ASSIGNED:
            run.fence()  # a new order: the attempt it was is over
        self._begin(task)

    def _drop(self, task: str) -> None:
        self._handled.pop(task, None)
        if run := self._runs.get(task):
            run.fence()
        if self._orders.pop(task, None):
            self._group.create_task(self._forget(task))

    async def _forget(self, task: str) -> None:
        await self.journal.write(lambda: self.journal.forget(task))

    def _begin(self, task: str) -> None:
        """Run what is ordered, unless that was done, or still is; without a lease, as soon as there is one."""
        revision, order = self._orders[task]
        if self.left_s() <= 0 or order.status != ASSIGNED or task in self._runs or self._handled.get(task) == revision:
            return
        self._handled[task] = revision
        self._runs[task] = run = Run(self, order, revision)
        self._group.create_task(self._follow(run), name=f"task {task}")

    async def _follow(self, run: Run) -> None:
        try:
            if await self._is_ours(run):
                await run.run(self._stops.get(run.task))
        finally:
            if self._runs.get(run.task) is run:
                del self._runs[run.task]
        if run.fenced:
            self._handled.pop(run.task, None)
        if run.task in self._orders:
            self._begin(run.task)

    async def _is_ours(self, run: Run) -> bool:
        """Whether an order from before we had the lease was not given to another meanwhile.

        Who takes an order from a silent host changes the key of its lease in the same batch, so none can be taken while
        we have the lease, and a read after we got it tells the truth.
        """
        while run.revision < self._leased_at and not run.fenced:
            try:
                entry = await self._store.get_leader(f"asg.{self.host}.{run.task}")
                return entry.revision == run.revision
            except Unavailable:
                await asyncio.sleep(0.2)
        return not run.fenced

    # ---- what a run needs ------------------------------------------------------------------------------------------

    async def report(self, order: Assignment, revision: int, **outcome: Any) -> None:
        """Write the outcome into the order, if it is still ours."""
        done = Assignment(order.task, order.host, order.attempt, {}, epoch=order.epoch, **outcome)
        while True:
            try:
                await self._store.cas(order.key, done.to_value(), revision)
                self.reported += 1
                return
            except Conflict:
                self.refused += 1  # another has the task: what we did is void
                return
            except Unavailable:
                await asyncio.sleep(0.2)

    async def send_progress(self, task: str, value: Value | None, revision: int) -> int:
        """Put a task's progress, None: drop it; return its revision. Never raises: progress may be lost."""
        key = f"prog.{self.host}.{task}"
        try:
            return await self._progress.cas(key, value, revision)
        except Conflict as conflict:
            return conflict.found
        except Unavailable:
            return revision
