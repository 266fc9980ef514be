"""One attempt of one task on a host: the context of its routine, its steps, its progress and its end.

However it ends, it ends in time: a routine that is stopped has five seconds to undo what it began, one that is fenced
none. Owned by its agent's event loop.
"""

import asyncio
import contextlib
import json
import time
from typing import Any, Protocol

from enisle.errors import EnisleError, InvalidRequest, StateError
from enisle.tasks.journal import Journal, StaleToken
from enisle.tasks.names import require_token
from enisle.tasks.objects import Objects
from enisle.tasks.records import EXCLUSIVE, FAILED, FINISHED, STOPPED, Assignment, Failure, Task
from enisle.tasks.routines import Routines, Step, Temporary
from enisle.tasks.store import ABSENT, Value

STEP_MARGIN_S = 1.0
"""A step begins only while the lease has this long to live."""
FORCE_S = 5.5
"""How long a stopped routine may take; then it is cancelled once more and left behind."""
PROGRESS_INTERVAL_S = 0.1
MAX_VALUE = 64 << 10
"""The largest result or record in a key; a larger result goes into an object."""
POISON_RUNS = 5
"""An attempt that was begun this often ends its agent each time, and is begun no more."""
EPOCH_BITS = 40


def fencing_token(epoch: int, revision: int) -> int:
    """Return the token of an order: it rises with every order, also when the store has begun a new life."""
    return (epoch << EPOCH_BITS) | revision


class Host(Protocol):
    """What a run needs of its agent."""

    journal: Journal
    routines: Routines
    objects: Objects | None

    def left_s(self) -> float: ...
    async def report(self, order: Assignment, revision: int, **outcome: Any) -> None: ...
    async def send_progress(self, task: str, value: Value | None, revision: int) -> int: ...


