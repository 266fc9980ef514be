"""A host's agent: it takes the orders for its host, runs their routines and writes the outcomes.

Fenced three ways: it begins no step unless its lease surely outlives the margin, it stops every step before the lease
ends, and its outcome is only taken at the revision its order came with. Runs outlive its death through the journal.
One event loop owns it.
"""

import asyncio
import time
from typing import Any

from enisle.errors import EnisleError
from enisle.tasks.journal import Journal, StaleToken
from enisle.tasks.records import ASSIGNED, FAILED, FINISHED, STOPPED, Assignment, Failure, Task
from enisle.tasks.routines import Routines, Step, Temporary
from enisle.tasks.store import ABSENT, Conflict, Entry, Lease, Store, Unavailable, Value

STEP_MARGIN_S = 1.0
KILL_MARGIN_S = 0.3
PROGRESS_INTERVAL_S = 0.1


class Agent:
    """`Agent(store, progress, routines, journal, "host").run()` in a task group."""

    def __init__(
        self, store: Store, progress: Store, routines: Routines, journal: Journal, host: str, ttl_s: float = 3.0
    ):
        self._store, self._progress, self._routines, self._journal = store, progress, routines, journal
        self.host, self._ttl_s = host, ttl_s
        self.lease: Lease | None = None
        self._runs: dict[str, Run] = {}
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        try:
            async with self._group as group:
                group.create_task(self._hold_lease())
                group.create_task(self._watch_orders())
                group.create_task(self._watch_stops())
                group.create_task(self._guard())
        finally:
            if self.lease:
                await self.lease.release()

    def left_s(self) -> float:
        return self.lease.left_s() if self.lease else -1.0

    async def _hold_lease(self) -> None:
        while True:
            if self.left_s() <= 0:
                try:
                    self.lease = await self._store.lease(f"host.{self.host}", {"host": self.host}, self._ttl_s)
                except (Conflict, Unavailable):
                    pass
            await asyncio.sleep(self._ttl_s / 10)

    async def _guard(self) -> None:
        """Stop what runs before the lease can be over: whoever gets the work next must find us idle."""
        while True:
            if self._runs and self.left_s() < KILL_MARGIN_S:
                for run in list(self._runs.values()):
                    run.fence()
            await asyncio.sleep(0.05)

    async def _watch_orders(self) -> None:
        async for entry in self._store.watch(f"asg.{self.host}."):
            if entry and entry.key:
                self._take(entry)

    async def _watch_stops(self) -> None:
        async for entry in self._store.watch(f"stop.{self.host}."):
            if entry and entry.value:
                run = self._runs.get(entry.key.rsplit(".", 1)[1])
                if run:
                    run.stop(str(entry.value.get("why", "")))

    def _take(self, entry: Entry) -> None:
        task = entry.key.rsplit(".", 1)[1]
        run = self._runs.get(task)
        order = Assignment.from_value(entry.value) if entry.value else None
        newer = run is None or entry.revision > run.token
        if run and (order is None or (order.status == ASSIGNED and newer)):
            run.fence()
        if order is None:
            self._journal.forget(task)
        elif order.status == ASSIGNED and newer:
            self._runs[task] = new = Run(self, order, entry.revision)
            self._group.create_task(self._follow(new), name=f"task {task}")

    async def _follow(self, run: "Run") -> None:
        try:
            await run.run(self._routines, self._journal)
        finally:
            if self._runs.get(run.task) is run:
                del self._runs[run.task]

    async def report(self, order: Assignment, token: int, **outcome: Any) -> None:
        """Write the outcome into the order, if it is still ours."""
        done = Assignment(order.task, order.host, order.attempt, order.context, **outcome)
        while True:
            try:
                await self._store.cas(order.key, done.to_value(), token)
                return
            except Conflict:
                return  # another has the task: what we did is void
            except Unavailable:
                await asyncio.sleep(0.2)

    async def send_progress(self, task: str, value: Value, revision: int) -> int:
        """Put a task's progress; return its revision. Never raises: progress may be lost."""
        key = f"prog.{self.host}.{task}"
        try:
            return await self._progress.cas(key, value, revision)
        except Conflict as conflict:
            return conflict.found
        except Unavailable:
            return revision


