"""What both sides of the fast lane agree on: its streams at the engine, their subjects, how an outcome is written.

    run.<pool>.<tenant>.<call>   RUN: calls that wait or run; a work queue
    res.<pool>.<tenant>.<call>   RES: what became of them, for an hour
    beg.<pool>.<tenant>.<call>   BEG: how often each was begun

The pool is what a host is permitted, the tenant what a caller may ask for: neither is read from what a message says.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from enisle.errors import HostError, StateError
from enisle.tasks.buckets import BEGINNINGS, RESULTS, RUN
from enisle.tasks.jetstream import JetStream
from enisle.tasks.names import require_token
from enisle.tasks.records import Failure
from enisle.tasks.store import Unavailable, Value

ACK_WAIT_S = 5.0
"""A worker that is silent for so long is dead: its call goes to another."""
MAX_RUNS = 3
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 64 << 20
MAX_CALL, MAX_RESULT = 256 << 10, 900 << 10
"""Bytes; the engine's largest message is a mebibyte."""
MAX_KEPT_BYTES = 128 << 20
"""The engine sets bounds aside on its disk, so they are small; what is older goes first."""
KEPT_S = 3600
SAME_KEY_S = 120.0
"""How long the engine itself knows a call it was given; then what is kept of it is asked."""
REMEMBERED = 20_000
"""Calls that each side remembers, to tell a repetition."""
GIVEN_UP = "the call ends its worker"
_NS = 1_000_000_000


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


def read_outcome(value: Value) -> Outcome:
    """Return an outcome as its worker wrote it. Raises KeyError, TypeError, ValueError for what is none."""
    failure = Failure(**value["failure"]) if value.get("failure") else None
    return Outcome(str(value["call"]), int(value["runs"]), value.get("result"), failure)


def place_of(pool: str, tenant: str, call: str) -> str:
    """Return the end of a call's subjects. Raises InvalidRequest for names that cannot be part of one."""
    return f"{require_token('a pool', pool)}.{require_token('a tenant', tenant)}.{require_token('a call', call)}"


async def open_lane(store: JetStream, pool: str, ack_wait_s: float) -> None:
    """Make what is not there of the lane's streams, and the consumer its workers share. Raises HostError."""
    for stream in _streams(store.replicas):
        verb = "UPDATE" if await _is_there(store, stream["name"]) else "CREATE"  # an older version may have made it
        await _ask(store, f"STREAM.{verb}.{stream['name']}", stream)
    consumer: Value = {
        "durable_name": pool,
        "filter_subject": f"run.{pool}.>",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * _NS),
        "max_deliver": -1,  # the workers count: a call that is given up must be answered, too
        "max_ack_pending": MAX_WAITING,
    }
    question = {"stream_name": RUN, "config": consumer, "action": ""}
    await _ask(store, f"CONSUMER.CREATE.{RUN}.{pool}.run.{pool}.>", question)


def _streams(replicas: int) -> list[Value]:
    common = {
        "storage": "file",
        "num_replicas": replicas,
        "max_age": KEPT_S * _NS,
        "allow_direct": True,
        "duplicate_window": int(SAME_KEY_S * _NS),
    }
    last = {"retention": "limits", "discard": "old", "max_msgs_per_subject": 1}
    queue = {"retention": "workqueue", "discard": "new", "max_msgs": MAX_WAITING, "max_bytes": MAX_WAITING_BYTES}
    # A beginning that is lost with the engine allows one more: not worth a disk sync before every call.
    early = {"persist_mode": "async"} if replicas == 1 else {}
    return [
        {"name": RUN, "subjects": ["run.>"], **common, **queue},
        {"name": RESULTS, "subjects": ["res.>"], **common, **last, "max_bytes": MAX_KEPT_BYTES},
        {"name": BEGINNINGS, "subjects": ["beg.>"], **common, **last, **early},
    ]


async def _is_there(store: JetStream, name: str) -> bool:
    try:
        return "config" in json.loads(await store._requests.ask(f"$JS.API.STREAM.INFO.{name}", b""))
    except Unavailable:
        return False


async def _ask(store: JetStream, subject: str, question: Value) -> None:
    deadline = time.monotonic() + 10
    while True:  # a cluster elects its leader first
        try:
            answer = json.loads(await store._requests.ask(f"$JS.API.{subject}", json.dumps(question).encode()))
        except Unavailable:
            answer = {"error": {"description": "no answer"}}
        if not answer.get("error"):
            return
        if time.monotonic() > deadline:
            raise HostError("the fast lane cannot be opened", answer["error"].get("description", ""), "")
        await asyncio.sleep(0.1)
