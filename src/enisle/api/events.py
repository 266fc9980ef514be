"""The platform's events for one reader: a snapshot, `current`, then what changes; only the latest of every key.

What waits for a slow reader is a dictionary with one entry for each key, so it is bounded by what there is, never by
time. Entries leave in the order of their revisions: whoever resumes behind the last revision it saw misses nothing.
Progress has no revision; it is told to whoever listens, and anew in every snapshot.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from enisle.api.problems import encode
from enisle.api.services import Json, News, Services, Viewing
from enisle.api.shapes import is_of, lock_json, progress_json, seen, waiting_for
from enisle.api.sse import event
from enisle.errors import EnisleError, InvalidRequest, NotFound

SMALLEST, LARGEST, AT_ONCE_S = 512, 16 << 10, 0.01
"""Bytes of a piece, and how soon a reader has taken one that could have been larger."""
SHOWN = frozenset({"island", "vm"})
"""Kinds of resources that have a look of their own, made of a record, what is live and who holds it."""


def read_position(view: Viewing, given: str) -> tuple[int | None, bool]:
    """Return the revision to resume after (None: from the start) and whether what the reader has is void.

    Raises InvalidRequest for what no event of ours was named.
    """
    if not given:
        return None, False
    epoch, _, number = given.rpartition("-")
    if not (epoch.isalnum() and number.isascii() and number.isdigit() and len(number) <= 18):
        raise InvalidRequest(
            f"no event is named {given[:60]!r}", "an event is named EPOCH-REVISION", "resume without Last-Event-ID"
        )
    if epoch != str(view.epoch) or int(number) > view.revision:
        return None, True
    return int(number), False


class Waiting:
    """What waits to be told to one reader: (event, id) → (value, mark), in the order of revisions.

    A mark is a revision up to which everything was told once this row is: it becomes the event's `id`.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Any, int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, name: str, identity: str, value: Any, mark: int, stays: bool) -> None:
        """Put a row at the end; one that `stays` keeps the place and the mark it has, with the new value."""
        key = (name, identity)
        if stays and key in self._rows:
            mark = self._rows[key][1]
        else:
            self._rows.pop(key, None)
        self._rows[key] = (value, mark)

    def clear(self) -> None:
        self._rows.clear()

    def take(self) -> tuple[str, str, Any, int]:
        key = next(iter(self._rows))
        value, mark = self._rows.pop(key)
        return *key, value, mark


