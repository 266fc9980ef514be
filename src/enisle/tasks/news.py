"""What is new, for one subscriber of a view: only the latest of every key waits, however slow the subscriber is."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol, Self


class Publisher(Protocol):
    """What a subscription needs of its view."""

    subscriptions: "set[Subscription]"

    async def ready(self) -> None: ...
    def enrol(self, subscription: "Subscription", since: int | None) -> None: ...


@dataclass(frozen=True, slots=True)
class News:
    """What is new of one key. Kinds: task, lock, host, record, progress, live, token, dead, member.

    `current`: all is told; `reset`: what was told before may hold what is gone. `value` None: gone. Progress and live
    have no revision: 0.
    """

    kind: str
    id: str
    value: Any
    revision: int


class Subscription:
    """What is new since it was last asked. `async with view.subscribe() as subscription: await subscription.news()`."""

    def __init__(self, view: Publisher, since: int | None) -> None:
        self._view, self._since = view, since
        self._waiting: OrderedDict[tuple[str, str], News] = OrderedDict()
        self._something = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._view.ready()
        self._view.enrol(self, self._since)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._view.subscriptions.discard(self)

    def put(self, news: News) -> None:
        self._waiting.pop((news.kind, news.id), None)
        self._waiting[news.kind, news.id] = news
        self._something.set()

    def clear(self) -> None:
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    async def news(self) -> list[News]:
        """Return what is new, oldest first, at least one; the wait may be cancelled without losing any."""
        while not self._waiting:
            self._something.clear()
            await self._something.wait()
        waiting = list(self._waiting.values())
        self._waiting.clear()
        return waiting
