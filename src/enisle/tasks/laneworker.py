"""The worker's side of the fast lane: takes calls of a pool, does them, writes down what became of each.

It asks for as many calls as it can begin at once, so none waits with one worker while another is free. How often a call
was begun is told to the engine before it is; the number outlives worker and engine, so a call that ends its workers is
given up whoever dies beside it. A worker that is told to end gives its calls back. One event loop owns it.
"""

import asyncio
import contextlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from enisle.errors import EnisleError, InvalidRequest
from enisle.tasks.buckets import BEGINNINGS, POOL, RUN
from enisle.tasks.identity import HOST_API
from enisle.tasks.jetstream import JetStream
from enisle.tasks.lane import (
    ACK_WAIT_S,
    GIVEN_UP,
    MAX_RESULT,
    MAX_RUNS,
    REMEMBERED,
    open_lane,
)
from enisle.tasks.names import require_token
from enisle.tasks.pullwatch import HEARTBEAT, HEARTBEAT_S, SILENCE_S
from enisle.tasks.records import Failure
from enisle.tasks.store import Unavailable, Value

PULL_S = 5.0
IDLE_S = 0.2
"""How long a worker that must not or cannot take calls waits before it looks again."""

FLUSHING = 50
"""Turns of the event loop in which the client's own task passes on what was published."""


@dataclass(frozen=True, slots=True)
class LaneCall:
    """One call, as its worker gets it."""

    id: str
    tenant: str
    routine: str
    arguments: dict[str, Any]


Handler = Callable[[LaneCall], Awaitable[Any]]


