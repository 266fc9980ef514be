"""The fast lane: small calls that hold no named resource, by a work queue of the engine instead of the dispatcher.

A call that was taken is done at least once, whoever dies; one that was done twice is counted by its caller. A full
queue refuses. A call that ends its worker each time is given up, visibly. The result goes straight to the caller; when
he is away it is kept for an hour before the call leaves the queue. One event loop owns each side.
"""

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from enisle.errors import EnisleError, HostError, InvalidRequest, StateError
from enisle.tasks.jetstream import JetStream
from enisle.tasks.names import require_routine, require_token, task_id
from enisle.tasks.records import Failure
from enisle.tasks.store import Unavailable, Value

STREAM, RESULTS = "RUN", "RES"
ACK_WAIT_S = 10.0
"""A worker that is silent for so long is dead: its call goes to another."""
MAX_RUNS = 3
MAX_WAITING = 10_000
MAX_CALL = 64 << 10
KEPT_S = 3600
SAME_KEY_S = 120.0
"""How long a key stands for the call it was used for."""
TAKEN_S = 1.0
"""How long a caller has to confirm that he has the result."""
PULL_S = 5.0
REMEMBERED = 20_000
"""Calls that each side remembers, to tell a repetition."""
FULL = 10077

T = TypeVar("T")
Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]


class Overloaded(StateError):
    """The queue is full: later, or somewhere else."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: its result, or why there is none. `runs`: how often it was begun, 2 or more: repeated."""

    call: str
    runs: int
    result: Any = None
    failure: Failure | None = None

    def get(self) -> Any:
        """Return the result. Raises StateError when the call failed."""
        if self.failure:
            raise StateError(self.failure.message, self.failure.why, self.failure.hint)
        return self.result