class Events:
    """The events of one tenant, or of EVERY one, for one reader."""

    def __init__(self, services: Services, tenant: str, since: int | None, reset: bool) -> None:
        self._services, self._view, self._tenant = services, services.view, tenant
        self._since, self._reset = since, reset
        self._waiting = Waiting()
        self._told: dict[tuple[str, str], Any] = {}
        self._dirty: dict[tuple[str, str], int] = {}
        self._fresh: list[tuple[int, bool, str, str, Any]] = []
        self._highest = 0
        self._room = SMALLEST

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield pieces of the stream, a few kilobytes each, made when the reader took the last."""
        if self._reset:
            self._waiting.put("reset", "", None, 0, False)
        async with self._view.subscribe(self._since) as subscription:
            asking: asyncio.Future[list[News]] = asyncio.ensure_future(subscription.news())
            try:
                while True:
                    if not self._waiting:
                        await asyncio.wait([asking])
                    if asking.done():
                        await self._take(asking.result())
                        asking = asyncio.ensure_future(subscription.news())
                    if piece := self._piece():
                        began = time.monotonic()
                        yield piece
                        self._judge(time.monotonic() - began)
                    await asyncio.sleep(0)  # `asking` may have its answer already
            finally:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking

    async def _take(self, batch: list[News]) -> None:
        current = False
        for news in batch:
            if news.kind == "reset":
                self._waiting.clear()
                self._told.clear()
                self._waiting.put("reset", "", None, 0, False)
            elif news.kind == "current":
                current = True
                self._highest = max(self._highest, news.revision)
            else:
                self._learn(news)
        await self._look_again()
        self._queue()
        if current:
            self._waiting.put("current", "", None, self._highest, False)
            self._since = None

    def _queue(self) -> None:
        """Put what is fresh in the row: by revision, what is derived from a change before the change itself."""
        fresh, self._fresh = sorted(self._fresh, key=lambda one: (one[0], not one[1])), []
        for number, (revision, derived, name, identity, value) in enumerate(fresh, 1):
            last = number == len(fresh) or fresh[number][0] != revision
            self._highest = max(self._highest, revision)
            self._waiting.put(name, identity, value, revision if last else 0, derived)

    def _learn(self, news: News) -> None:
        view = self._view
        if news.kind == "task":
            task = view.tasks.get(news.id)
            if task is not None and is_of(task, self._tenant):
                self._tell("task", news.id, seen(view, task, self._tenant), news.revision, False)
                for one in task.resources:
                    self._dirty[one.kind, one.id] = news.revision
            elif task is None:
                self._tell("task", news.id, None, news.revision, False)
        elif news.kind == "progress":
            task = view.tasks.get(news.id)
            if is_of(task, self._tenant):
                self._tell("progress", news.id, progress_json(view.progress.get(news.id)), 0)
        elif news.kind in ("host", "member", "dead"):
            self._dirty["host", news.id] = news.revision
        elif news.kind in ("lock", "record", "live"):
            kind, _, identity = news.id.partition(".")
            self._dirty[kind, identity] = max(self._dirty.get((kind, identity), 0), _revision(news))

    async def _look_again(self) -> None:
        """Tell locks, islands, machines and hosts that something changed: they are made of several records."""
        dirty, self._dirty = self._dirty, {}
        if not dirty:
            return
        waiting = waiting_for(self._view)
        for (kind, identity), revision in dirty.items():
            if kind != "host" or f"host.{identity}" in self._view.locks:
                self._tell_lock(f"{kind}.{identity}", waiting, revision)
            if kind in SHOWN or kind == "host":
                self._tell(kind, identity, await self._find(kind, identity), revision)

    def _tell_lock(self, key: str, waiting: dict[str, list[str]], revision: int) -> None:
        lock = self._view.locks.get(key)
        mine = [task for task in waiting.get(key, []) if self._is_mine(task)]
        value: Json | None = None
        if lock is not None and any(self._is_mine(task) for task in lock.holders):
            value = lock_json(lock, mine)
        elif mine:
            # Held by another tenant: who that is, is not told.
            value = {"mode": lock.mode if lock else "exclusive", "holders": [], "waiting": mine}
        self._tell("lock", key, value, revision)

    def _is_mine(self, identity: str) -> bool:
        return is_of(self._view.tasks.get(identity), self._tenant)

    async def _find(self, kind: str, identity: str) -> Json | None:
        operations = self._services.operations
        try:
            if kind == "host":
                return await operations.host(identity)
            if kind == "vm":
                return await operations.vm(identity, self._tenant)
            return await operations.island(identity, self._tenant)
        except NotFound:
            return None
        except EnisleError:
            return None

    def _tell(self, name: str, identity: str, value: Any, revision: int, derived: bool = True) -> None:
        """Note an event; that something is gone is told to those who were told of it."""
        key = (name, identity)
        if value is None and self._since is None and key not in self._told:
            return
        if derived and name != "progress":
            if key in self._told and self._told[key] == value:
                return
            self._told[key] = value
        elif name == "task":
            self._told[key] = True
        if value is None:
            self._told.pop(key, None)
        self._fresh.append((revision, derived, name, identity, value))

    def _judge(self, seconds: float) -> None:
        """Give much at once to a reader that takes it at once, and little to one that does not: that would grow old."""
        self._room = min(LARGEST, self._room * 2) if seconds < AT_ONCE_S else SMALLEST

    def _piece(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while len(self._waiting) and size < self._room:
            name, identity, value, mark = self._waiting.take()
            number = f"{self._view.epoch}-{mark}" if mark else ""
            data = encode({} if name in ("current", "reset") else {"id": identity, "value": value})
            parts.append(event(name, data, number))
            size += len(parts[-1])
        self._services.measures.events += len(parts)
        return b"".join(parts)


def _revision(news: News) -> int:
    """Return a change's place in the store's order; what is not of the store (progress, live) has none."""
    return 0 if news.kind in ("progress", "live") else news.revision