class LaneWorker:
    """`async with LaneWorker(store) as worker: await worker.work(handler)`, as the platform or as a host.

    `may` says whether calls may be taken now.
    """

    def __init__(
        self,
        store: JetStream,
        pool: str = POOL,
        ack_wait_s: float = ACK_WAIT_S,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store, self._requests, self._client = store, store._requests, store._client
        self._api = HOST_API if store.host else "$JS.API."
        self.pool, self._ack_wait_s, self._may = require_token("a pool", pool), ack_wait_s, may
        self._asked = 0
        """Calls that were asked for and have not come."""
        self._doing: dict[str, asyncio.Task[None]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        """Calls whose outcome is kept: delivered again, they are not done again."""
        self.done = self.given_up = 0

    async def __aenter__(self) -> Self:
        if not self._store.host:  # a host may not, and need not
            await open_lane(self._store, self.pool, self._ack_wait_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    # ---- taking calls ----------------------------------------------------------------------------------------------

    async def work(self, handler: Handler, at_once: int = 32) -> None:
        """Do calls of the pool until cancelled, up to `at_once` side by side.

        It begins with one and takes more as calls end: a call that ends its worker takes few others along.
        """
        news: asyncio.Queue[Msg | None] = asyncio.Queue()
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            inbox, cb=news.put
        )
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    room = min(at_once, self.done + 1) - len(self._doing) - self._asked
                    if room > 0 and (self._asked == 0 or 2 * room >= at_once):
                        await self._pull(inbox, room)
                    message = await self._next(news)
                    if message is not None and message.reply:
                        self._asked = max(0, self._asked - 1)
                        self._begin(group, news, message, handler)
        finally:
            with contextlib.suppress(OSError, NatsError):
                await subscription.unsubscribe()

    async def _pull(self, inbox: str, batch: int) -> None:
        """Ask for calls, if that may be."""
        if not self._may():
            await asyncio.sleep(IDLE_S)
            return
        ask = {"batch": batch, "expires": int(PULL_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)}
        try:
            subject = f"{self._api}CONSUMER.MSG.NEXT.{RUN}.{self.pool}"
            await self._client.publish(subject, json.dumps(ask).encode(), reply=inbox)
            self._asked += batch
        except (OSError, NatsError):
            await asyncio.sleep(IDLE_S)

    async def _next(self, news: "asyncio.Queue[Msg | None]") -> Msg | None:
        """Return the next call; None when there is only something new to think about.

        An engine that was killed and is back knows nothing of what it was asked: no heartbeat, and it is asked again.
        """
        try:
            async with asyncio.timeout(SILENCE_S if self._client.is_connected and self._asked else IDLE_S):
                message = await news.get()
        except TimeoutError:
            self._asked = 0  # the engine was away, or is
            return None
        if message is None:
            return None
        headers = message.headers or {}
        status = headers.get("Status")
        if not status:
            return message
        if status == HEARTBEAT:
            return None
        left = headers.get("Nats-Pending-Messages", "")
        self._asked = max(0, self._asked - int(left)) if status == "408" and left.isdecimal() else 0
        if status not in ("404", "408"):
            await asyncio.sleep(IDLE_S)
        return None

    def _begin(
        self, group: asyncio.TaskGroup, news: "asyncio.Queue[Msg | None]", message: Msg, handler: Handler
    ) -> None:
        place = message.subject.partition(".")[2]
        if place in self._doing:
            return  # delivered again while it runs: the beats of the first delivery were late
        doing = self._doing[place] = group.create_task(self._do(place, message, handler))

        def forget(_: object) -> None:
            del self._doing[place]
            news.put_nowait(None)

        doing.add_done_callback(forget)

    # ---- doing one -------------------------------------------------------------------------------------------------

    async def _do(self, place: str, message: Msg, handler: Handler) -> None:
        if place in self._ended:
            await self._acknowledge(message)
            return
        if not self._may():  # it was asked for while that might be
            await self._give_back(place, message, 0)
            return
        beating = asyncio.create_task(self._beat(message))
        runs = 0
        try:
            runs = await self._count(place)
            outcome = await self._outcome_of(place, message.data, runs, handler)
            await self._keep(place, outcome)
        except asyncio.CancelledError:
            await self._give_back(place, message, runs)
            raise
        finally:
            beating.cancel()
        self._ended[place] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        await self._acknowledge(message)

    async def _outcome_of(self, place: str, data: bytes, runs: int, handler: Handler) -> Value:
        _, tenant, call = place.split(".")
        value: Value = json.loads(data)
        outcome: Value = {"call": call, "run": uuid.uuid4().hex, "runs": runs, "asked": value.get("asked", "")}
        if runs > MAX_RUNS:
            self.given_up += 1
            failure = Failure(GIVEN_UP, f"it was begun {MAX_RUNS} times, and never ended", "")
            return outcome | {"runs": MAX_RUNS, "failure": failure.to_value()}
        outcome |= await _tried(handler, LaneCall(call, tenant, value["routine"], value["arguments"]))
        self.done += 1
        return outcome

    async def _count(self, place: str) -> int:
        """Return how often a call was begun with this time, having told the engine.

        The engine's own count of deliveries may start over when it is killed.
        """
        subject = f"beg.{place}"
        while True:
            try:
                found = await self._requests.ask_message(f"{self._api}DIRECT.GET.{BEGINNINGS}.{subject}", b"")
                break
            except Unavailable:
                await asyncio.sleep(IDLE_S)
        runs = 1 + (int(found.data) if "Nats-Sequence" in (found.headers or {}) else 0)
        await self._tell(subject, str(runs).encode())
        return runs

    async def _tell(self, subject: str, payload: bytes) -> None:
        """Send something to the engine, out of this process before we go on; its word is not waited for."""
        with contextlib.suppress(OSError, NatsError):
            await self._client.publish(subject, payload)
        for _ in range(FLUSHING):
            if not self._client.pending_data_size:
                return
            await asyncio.sleep(0)

    async def _beat(self, message: Msg) -> None:
        """Say that we still work on it: the queue gives it to nobody else."""
        while True:
            await asyncio.sleep(self._ack_wait_s / 3)
            with contextlib.suppress(OSError, NatsError):
                await self._client.publish(message.reply, b"+WPI")

    async def _keep(self, place: str, outcome: Value) -> None:
        """Write down what became of a call; whoever waits for it hears it by the same message."""
        payload = json.dumps(outcome).encode()
        while True:
            try:
                answer = json.loads(
                    await self._requests.ask(f"res.{place}", payload, {"Nats-Msg-Id": str(outcome["run"])})
                )
                if not answer.get("error"):
                    return
            except Unavailable:
                pass
            await asyncio.sleep(IDLE_S)

    async def _acknowledge(self, message: Msg) -> None:
        """Take the call out of the queue; not to succeed only means that it is delivered again."""
        for _ in range(5):
            try:
                await self._requests.ask(message.reply, b"+ACK")
                return
            except Unavailable:
                await asyncio.sleep(IDLE_S)

    async def _give_back(self, place: str, message: Msg, runs: int) -> None:
        """Let another do it at once: this beginning was not the call's fault."""
        if runs:
            await self._tell(f"beg.{place}", str(runs - 1).encode())
        await self._tell(message.reply, b"-NAK")


async def _tried(handler: Handler, call: LaneCall) -> Value:
    try:
        result = await handler(call)
        if len(json.dumps(result, allow_nan=False)) > MAX_RESULT:
            raise InvalidRequest("the result of a call is too large", f"at most {MAX_RESULT} bytes", "use an island")
        return {"result": result}
    except EnisleError as error:
        return {"failure": Failure(error.message, error.why, error.hint).to_value()}
    except Exception as error:  # a routine's defect fails its call, not the worker
        return {"failure": Failure(f"the routine {call.routine} broke", repr(error)[:1000], "").to_value()}
