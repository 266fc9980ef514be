"""The five verbs of the store on NATS JetStream: one key-value stream whose messages carry revisions.

The engine refuses a change whose expected revision is not the last; it may do so wrongly (error 10164 without a number)
or not answer at all when a node dies. Every refusal and every silence is therefore settled by a read at the leader,
never by a direct get, which may be stale. Needs nats-server 2.12 (atomic batches). One event loop owns a store.
"""

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from enisle.errors import HostError
from enisle.tasks.buckets import CONTROL, TOMBSTONE_S, Bucket, stream_configuration
from enisle.tasks.connection import connect, room, state_directory
from enisle.tasks.identity import HOST_API
from enisle.tasks.leases import RenewedLease
from enisle.tasks.pullwatch import PullWatch
from enisle.tasks.requests import Requests
from enisle.tasks.store import ABSENT, Change, Conflict, Entry, Lease, Unavailable, Value
from enisle.tasks.watermark import DIRECTORY, read_mark

REQUEST_S = 1.0
"""A request in flight when the server dies fails by time alone."""
PATIENCE_S = 10.0
"""How long a change is tried before Unavailable."""
CLUSTER_REPLICAS = 3
ONE_TTL_S, CLUSTER_TTL_S = 3.0, 10.0
FULL_BYTES = 1 << 20
"""A disk with less room is called full."""
LAG_S = 2.0
"""How long a replica may be behind the leader before what it says is believed."""
WRONG_SEQUENCE = frozenset({10071, 10164})
NOT_FOUND, NO_STREAM = 10037, 10059
MARK = "Enisle-Change"
DELETED = {"KV-Operation": "DEL", "Nats-TTL": f"{TOMBSTONE_S}s"}