class FastLane:
    """One side of the lane, or both. `async with FastLane(store) as lane: await lane.call("sum@1", {"of": [1, 2]})`."""

    def __init__(
        self, store: JetStream, pool: str = "default", tenant: str = "default", ack_wait_s: float = ACK_WAIT_S
    ) -> None:
        self._requests, self._client, self._replicas = store._requests, store._client, store.replicas
        self.pool, self.tenant = require_token("a pool", pool), require_token("a tenant", tenant)
        self._subject = f"run.{pool}.0"
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._asked = 0
        self._ack_wait_s = ack_wait_s
        self._known: OrderedDict[str, asyncio.Future[Value]] = OrderedDict()
        """As a worker: what became of the calls begun here. Delivered again, they are not done again."""
        self._seen: OrderedDict[str, str] = OrderedDict()
        """As a caller: which run of a call the result was of."""
        self.done = self.repeated = self.poisoned = 0

    async def __aenter__(self) -> Self:
        await self._create_stream(STREAM, "run.>", "workqueue", MAX_WAITING, 0)
        await self._create_stream(RESULTS, "res.>", "limits", -1, KEPT_S)
        consumer: Value = {
            "durable_name": self.pool,
            "filter_subject": f"run.{self.pool}.>",
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait_s * 1e9),
            "max_deliver": -1,  # the worker counts: a call that is given up must be answered, too
            "max_ack_pending": MAX_WAITING,
        }
        question = {"stream_name": STREAM, "config": consumer, "action": ""}
        await self._ask(f"CONSUMER.CREATE.{STREAM}.{self.pool}.run.{self.pool}.>", question)
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            f"{self._inbox}.*", cb=self._take_outcome
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for future in self._waiting.values():
            future.cancel()
        try:
            await self._subscription.unsubscribe()
        except (OSError, NatsError):
            pass

    async def _create_stream(self, name: str, subjects: str, retention: str, most: int, age_s: int) -> None:
        wanted = {
            "name": name,
            "subjects": [subjects],
            "retention": retention,
            "storage": "file",
            "max_msgs": most,
            "max_msgs_per_subject": 1 if retention == "limits" else -1,
            "max_age": age_s * 1_000_000_000,
            "discard": "new" if retention == "workqueue" else "old",
            "num_replicas": self._replicas,
            "duplicate_window": int(SAME_KEY_S * 1e9),
            "allow_direct": True,
        }
        if age_s and age_s < SAME_KEY_S:
            wanted["duplicate_window"] = wanted["max_age"]
        await self._ask(f"STREAM.CREATE.{name}", wanted)

    async def _ask(self, subject: str, question: Value) -> Value:
        deadline = time.monotonic() + 10
        while True:  # a cluster elects its leader first
            try:
                answer = json.loads(await self._requests.ask(f"$JS.API.{subject}", json.dumps(question).encode()))
            except Unavailable:
                answer = {"error": {"description": "no answer"}}
            if not answer.get("error"):
                return answer
            if time.monotonic() > deadline:
                raise HostError("the fast lane cannot be opened", answer["error"].get("description", ""), "")
            await asyncio.sleep(0.1)

    # ---- the caller's side -----------------------------------------------------------------------------------------

    async def submit(self, routine: str, arguments: dict[str, Any], key: str = "") -> str:
        """Put a call into the queue, on disk; return its identity. The same key within two minutes is the same call.

        Raises InvalidRequest, StateError when the queue is full, Unavailable.
        """
        call = task_id(self.tenant, key or uuid.uuid4().hex)
        value = {"call": call, "routine": require_routine(routine), "arguments": arguments, "tenant": self.tenant}
        try:
            payload = json.dumps(value | {"reply": f"{self._inbox}.{call}"}, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRequest("the arguments of a call must be JSON", str(error)[:200], "") from None
        if len(payload) > MAX_CALL:
            raise InvalidRequest("a call is too large", f"{len(payload)} bytes, at most {MAX_CALL}", "use an object")
        self._waiting.setdefault(call, asyncio.get_running_loop().create_future())
        try:
            await self._put(self._subject, payload, call)
        except BaseException:
            self._waiting.pop(call, None)
            raise
        return call

    async def _put(self, subject: str, payload: bytes, identity: str) -> None:
        """Store a message once, however often it is sent. Raises Overloaded, Unavailable."""
        deadline = time.monotonic() + 10
        while True:
            try:
                answer = json.loads(await self._requests.ask(subject, payload, {"Nats-Msg-Id": identity}))
                error = answer.get("error")
                if not error:
                    return
                if error.get("err_code") == FULL:
                    raise Overloaded("the queue is full", f"{MAX_WAITING} calls wait", "try again in a moment")
                raise Unavailable("the engine does not take a call", error.get("description", ""), "see its log")
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def wait(self, call: str, timeout_s: float | None = None) -> Outcome:
        """Return what became of a call of ours. Raises TimeoutError."""
        future = self._waiting.setdefault(call, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout_s):
                while not future.done():
                    await asyncio.wait([future], timeout=TAKEN_S)
                    if not future.done() and (kept := await self._kept(call)):
                        return kept
                return future.result()
        finally:
            if future.done():
                self._waiting.pop(call, None)

    async def call(self, routine: str, arguments: dict[str, Any], timeout_s: float | None = None) -> Any:
        """Submit and wait; return the result. Raises what submit, wait and Outcome.get raise."""
        return (await self.wait(await self.submit(routine, arguments), timeout_s)).get()

    async def _kept(self, call: str) -> Outcome | None:
        try:
            subject = f"$JS.API.DIRECT.GET.{RESULTS}.res.{call}"
            message = await self._requests.ask_message(subject, b"")
            if "Nats-Sequence" not in (message.headers or {}):
                return None
        except Unavailable:
            return None
        return _outcome(json.loads(message.data))

    async def _take_outcome(self, message: Msg) -> None:
        value = json.loads(message.data)
        outcome = _outcome(value)
        future = self._waiting.get(outcome.call)
        if future and not future.done():
            future.set_result(outcome)
        known = _remember(self._seen, outcome.call, value["run"])
        self.repeated += known != value["run"]
        if message.reply:
            await self._client.publish(message.reply, b"")

    # ---- the worker's side -----------------------------------------------------------------------------------------

    async def work(self, handler: Handler, at_once: int = 32) -> None:
        """Do calls of the pool until cancelled, up to `at_once` side by side.

        It begins with one and takes more as calls end: a call that ends its worker takes few others along.
        """
        room = asyncio.Semaphore(at_once)
        messages: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            inbox, cb=messages.put
        )
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await room.acquire()
                    message = await self._next(messages, inbox, min(at_once, self.done + 1))
                    doing = group.create_task(self._do(message, handler))
                    doing.add_done_callback(lambda _: room.release())
        finally:
            try:
                await subscription.unsubscribe()
            except (OSError, NatsError):
                pass

    async def _next(self, messages: "asyncio.Queue[Msg]", inbox: str, batch: int) -> Msg:
        """Return the next call, asking for more when what was asked for has come."""
        while True:
            if messages.empty() and self._asked <= 0:
                ask = {"batch": batch, "expires": int(PULL_S * 1e9)}
                try:
                    await self._client.publish(
                        f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{self.pool}", json.dumps(ask).encode(), reply=inbox
                    )
                    self._asked = batch
                except (OSError, NatsError):
                    await asyncio.sleep(0.1)
                    continue
            try:
                async with asyncio.timeout(PULL_S + 0.5 if self._client.is_connected else 0.2):
                    message = await messages.get()
            except TimeoutError:
                self._asked = 0  # the engine was away, or is
                continue
            status = (message.headers or {}).get("Status")
            if status:
                self._asked = 0
                if status not in ("404", "408"):
                    await asyncio.sleep(0.05)
                continue
            self._asked -= 1
            return message

    async def _do(self, message: Msg, handler: Handler) -> None:
        value = json.loads(message.data)
        tokens = message.reply.split(".")
        runs = int(tokens[-5 if len(tokens) == 9 else -6])  # as in pullwatch.py
        fresh: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        known = _remember(self._known, value["call"], fresh)
        beating = asyncio.create_task(self._beat(message))
        try:
            if known is fresh:
                fresh.set_result(await self._outcome_of(value, runs, handler))
            await self._deliver(value, await asyncio.shield(known))
        finally:
            beating.cancel()
        await self._acknowledge(message)

    async def _outcome_of(self, value: Value, runs: int, handler: Handler) -> Value:
        outcome: Value = {"call": value["call"], "run": uuid.uuid4().hex, "runs": runs, "result": None, "failure": None}
        if runs > MAX_RUNS:
            self.poisoned += 1
            failure = Failure("the call ends its worker", f"it was begun {MAX_RUNS} times, and never ended", "")
            return outcome | {"failure": failure.to_value()}
        outcome |= await _tried(handler, value)
        self.done += 1
        return outcome

    async def _beat(self, message: Msg) -> None:
        """Say that we still work on it: the queue gives it to nobody else."""
        while True:
            await asyncio.sleep(self._ack_wait_s / 3)
            try:
                await self._client.publish(message.reply, b"+WPI")
            except (OSError, NatsError):
                pass

    async def _deliver(self, value: Value, outcome: Value) -> None:
        """Give the caller his result, or keep it for him, before the call leaves the queue."""
        payload = json.dumps(outcome).encode()
        try:
            await self._requests.ask(value["reply"], payload)
        except Unavailable:
            while True:
                try:
                    await self._put(f"res.{outcome['call']}", payload, f"{outcome['call']}-{outcome['runs']}")
                    return
                except Unavailable:
                    await asyncio.sleep(0.2)

    async def _acknowledge(self, message: Msg) -> None:
        """Take the call out of the queue; not to succeed only means that it is done again."""
        for _ in range(5):
            try:
                await self._requests.ask(message.reply, b"+ACK")
                return
            except Unavailable:
                await asyncio.sleep(0.2)


async def _tried(handler: Handler, value: Value) -> Value:
    try:
        result = await handler(value["routine"], value["arguments"])
        if len(json.dumps(result, allow_nan=False)) > MAX_CALL:
            raise InvalidRequest("the result of a call is too large", f"at most {MAX_CALL} bytes", "use an object")
        return {"result": result}
    except EnisleError as error:
        return {"failure": Failure(error.message, error.why, error.hint).to_value()}
    except Exception as error:  # a routine's defect fails its call, not the worker
        return {"failure": Failure(f"the routine {value['routine']} broke", repr(error)[:1000], "").to_value()}


def _remember(where: "OrderedDict[str, T]", key: str, value: T) -> T:
    """Return what is remembered of a key, the value from now on when that is nothing; the oldest is forgotten."""
    known = where.setdefault(key, value)
    while len(where) > REMEMBERED:
        where.popitem(last=False)
    return known


def _outcome(value: Value) -> Outcome:
    failure = Failure(**value["failure"]) if value.get("failure") else None
    return Outcome(value["call"], value["runs"], value.get("result"), failure)
