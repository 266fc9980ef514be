"""What a host tells of its islands: once, again when it changes, and all of it to an engine that has forgotten."""

import asyncio

from enisle.control.live import LiveBoard
from memory_store import MemoryStore

KEY = "live.h1.island.web"


def test_what_has_not_changed_is_told_once() -> None:
    async def check() -> None:
        store = MemoryStore()
        board = LiveBoard(store, "h1")
        for state in ("running", "running", "exited"):
            await board.put("island", "web", {"state": state})
        assert (store.now(KEY).value, store.revision) == ({"state": "exited"}, 2)
        await board.put("island", "web", None)
        assert store.now(KEY).value is None

    asyncio.run(check())


def test_a_new_life_of_the_engine_is_told_everything_again() -> None:
    async def check() -> None:
        store, lives = MemoryStore(), ["first"]
        board = LiveBoard(store, "h1", lambda: lives[-1])
        await board.put("island", "web", {"state": "running"})
        store.entries.clear()
        await board.put("island", "web", {"state": "running"})
        assert store.now(KEY).value is None
        lives.append("second")
        await board.put("island", "web", {"state": "running"})
        assert store.now(KEY).value == {"state": "running"}

    asyncio.run(check())