class JetStream:
    """A store on an engine. `async with JetStream(url) as store`; a host's with its `seed` and name, `host`.

    `replicas` 0: as many as there are, or three on a cluster and one elsewhere.
    """

    def __init__(
        self,
        *urls: str,
        bucket: Bucket = CONTROL,
        replicas: int = 0,
        seed: str | None = None,
        ca: Path | str | None = None,
        host: str = "",
    ) -> None:
        assert bool(seed) == bool(host), "a seed is a host's"
        self._urls, self.bucket, self.replicas = list(urls), bucket, replicas
        self._seed, self._ca, self.host = seed, ca, host
        self.state_directory = state_directory(urls[0]) if urls else None
        self._client = Client()
        self._requests = Requests(self._client, REQUEST_S)
        self._api = HOST_API if host else "$JS.API."

    async def __aenter__(self) -> "JetStream":
        await connect(self._client, self._urls, self._seed, self._ca)
        try:
            await self._requests.open()
            await self._count_replicas()
            if not self.host:
                await self.create_stream()
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def lease_ttl_s(self) -> float:
        """How long leases last here: a cluster is silent for seconds when it elects a leader, and nobody else is."""
        return ONE_TTL_S if self.replicas == 1 else CLUSTER_TTL_S

    @property
    def server(self) -> str:
        """Which life of the engine we are connected to; empty on a cluster, whose store outlives its servers."""
        return str(self._client._server_info.get("server_id", "")) if self.state_directory else ""

    async def last_revision(self) -> int | None:
        """Return the last revision the engine gave, None when there is no stream. Raises Unavailable."""
        answer = await self._patiently(lambda: self._ask(f"STREAM.INFO.{self.bucket.stream}", {}))
        if error := answer.get("error"):
            if error.get("err_code") == NO_STREAM:
                return None
            raise Unavailable("cannot look at the store", error.get("description", ""), "")
        return answer["state"]["last_seq"]

    async def _count_replicas(self) -> None:
        """Unless we were told: as many as the stream has, or three on a cluster, also while it is being formed."""
        if self.replicas:
            return
        clustered = bool(self._client._server_info.get("cluster")) and not self.state_directory
        self.replicas = CLUSTER_REPLICAS if clustered else 1
        if self.state_directory or self.host:
            return
        with contextlib.suppress(Unavailable):
            answer = await self._ask(f"STREAM.INFO.{self.bucket.stream}", {})
            if "config" in answer:
                self.replicas = answer["config"]["num_replicas"]

    async def create_stream(self, anew: bool = False) -> None:
        """Make the stream when there is none; `anew` also where there was one before. Raises HostError."""
        if not anew and self.bucket is CONTROL and self.state_directory and read_mark(self.state_directory):
            return  # it is gone or it is there: whoever guards it finds out, before anybody makes another
        wanted = stream_configuration(self.bucket, self.replicas)
        deadline = time.monotonic() + PATIENCE_S
        while True:  # a cluster elects its leader first
            try:
                answer = await self._ask(f"STREAM.CREATE.{self.bucket.stream}", wanted)
            except Unavailable:
                answer = {"error": {"description": "no answer"}}
            if not answer.get("error"):
                return
            if time.monotonic() > deadline:
                description = answer["error"].get("description", "")
                raise HostError(
                    "cannot open the store", description, "it needs nats-server 2.12 or later with JetStream"
                )
            await asyncio.sleep(0.1)

    # ---- requests --------------------------------------------------------------------------------------------------

    async def _ask(self, subject: str, question: Value) -> Value:
        return json.loads(await self._requests.ask(self._api + subject, json.dumps(question).encode()))

    async def get_leader(self, key: str) -> Entry:
        return (await self._read(key))[0]

    async def _read(self, key: str) -> tuple[Entry, str]:
        """Return a key as the leader has it, and the headers of the message that made it so."""
        if self.host:
            return await self._patiently(lambda: self._read_own(key))
        question = {"last_by_subj": self.bucket.root + key}
        answer = await self._patiently(lambda: self._ask(f"STREAM.MSG.GET.{self.bucket.stream}", question))
        if error := answer.get("error"):
            if error.get("err_code") == NOT_FOUND:
                return Entry(key, None, ABSENT), ""
            raise Unavailable(f"cannot read {key}", error.get("description", ""), "")
        message = answer["message"]
        headers = base64.b64decode(message.get("hdrs", "")).decode(errors="replace")
        gone = "KV-Operation:" in headers or "Nats-Marker-Reason:" in headers
        value = None if gone else json.loads(base64.b64decode(message.get("data", "")))
        return Entry(key, value, message["seq"]), headers

    async def _read_own(self, key: str) -> tuple[Entry, str]:
        """Return a key as a replica has it: the leader's door takes any key, so a host has none to it."""
        subject = f"{self._api}DIRECT.GET.{self.bucket.stream}.{self.bucket.root}{key}"
        message = await self._requests.ask_message(subject, b"")
        headers = message.headers or {}
        if "Nats-Sequence" not in headers:
            return Entry(key, None, ABSENT), ""
        gone = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
        value = None if gone else json.loads(message.data)
        return Entry(key, value, int(headers["Nats-Sequence"])), headers.get(MARK, "")

    async def _patiently(self, attempt: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await attempt()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    # ---- changes ---------------------------------------------------------------------------------------------------

    async def cas(self, key: str, value: Value | None, expected: int, ttl_s: float = 0) -> int:
        return await self.batch([Change(key, value, expected)], ttl_s)

    async def batch(self, changes: Sequence[Change], ttl_s: float = 0) -> int:
        assert len({change.key for change in changes}) == len(changes) > 0, changes
        deadline, mark = time.monotonic() + PATIENCE_S, uuid.uuid4().hex
        believed = time.monotonic() + LAG_S
        while True:
            try:
                answer = await self._publish(changes, ttl_s, mark)
                if not answer.get("error"):
                    return answer["seq"]
            except Unavailable as error:
                answer = {"error": {"err_code": 0, "description": error.why, "silent": True}}
            if done := await self._settle(changes, mark, bool(self.host) and time.monotonic() < believed):
                return done
            refusal: Value = answer["error"]
            final = refusal.get("err_code") not in WRONG_SEQUENCE and "silent" not in refusal
            if final or time.monotonic() > deadline:
                raise self._not_taken(refusal.get("description", ""))
            await asyncio.sleep(0.01)

    def _not_taken(self, why: str) -> Unavailable:
        """Tell a full disk from other silence, where it is a disk of this computer."""
        directory = self.state_directory
        # Where the mark is kept: on that disk, and on an island all that is seen of it.
        place = directory / DIRECTORY if directory and (directory / DIRECTORY).is_dir() else directory
        if place and room(place) < FULL_BYTES:
            hint = "make room there; the engine goes on by itself within seconds"
            return Unavailable("the engine does not take a change", f"the disk of {directory} is full", hint)
        return Unavailable("the engine does not take a change", why, "is its disk full? see its log")

    async def _publish(self, changes: Sequence[Change], ttl_s: float, mark: str) -> Value:
        """Send the changes as one message, or as an atomic batch whose last message is answered (ADR-50).

        Every message carries `mark`: whether a change that was not answered is ours can be read from it.
        """
        batch = uuid.uuid4().hex
        for number, change in enumerate(changes, 1):
            headers = {"Nats-Expected-Last-Subject-Sequence": str(change.expected), MARK: mark}
            if change.value is None:
                headers |= DELETED
            elif ttl_s:
                headers["Nats-TTL"] = f"{max(1, round(ttl_s))}s"
            if len(changes) > 1:
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            payload = b"" if change.value is None else json.dumps(change.value, separators=(",", ":")).encode()
            if number == len(changes):
                if len(changes) > 1:
                    headers["Nats-Batch-Commit"] = "1"
                return json.loads(await self._requests.ask(self.bucket.root + change.key, payload, headers))
            try:
                await self._client.publish(self.bucket.root + change.key, payload, headers=headers)
            except (OSError, NatsError) as error:
                raise Unavailable("the engine is not there", type(error).__name__, "") from error
        raise AssertionError("no changes")

    async def _settle(self, changes: Sequence[Change], mark: str, unsure: bool) -> int:
        """Find out what became of a refused or unanswered change: its revision when made, 0 when not.

        Raises Conflict when another's change stands in its place. `unsure`: an older one may be a replica that lags.
        """
        for number, change in reversed(list(enumerate(changes, 1))):
            found, headers = await self._read(change.key)
            if mark in headers:  # all of it is made, though it may not have been when its last key was read
                return found.revision + len(changes) - number
            if found.revision > change.expected or (found.revision < change.expected and not unsure):
                raise Conflict(change.key, change.expected, found.revision)
        return 0

    # ---- watching --------------------------------------------------------------------------------------------------

    def watch(self, prefix: str, headers_only: bool = False) -> AsyncIterator[Entry | None]:
        stream, root = self.bucket.stream, self.bucket.root
        where = stream, root, prefix, self._api, self.host
        return PullWatch(self._client, self._requests, *where, headers_only).entries()

    async def lease(self, key: str, value: Value, ttl_s: float) -> Lease:
        lease = RenewedLease(self, key, value, ttl_s)
        await lease.take()
        return lease
