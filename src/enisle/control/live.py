"""What is so on a host, told to all: one key for each island and machine, put when it changes and now and then.

`live.<host>.<kind>.<id>` in the bucket that forgets; worth nothing after a while, so it is told again before that.
Owned by the agent's event loop.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from enisle.tasks import Conflict, Store, Unavailable

Json = dict[str, Any]
AGAIN_S = 15.0
"""Told again unchanged after this time, where the engine's death cannot be seen: it forgets all of them."""


class LiveBoard:
    """`board.put("island", "web", {...})`, `board.put(..., None)` when it is gone.

    `life` tells which life of the engine we speak to: a new one has forgotten what the last was told.
    """

    def __init__(self, store: Store, host: str, life: Callable[[], str] = str) -> None:
        self._store, self._host, self._life = store, host, life
        self._told_in = ""
        self._known: dict[str, tuple[Json | None, int, float]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def put(self, kind: str, identity: str, value: Json | None) -> None:
        """Tell it unless it was told; never raises: it may be lost, and is told again."""
        key = f"live.{self._host}.{kind}.{identity}"
        if (life := self._life()) != self._told_in:
            self._known.clear()
            self._told_in = life
        async with self._locks.setdefault(key, asyncio.Lock()):
            told, revision, when = self._known.get(key, (None, 0, 0.0))
            if told == value and key in self._known and time.monotonic() - when < AGAIN_S:
                return
            for _ in range(5):
                try:
                    revision = await self._store.cas(key, value, revision)
                except Conflict as conflict:
                    revision = conflict.found
                except Unavailable:
                    return
                else:
                    self._known[key] = value, revision, time.monotonic()
                    return