class Run:
    """One attempt of one task: the `Context` of its routine."""

    def __init__(self, agent: Host, order: Assignment, revision: int) -> None:
        self._agent, self._order, self.revision = agent, order, revision
        self.task, self.attempt, self.host = order.task, order.attempt, order.host
        self.token = fencing_token(order.epoch, revision)
        self.context = Task.from_value(order.context)
        self.arguments, self.resources = self.context.arguments, self.context.resources
        self.tenant, self.actor, self.deadline = self.context.tenant, self.context.actor, self.context.deadline
        self.records = order.records
        self.fenced = False
        self._changes: dict[str, Value | None] = {}
        self._body: asyncio.Task[Any] | None = None
        self._why_stopped: str | None = None
        self._given_up = asyncio.Event()
        self._forcing: asyncio.Task[None] | None = None
        self._compensations: list[Step] = []
        self._fraction, self._phase = 0.0, ""
        self._told = ABSENT
        """The revision of what was last told of the progress."""
        self._news = asyncio.Event()

    # ---- what the routine uses -------------------------------------------------------------------------------------

    async def step(self, name: str, action: Step) -> Any:
        journal = self._agent.journal
        _begun, done, result = journal.find(self.task, self.attempt, name)
        if done:
            return result
        await self._may_act()
        await journal.write(lambda: journal.begin(self.task, self.attempt, name))
        await self._may_act()  # writing may have taken long
        result = await action()
        await journal.write(lambda: journal.finish(self.task, self.attempt, name, result))
        return result

    async def _may_act(self) -> None:
        """Wait until the lease surely outlives a step, or `fence` ends us."""
        while self._agent.left_s() < STEP_MARGIN_S or self.fenced or self._given_up.is_set():
            if self._given_up.is_set():
                raise asyncio.CancelledError
            await asyncio.sleep(0.05)

    def progress(self, fraction: float, phase: str = "") -> None:
        if fraction == fraction:  # not NaN
            self._fraction = max(self._fraction, min(1.0, max(0.0, float(fraction))))
        self._phase = phase or self._phase
        self._news.set()

    def on_cancel(self, compensation: Step) -> None:
        self._compensations.append(compensation)

    def put_record(self, kind: str, id: str, value: Value | None) -> None:
        require_token("a kind of resource", kind)
        require_token("a resource", id)
        if not any((one.kind, one.id, one.mode) == (kind, id, EXCLUSIVE) for one in self.resources):
            raise StateError("it changed what it does not hold", f"the record of {kind}/{id}", "hold it exclusively")
        if value is not None and (not isinstance(value, dict) or _size("a record", value) > MAX_VALUE):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest("a record is an object of at most 64 KiB", f"{kind}/{id}", "")
        self._changes[f"{kind}.{id}"] = value

    # ---- from the agent --------------------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        if self._why_stopped is None:
            self._why_stopped = why
            if self._body:
                self._body.cancel()
                self._forcing = asyncio.create_task(self._force(self._body))

    async def _force(self, body: "asyncio.Task[Any]") -> None:
        await asyncio.wait([body], timeout=FORCE_S)
        if not body.done():
            body.cancel()
            await asyncio.wait([body], timeout=0.2)
        self._given_up.set()

    def fence(self) -> None:
        self.fenced = True
        if self._body:
            self._body.cancel()

    async def run(self, stop: str | None = None) -> None:
        """Run the routine to its end and report it. `stop`: it shall be stopped before it began."""
        if self.attempt > 1:
            self._news.set()  # what an earlier attempt said of its progress is over
        telling = asyncio.create_task(self._tell())
        try:
            outcome = await self._outcome(stop)
        finally:
            telling.cancel()
            if self._forcing:
                self._forcing.cancel()
            if self._body and not self._body.done():
                self._body.cancel()
        if outcome and not self.fenced:
            await self._agent.report(self._order, self.revision, changes=self._changes, **outcome)
            if self._told:  # nobody needs it any more
                await self._agent.send_progress(self.task, None, self._told)

    async def _outcome(self, stop: str | None) -> dict[str, Any] | None:
        try:
            await self._admit()
            if stop is not None:
                return {"status": STOPPED, "failure": None}
            routine = self._agent.routines.get(self.context.routine)
            routine.check(self.arguments)
            if self.fenced:
                return None
            self._body = asyncio.ensure_future(routine.body(self))
            if self._why_stopped is not None:
                why, self._why_stopped = self._why_stopped, None
                self.stop(why)
            await self._wait_for(self._body)
            if not self._body.done():
                return {"status": STOPPED, "failure": Failure("it did not stop", "its routine was left behind", "")}
            return {"status": FINISHED, "result": await self._packed(self._body.result())}
        except StaleToken:
            return None
        except asyncio.CancelledError:
            if self.fenced:
                return None
            if self._why_stopped is None:
                raise
            return {"status": STOPPED, "failure": await self._undo()}
        except EnisleError as error:
            failure = Failure(error.message, error.why, error.hint)
            return {"status": FAILED, "failure": failure, "temporary": isinstance(error, Temporary)}
        except Exception as error:  # a routine's defect fails its task, not the agent
            failure = Failure(f"the routine {self.context.routine} broke", repr(error)[:1000], "")
            return {"status": FAILED, "failure": failure}

    async def _admit(self) -> None:
        """Leave our token with all we hold. Raises StaleToken, StateError for an attempt that ends its agent."""
        keys = [resource.key for resource in self.resources if resource.mode == EXCLUSIVE]
        shared = [resource.key for resource in self.resources if resource.mode != EXCLUSIVE]
        journal = self._agent.journal
        runs = await journal.write(lambda: journal.admit(keys, self.token, self.task, self.attempt, shared))
        if runs > POISON_RUNS:
            raise StateError("it ends its agent", f"it was begun {POISON_RUNS} times, and never ended", "")

    async def _wait_for(self, body: "asyncio.Task[Any]") -> None:
        giving_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait([body, giving_up], return_when=asyncio.FIRST_COMPLETED)
        finally:
            giving_up.cancel()

    async def _packed(self, result: Any) -> Any:
        """Return a result as it is kept: as it is, or as a reference to an object. Raises InvalidRequest."""
        if _size("a result", result) <= MAX_VALUE:
            return result
        if self._agent.objects is None:
            raise InvalidRequest("the result of the task is too large", f"at most {MAX_VALUE} bytes", "")
        return await self._agent.objects.put(json.dumps(result).encode())

    async def _undo(self) -> Failure | None:
        """Run the compensations, last first; say when one fails."""
        for compensation in reversed(self._compensations):
            try:
                await compensation()
            except Exception as error:
                return Failure("it was stopped, and not all could be undone", repr(error)[:1000], "")
        return None

    async def _tell(self) -> None:
        began, last = time.monotonic(), None
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self._news.wait()
                self._news.clear()
                if (value := self._progress_at(time.monotonic() - began)) != last:
                    self._told = await self._agent.send_progress(self.task, value, self._told)
                    last = value
                await asyncio.sleep(PROGRESS_INTERVAL_S)

    def _progress_at(self, spent_s: float) -> Value:
        left = spent_s * (1 - self._fraction) / self._fraction if self._fraction else None
        return {
            "attempt": self.attempt,
            "fraction": round(self._fraction, 4),
            "phase": self._phase[:200],
            "left_s": round(left, 1) if left is not None else None,
        }


def _size(what: str, value: Any) -> int:
    try:
        return len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"{what} of a task must be JSON", str(error)[:200], "") from None
