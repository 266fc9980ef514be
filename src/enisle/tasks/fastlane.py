"""The fast lane: small calls that hold no named resource, by a work queue of the engine instead of the dispatcher.

This is the caller's side; `laneworker` is the other. A call that was taken is done at least once, whoever dies; one
that was done twice is counted. A full queue refuses. What became of a call is written down for an hour before it leaves
the queue, and whoever waits for it hears it at that moment. One event loop owns it.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Self

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.tasks.audit import EVERY
from enisle.tasks.buckets import POOL, RESULTS, RUN
from enisle.tasks.client import KeyTaken
from enisle.tasks.jetstream import JetStream
from enisle.tasks.lane import (
    ACK_WAIT_S,
    GIVEN_UP,
    KEPT_S,
    MAX_CALL,
    MAX_WAITING,
    REMEMBERED,
    Outcome,
    open_lane,
    place_of,
    read_outcome,
)
from enisle.tasks.names import require_routine, require_token, task_id
from enisle.tasks.store import Unavailable, Value

LOOK_S = 1.0
"""How often a waiting caller looks at what is kept: news may be missed."""
FULL = 10077
NOTHING = 10037


class Overloaded(StateError):
    """The queue is full: later, or somewhere else."""


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """The queue now, and what became of calls since this side was opened. `given_up` are `failed`, too."""

    waiting: int
    running: int
    done: int
    failed: int
    repeated: int
    given_up: int


class FastLane:
    """A caller. `async with FastLane(store) as lane: await lane.call("sum@1", {"of": [1, 2]})`."""

    def __init__(
        self, store: JetStream, pool: str = POOL, tenant: str = "default", ack_wait_s: float = ACK_WAIT_S
    ) -> None:
        self._store, self._requests, self._client = store, store._requests, store._client
        self.pool, self.tenant = require_token("a pool", pool), require_token("a tenant", tenant)
        self._ack_wait_s = ack_wait_s
        self._waiting: dict[str, set[asyncio.Future[Outcome]]] = {}
        self._seen: OrderedDict[str, str] = OrderedDict()
        """Which run of a call the first result was of."""
        self.done = self.failed = self.repeated = self.given_up = 0

    async def __aenter__(self) -> Self:
        await open_lane(self._store, self.pool, self._ack_wait_s)
        self._subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            f"res.{self.pool}.>", cb=self._hear
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for future in (one for waiting in self._waiting.values() for one in waiting):
            future.cancel()
        try:
            await self._subscription.unsubscribe()
        except (OSError, NatsError):
            pass

    # ---- submitting ------------------------------------------------------------------------------------------------

    async def run(
        self, routine: str, arguments: dict[str, Any], key: str = "", tenant: str = "", timeout_s: float | None = None
    ) -> tuple[str, Outcome | None]:
        """Put a call into the queue, on disk, and wait; return its identity, and its outcome if that came in time.

        The same key within an hour is the same call. Raises InvalidRequest, KeyTaken when the key's call asked for
        something else, Overloaded, Unavailable.
        """
        tenant = tenant or self.tenant
        call = task_id(tenant, f"call {key or uuid.uuid4().hex}")
        payload, asked = _packed(call, routine, arguments)
        with self._expecting(call) as future:
            known = await self._find(tenant, call) if key else None
            if known is None and await self._put(f"run.{place_of(self.pool, tenant, call)}", payload, call):
                known = await self._find(tenant, call)
            if known and known.get("asked", asked) != asked:
                raise KeyTaken("this key was used for another call", f"call {call}", "choose another key")
            if timeout_s == 0:
                return call, None
            try:
                return call, await self._await(call, tenant, future, timeout_s, fresh=known is None)
            except TimeoutError:
                return call, None

    async def submit(self, routine: str, arguments: dict[str, Any], key: str = "", tenant: str = "") -> str:
        """Put a call into the queue as `run` does; return its identity."""
        return (await self.run(routine, arguments, key, tenant, 0))[0]

    async def call(self, routine: str, arguments: dict[str, Any], timeout_s: float | None = None) -> Any:
        """Return a call's result. Raises what `run` and Outcome.get raise, TimeoutError."""
        _, outcome = await self.run(routine, arguments, timeout_s=timeout_s)
        if outcome is None:
            raise TimeoutError(f"the call did not end within {timeout_s} s")
        return outcome.get()

    async def _put(self, subject: str, payload: bytes, identity: str) -> bool:
        """Store a message once, however often it is sent; return whether it was there. Raises Overloaded."""
        deadline = time.monotonic() + 10
        while True:
            try:
                answer = json.loads(await self._requests.ask(subject, payload, {"Nats-Msg-Id": identity}))
                error = answer.get("error")
                if not error:
                    return bool(answer.get("duplicate"))
                if error.get("err_code") == FULL and "maximum" in error.get("description", ""):
                    raise Overloaded("the queue is full", f"{MAX_WAITING} calls wait", "try again in a moment")
                raise Unavailable("the engine does not take a call", error.get("description", ""), "see its log")
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    # ---- what becomes of calls -------------------------------------------------------------------------------------

    async def wait(self, call: str, timeout_s: float | None = None, tenant: str = "") -> Outcome:
        """Return what became of a call. Raises TimeoutError, NotFound when nothing is known of it (any more)."""
        with self._expecting(call) as future:
            return await self._await(call, tenant or self.tenant, future, timeout_s)

    @contextlib.contextmanager
    def _expecting(self, call: str) -> "Generator[asyncio.Future[Outcome]]":
        """Hear of a call from now on."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(call, set()).add(future)
        try:
            yield future
        finally:
            self._waiting[call].discard(future)
            if not self._waiting[call]:
                del self._waiting[call]

    async def _await(
        self, call: str, tenant: str, future: "asyncio.Future[Outcome]", timeout_s: float | None, fresh: bool = False
    ) -> Outcome:
        async with asyncio.timeout(timeout_s):
            if fresh:
                await asyncio.wait([future], timeout=LOOK_S)
            while fresh is False or not future.done():
                if kept := await self.look(call, tenant):
                    return kept
                await asyncio.wait([future], timeout=LOOK_S)
                fresh = True  # it is this tenant's: what is heard of it may be told
            return future.result()

    async def look(self, call: str, tenant: str = "") -> Outcome | None:
        """Return what became of a call, None while it waits or runs. Raises NotFound, Unavailable.

        The tenant EVERY finds everybody's.
        """
        found = await self._find(tenant or self.tenant, call)
        if found is None:
            hint = f"a call and its outcome are kept for {KEPT_S // 3600} h"
            raise NotFound(f"there is no call {call}", "it is unknown, or was long ago", hint)
        return read_outcome(found) if "runs" in found else None

    async def _find(self, tenant: str, call: str) -> Value | None:
        """Return what is kept of a call: its outcome, else what was asked for. At the leader: never behind."""
        require_token("a call", call)
        place = f"{self.pool}.{tenant if tenant == EVERY else require_token('a tenant', tenant)}.{call}"
        for stream, kind in ((RESULTS, "res"), (RUN, "run"), (RESULTS, "res")):  # it may end while we look
            answer = await self._ask(f"STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": f"{kind}.{place}"})
            if "message" in answer:
                return json.loads(base64.b64decode(answer["message"]["data"]))
            if answer["error"].get("err_code") != NOTHING:
                raise Unavailable("cannot look for a call", answer["error"].get("description", ""), "")
        return None

    async def _ask(self, subject: str, question: Value) -> Value:
        return await self._store._patiently(lambda: self._store._ask(subject, question))

    async def _hear(self, message: Msg) -> None:
        """Take an outcome at the moment its worker writes it down."""
        call = message.subject.rsplit(".", 1)[1]
        try:
            value: Value = json.loads(message.data)
            outcome, run = read_outcome(value), str(value["run"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # no worker of ours wrote that
        self._count(call, run, outcome)
        for future in self._waiting.get(call, ()):
            if not future.done():
                future.set_result(outcome)

    def _count(self, call: str, run: str, outcome: Outcome) -> None:
        known = self._seen.setdefault(call, run)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self.repeated += known != run
        self.done += outcome.failure is None
        self.failed += outcome.failure is not None
        self.given_up += outcome.failure is not None and outcome.failure.message == GIVEN_UP

    async def figures(self) -> LaneFigures:
        """Return how the queue is, if the engine tells at once. Raises Unavailable."""
        told = await self._store._ask(f"CONSUMER.INFO.{RUN}.{self.pool}", {})
        if error := told.get("error"):
            raise Unavailable("cannot look at the queue", error.get("description", ""), "")
        counts = self.done, self.failed, self.repeated, self.given_up
        return LaneFigures(int(told["num_pending"]), int(told["num_ack_pending"]), *counts)


def _packed(call: str, routine: str, arguments: dict[str, Any]) -> tuple[bytes, str]:
    """Return a call as it is queued, and what tells it from another of the same key. Raises InvalidRequest."""
    value = {"call": call, "routine": require_routine(routine), "arguments": arguments}
    try:
        asked = hashlib.sha256(json.dumps(value, allow_nan=False, sort_keys=True).encode()).hexdigest()
        payload = json.dumps(value | {"asked": asked}).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest("the arguments of a call must be JSON", str(error)[:200], "") from None
    if len(payload) > MAX_CALL:
        raise InvalidRequest("a call is too large", f"{len(payload)} bytes, at most {MAX_CALL}", "use an island")
    return payload, asked