class Run:
    """One attempt of one task: the context of its routine."""

    def __init__(self, agent: Agent, order: Assignment, token: int) -> None:
        self._agent, self._order = agent, order
        self.task, self.attempt, self.token = order.task, order.attempt, token
        self.context = Task.from_value(order.context)
        self.arguments = self.context.arguments
        self._journal: Journal | None = None
        self._body: asyncio.Task[Any] | None = None
        self._why_stopped: str | None = None
        self._fenced = False
        self._compensations: list[Step] = []
        self._fraction, self._phase = 0.0, ""
        self._news = asyncio.Event()

    # ---- what the routine uses -------------------------------------------------------------------------------------

    async def step(self, name: str, action: Step) -> Any:
        assert self._journal
        _begun, done, result = self._journal.find(self.task, self.attempt, name)
        if done:
            return result
        while self._agent.left_s() < STEP_MARGIN_S:
            await asyncio.sleep(0.05)  # until the lease is renewed, or `fence` ends us
        self._journal.begin(self.task, self.attempt, name)
        result = await action()
        self._journal.finish(self.task, self.attempt, name, result)
        return result

    def progress(self, fraction: float, phase: str = "") -> None:
        if fraction == fraction:  # not NaN
            self._fraction = max(self._fraction, min(1.0, max(0.0, fraction)))
        self._phase = phase or self._phase
        self._news.set()

    def on_cancel(self, compensation: Step) -> None:
        self._compensations.append(compensation)

    # ---- from the agent --------------------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        if self._body and self._why_stopped is None:
            self._why_stopped = why
            self._body.cancel()

    def fence(self) -> None:
        self._fenced = True
        if self._body:
            self._body.cancel()

    async def run(self, routines: Routines, journal: Journal) -> None:
        self._journal = journal
        telling = asyncio.create_task(self._tell())
        try:
            outcome = await self._outcome(routines, journal)
        finally:
            telling.cancel()
        if outcome and not self._fenced:
            await self._agent.report(self._order, self.token, **outcome)

    async def _outcome(self, routines: Routines, journal: Journal) -> dict[str, Any] | None:
        try:
            journal.admit([resource.key for resource in self.context.resources], self.token)
            routine = routines.get(self.context.routine)
            self._body = asyncio.ensure_future(routine.body(self))
            await asyncio.wait([self._body])
            return {"status": FINISHED, "result": self._body.result()}
        except StaleToken:
            return None
        except asyncio.CancelledError:
            if self._fenced:
                return None
            if self._why_stopped is None:
                raise
            return {"status": STOPPED, "failure": await self._undo()}
        except EnisleError as error:
            failure = Failure(error.message, error.why, error.hint)
            return {"status": FAILED, "failure": failure, "temporary": isinstance(error, Temporary)}
        except Exception as error:  # a routine's defect fails its task, not the agent
            return {"status": FAILED, "failure": Failure(f"the routine {self.context.routine} broke", repr(error), "")}

    async def _undo(self) -> Failure | None:
        """Run the compensations, last first; say when one fails."""
        for compensation in reversed(self._compensations):
            try:
                await compensation()
            except Exception as error:
                return Failure("it was stopped, and not all could be undone", repr(error), "")
        return None

    async def _tell(self) -> None:
        revision, began = ABSENT, time.time()
        while True:
            await self._news.wait()
            self._news.clear()
            spent = time.time() - began
            left = spent * (1 - self._fraction) / self._fraction if self._fraction else None
            value: Value = {
                "attempt": self.attempt,
                "fraction": round(self._fraction, 4),
                "phase": self._phase[:200],
                "left_s": round(left, 1) if left is not None else None,
            }
            revision = await self._agent.send_progress(self.task, value, revision)
            await asyncio.sleep(PROGRESS_INTERVAL_S)
