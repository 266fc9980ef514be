"""A watch that pulls: only the latest value of each key is kept for a slow reader, and a dead server is noticed soon.

A pushing watch buffers every message in the client and takes seconds to notice that its consumer's node is gone. This
one asks for a few messages at a time, expects a heartbeat twice a second and, without one, makes its consumer anew from
the last revision seen; after a longer silence it tells everything again, since the engine has forgotten deletions.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from enisle.tasks.identity import consumer_name
from enisle.tasks.requests import Requests
from enisle.tasks.store import Entry, Unavailable, Value

HEARTBEAT, HEARTBEAT_S = "100", 0.5
SILENCE_S = 1.2
PULL = 128
"""How many messages are asked for at a time; the next are asked for while the last half of these comes."""
EXPIRES_S = 30
FORGOTTEN_S = 30.0
"""A silence after which deletions may have been missed: half of what the engine remembers them."""


class Silent(Exception):
    """The consumer, its node or the connection is gone."""


class PullWatch:
    """One watch of a key-value stream: of the keys under `prefix`, which ends with a dot, or of the one key it is."""

    def __init__(
        self,
        client: Client,
        requests: Requests,
        stream: str,
        root: str,
        prefix: str,
        api: str = "$JS.API.",
        host: str = "",
        headers_only: bool = False,
    ) -> None:
        self._headers_only = headers_only
        self._client, self._requests, self._stream, self._root = client, requests, stream, root
        self._api, self._name = api, consumer_name(host, prefix.partition(".")[0]) if host else ""
        self._filter = f"{root}{prefix}" + (">" if not prefix or prefix.endswith(".") else "")
        self._seen = 0

    async def entries(self) -> AsyncIterator[Entry | None]:
        heard = 0.0
        while True:
            afresh = not self._seen or time.monotonic() - heard > FORGOTTEN_S
            try:
                consumer, pending = await self._create(afresh)
                if afresh:
                    yield None
                    if not pending:
                        yield Entry("", None, self._seen)
                async for entry in self._pull(consumer):
                    heard = time.monotonic()
                    if entry:
                        self._seen = max(self._seen, entry.revision)
                        yield entry
            except (Silent, Unavailable, OSError, NatsError):
                heard = heard or time.monotonic()
                await asyncio.sleep(0.05)

    async def _create(self, afresh: bool) -> tuple[str, int]:
        """Make a consumer; return its name and how many messages wait for it."""
        name = self._name or f"w{uuid.uuid4().hex[:16]}"
        if self._name:  # a host may use one name for each kind of keys, so what it left behind goes first
            await self._requests.ask(f"{self._api}CONSUMER.DELETE.{self._stream}.{name}", b"")
        where: dict[str, Any] = {"deliver_policy": "last_per_subject"}
        if not afresh:
            where = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._seen + 1}
        configuration = {
            **where,
            "name": name,
            "filter_subject": self._filter,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "headers_only": self._headers_only,
            "inactive_threshold": 10_000_000_000,
        }
        question = {"stream_name": self._stream, "config": configuration, "action": "create"}
        subject = f"{self._api}CONSUMER.CREATE.{self._stream}.{name}.{self._filter}"
        answer = json.loads(await self._requests.ask(subject, json.dumps(question).encode()))
        if "error" in answer:
            raise Silent(answer["error"].get("description", ""))
        return name, answer.get("num_pending", 0)

    async def _pull(self, consumer: str) -> AsyncIterator[Entry | None]:
        """Yield entries, and None for each heartbeat. Raises Silent."""
        inbox = self._client.new_inbox()
        # A queue of our own: the client's next_msg() may swallow a cancellation (asyncio.wait_for of Python 3.11).
        messages: asyncio.Queue[Msg] = asyncio.Queue()
        subscription = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            inbox, cb=messages.put
        )
        ask = {"batch": PULL, "expires": EXPIRES_S * 1_000_000_000, "idle_heartbeat": int(HEARTBEAT_S * 1e9)}
        try:
            left = 0
            while True:
                if left <= PULL // 2:
                    await self._client.publish(
                        f"{self._api}CONSUMER.MSG.NEXT.{self._stream}.{consumer}", json.dumps(ask).encode(), reply=inbox
                    )
                    left += PULL
                message = await _next(messages)
                status = (message.headers or {}).get("Status")
                if status == HEARTBEAT:
                    yield None
                elif status in ("408", "404"):
                    left = max(0, left - int((message.headers or {}).get("Nats-Pending-Messages", left)))
                elif status:
                    raise Silent(status)
                else:
                    left -= 1
                    yield self._entry(message)
        finally:
            await _quietly(subscription.unsubscribe())

    def _entry(self, message: Msg) -> Entry:
        headers = message.headers or {}
        gone = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>, or with domain
        tokens = message.reply.split(".")
        revision, pending = int(tokens[-4 if len(tokens) == 9 else -5]), int(tokens[-1 if len(tokens) == 9 else -2])
        value: Value | None = {} if self._headers_only else json.loads(message.data or b"null")
        value = None if gone else value
        when = int(tokens[-2 if len(tokens) == 9 else -3]) / 1e9
        return Entry(message.subject.removeprefix(self._root), value, revision, current=not pending, time=when)


async def _next(messages: "asyncio.Queue[Msg]") -> Msg:
    """Raises Silent."""
    with contextlib.suppress(asyncio.QueueEmpty):  # much is told at once: a timeout for each would cost as much again
        return messages.get_nowait()
    try:
        async with asyncio.timeout(SILENCE_S):
            return await messages.get()
    except TimeoutError as error:
        raise Silent from error


async def _quietly(action: Any) -> None:
    try:
        await action
    except (OSError, NatsError):
        pass
