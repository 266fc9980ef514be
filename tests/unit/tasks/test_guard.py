"""The guard of a store when writing its mark fails, and when what an operator accepted is damaged once more."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enisle.errors import HostError
from enisle.tasks import Entry, StoreGuard
from enisle.tasks.safety import find_damage
from enisle.tasks.watermark import Mark, Watermark, read_mark
from memory_store import MemoryStore


class Engine(MemoryStore):
    """A store in memory that has lives, as an engine has."""

    replicas, state_directory, server = 1, None, "first"

    async def last_revision(self) -> int | None:
        return self.revision

    async def watch(self, prefix: str, headers_only: bool = False) -> AsyncIterator[Entry | None]:
        async for entry in super().watch(prefix):
            yield entry


def test_keys_that_could_not_be_noted_are_noted_the_next_time(tmp_path: Path) -> None:
    """Forgotten ones would never be missed."""

    async def check() -> None:
        store: Any = Engine()
        guard = StoreGuard(store, tmp_path)
        with Watermark(tmp_path) as watermark:
            assert watermark.take()
            watermark.write(Mark("s", 1, 3, "first"), {})
            guard._mark = Mark("s", 1, 3, "first")
            guard._seen, guard._changed = 5, {"res.a": 4, "res.b": 5}
            advance = watermark.advance

            def full(*_: object) -> None:
                raise HostError("the mark cannot be kept", "disk full", "")

            watermark.advance = full
            with pytest.raises(HostError):
                await guard._advance(watermark)
            guard._seen, guard._changed = 6, {**guard._changed, "res.b": None}
            watermark.advance = advance
            await guard._advance(watermark)
            assert watermark.keys() == {"res.a": 4}
            mark = read_mark(tmp_path)
            assert mark
            assert mark.revision == 6

    asyncio.run(check())


def test_what_is_damaged_after_it_was_accepted_is_another_matter(tmp_path: Path) -> None:
    async def check() -> None:
        store: Any = Engine()
        await store.cas("res.a", {}, 0)
        guard = StoreGuard(store, tmp_path, accept=True)
        with Watermark(tmp_path) as watermark:
            assert watermark.take()
            watermark.write(Mark("another", 3, 100, "before"), {"res.b": 90})
            accepted = await guard._judge(watermark, "first")
            assert (accepted.reason, accepted.epoch) == ("", 4)
            assert watermark.keys().keys() == {"res.a", "cfg.epoch"}
            del store.entries["res.a"]
            store.server = "second"
            damaged = await guard._judge(watermark, "second")
            assert "res.a" in damaged.reason
            assert (await guard._judge(watermark, "third")).reason == damaged.reason, "until it is accepted"
            again = await StoreGuard(store, tmp_path, accept=True)._judge(watermark, "fourth")
            assert (again.reason, again.epoch) == ("", 5)

    asyncio.run(check())


def test_a_key_that_is_older_than_it_was_is_damage_though_nothing_else_is_missing() -> None:
    mark, epoch = Mark("s", 3, 50, "e"), {"store": "s", "epoch": 3}
    assert "res.a is older" in find_damage(mark, {"res.a": 40, "res.b": 30}, 60, {"res.a": 39, "res.b": 55}, epoch)
    assert not find_damage(mark, {"res.a": 40, "res.b": 30}, 60, {"res.a": 40, "res.b": 55}, epoch)
