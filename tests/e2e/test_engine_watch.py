"""Watches of a real engine: slow readers, and keys whose end the engine has forgotten."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.tasks import PROGRESS, Conflict, Engine, JetStream
from enisle.tasks.requests import Requests

KEYS, UPDATES = 100, 3_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine") as engine:
        yield engine


def test_a_slow_reader_gets_the_last_word_on_every_key_and_nothing_piles_up(engine: Engine) -> None:
    """What it was too slow for is never sent: not buffered in the client, not kept by the engine."""

    async def check() -> None:
        async with JetStream(engine.url, bucket=PROGRESS) as store, JetStream(engine.url, bucket=PROGRESS) as writer:
            seen: dict[str, int] = {}
            entries = 0

            async def read() -> None:
                nonlocal entries
                async for entry in store.watch("prog."):
                    if entry and entry.key:
                        assert entry.value
                        seen[entry.key] = entry.value["n"]
                        entries += 1
                        await asyncio.sleep(0.01)

            reading = asyncio.create_task(read())
            await asyncio.sleep(0.2)
            for number in range(UPDATES):
                payload = f'{{"n":{number}}}'.encode()
                await writer._client.publish(f"$KV.prog.prog.h.{number % KEYS}", payload)  # pyright: ignore
            last = {f"prog.h.{n % KEYS}": n for n in range(UPDATES)}
            async with asyncio.timeout(15):
                while seen != last:
                    await asyncio.sleep(0.02)
            assert entries < UPDATES / 2
            reading.cancel()
            await asyncio.wait([reading])

    asyncio.run(check())


def test_a_key_the_engine_has_forgotten_begins_again_and_the_old_end_is_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion is remembered for a minute (here: a second); both cases are met with the right expectation."""
    monkeypatch.setattr("enisle.tasks.buckets.TOMBSTONE_S", 1)
    monkeypatch.setattr("enisle.tasks.jetstream.DELETED", {"KV-Operation": "DEL", "Nats-TTL": "1s"})

    async def check(engine: Engine) -> None:
        async with JetStream(engine.url) as store:
            first = await store.cas("lock.a", {"n": 1}, 0)
            end = await store.cas("lock.a", None, first)
            assert (await store.get_leader("lock.a")).revision == end
            with pytest.raises(Conflict):
                await store.cas("lock.a", {"n": 2}, 0)
            begin = time.monotonic()
            while (await store.get_leader("lock.a")).revision:
                assert time.monotonic() - begin < 8
                await asyncio.sleep(0.05)
            with pytest.raises(Conflict) as conflict:
                await store.cas("lock.a", {"n": 2}, end)
            assert conflict.value.found == 0
            assert await store.cas("lock.a", {"n": 2}, 0) > end

    with Engine(tmp_path / "engine") as engine:
        asyncio.run(check(engine))


def test_whoever_asks_at_once_after_subscribing_is_answered(engine: Engine) -> None:
    """The client writes a flush's ping ahead of subscriptions that wait to be sent: a flush proves nothing."""

    async def check() -> None:
        async with JetStream(engine.url) as store:
            for _ in range(200):
                requests = Requests(store._client, 1.0)  # pyright: ignore
                await requests.open()
                await store._client.flush()  # pyright: ignore
                assert b"account_info" in await requests.ask("$JS.API.INFO", b"")
            first = store.watch("nothing.")
            assert await asyncio.wait_for(anext(first), 2) is None

    asyncio.run(check())
