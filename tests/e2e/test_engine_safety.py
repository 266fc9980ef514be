"""A store that was damaged, lost or exchanged is found out; nothing is decided until an operator has accepted it.

The damage is done to the files of a real engine that does not run. The mark is kept by a real guard.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import HostError
from enisle.tasks import (
    PROGRESS,
    Agent,
    Dispatcher,
    Engine,
    JetStream,
    Journal,
    Request,
    Resource,
    State,
    StoreGuard,
    Tasks,
    check_store,
    engine_address,
    example_routines,
)
from enisle.tasks.engine import find_server, require_synced
from enisle.tasks.safety import find_damage
from enisle.tasks.watermark import Mark, read_mark

KEYS = 200


@contextlib.asynccontextmanager
async def guarded(engine: Engine, accept: bool = False) -> AsyncIterator[tuple[JetStream, StoreGuard]]:
    """A store with its guard, which has come to a verdict."""
    async with JetStream(engine.url) as store:
        guard = StoreGuard(store, engine.directory, accept)
        running = asyncio.create_task(guard.run())
        try:
            await verdict(guard)
            yield store, guard
        finally:
            running.cancel()
            await asyncio.wait([running])


async def verdict(guard: StoreGuard) -> None:
    async with asyncio.timeout(15):
        while "being checked" in guard.reason:
            await asyncio.sleep(0.01)


async def fill(engine: Engine, name: str = "res.island") -> int:
    """Write keys under a guard; return the last revision."""
    async with guarded(engine) as (store, guard):
        assert guard.ok, guard.reason
        last = 0
        for number in range(KEYS):
            last = await store.cas(f"{name}.{number}", {"padding": "x" * 200, "n": number}, 0)
        await asyncio.sleep(0.2)
        return last


def blocks(engine: Engine) -> list[Path]:
    """Return the files that hold the store's messages, the oldest first."""
    found = sorted((engine.directory / "store").rglob("KV_ctl/msgs/*.blk"), key=lambda path: int(path.stem))
    assert found
    return found


def without_index(engine: Engine) -> None:
    """Make the engine read its blocks, as after a crash: it trusts an index that was written at a clean end."""
    for path in (engine.directory / "store").rglob("KV_ctl/msgs/index.db"):
        path.unlink()


def delete_store(engine: Engine) -> None:
    shutil.rmtree(engine.directory / "store")


def delete_stream(engine: Engine) -> None:
    (found,) = (engine.directory / "store").rglob("KV_ctl")
    shutil.rmtree(found)


def spoil_stream(engine: Engine) -> None:
    """Damage what describes the stream: the engine then knows of none."""
    (found,) = (engine.directory / "store").rglob("KV_ctl/meta.inf")
    found.write_bytes(bytes(byte ^ 1 for byte in found.read_bytes()))


def truncate_block(engine: Engine) -> None:
    without_index(engine)
    last = blocks(engine)[-1]
    os.truncate(last, last.stat().st_size // 2)


def flip_a_bit(engine: Engine) -> None:
    """One bit in the middle: the engine drops everything behind it without a word."""
    without_index(engine)
    last = blocks(engine)[-1]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0x10
    last.write_bytes(content)


def exchange_store(engine: Engine) -> None:
    """Another engine's store, longer than ours was."""
    with Engine(engine.directory.with_name("other")) as other:
        asyncio.run(fill(other, "res.vm"))
        asyncio.run(fill(other, "res.host"))
    delete_store(engine)
    shutil.copytree(other.directory / "store", engine.directory / "store")


DAMAGES: list[tuple[Callable[[Engine], None], str]] = [
    (delete_store, "the store is gone"),
    (delete_stream, "the store is gone"),
    (spoil_stream, "the store is gone"),
    (truncate_block, "had been given"),
    (flip_a_bit, "had been given"),
    (exchange_store, "another store"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damage_is_named_and_stays_until_accepted(
    damage: Callable[[Engine], None], reason: str, tmp_path: Path
) -> None:
    engine = Engine(tmp_path / "engine")
    with engine:
        last = asyncio.run(fill(engine))
        before = read_mark(engine.directory)
        assert before
        assert (before.revision, before.reason) == (last, "")
        os.kill(engine.pid, signal.SIGKILL)
    damage(engine)

    async def look(accept: bool) -> tuple[bool, str, int, int]:
        async with guarded(engine, accept) as (store, guard):
            shown = await check_store(store, engine.directory)
            assert (shown.ok, shown.reason) == (guard.ok, guard.reason)
            for number in range(KEYS + 10) if guard.reason else ():
                # life goes on: the store comes to have as many revisions as before, which heals nothing
                await store.cas(f"res.new{random.random()}".replace(".", "") + f".{number}", {}, 0)
            revision = await store.cas(f"res.x.{random.randrange(10**9)}", {}, 0)
            return guard.ok, guard.reason, guard.epoch, revision

    with engine:
        ok, found, epoch, _ = asyncio.run(look(accept=False))
        assert not ok
        assert reason in found
        assert epoch == before.epoch
    with engine:  # neither a restart nor what was written meanwhile makes it good again
        assert asyncio.run(look(accept=False))[1] == found
        assert read_mark(engine.directory).reason == found  # pyright: ignore
    with engine:
        ok, found, epoch, revision = asyncio.run(look(accept=True))
        assert (ok, found) == (True, "")
        assert epoch > before.epoch
        assert (epoch << 40) | revision > (before.epoch << 40) | last
    with engine:
        assert asyncio.run(look(accept=False))[0]
    if damage is spoil_stream:
        assert list(engine.directory.glob("lost-*/msgs/*.blk")), "what was left is kept"


def test_keys_gone_from_the_middle_are_missed(tmp_path: Path) -> None:
    """The end of the store is as it was; an older block has lost what it held."""
    with Engine(tmp_path / "engine") as engine:

        async def lose() -> str:
            async with guarded(engine) as (store, guard):
                for number in range(20):
                    await store.cas(f"res.island.{number}", {"n": number}, 0)
                await asyncio.sleep(0.1)
            # What a lost block looks like from outside: messages purged without a change of their own.
            for number in range(5):
                await store_request(engine, "STREAM.PURGE.KV_ctl", {"filter": f"$KV.ctl.res.island.{number}"})
            async with guarded(engine) as (_, guard):
                return guard.reason

        assert "5 of 21 keys are gone without a change" in asyncio.run(lose())


async def store_request(engine: Engine, subject: str, change: dict[str, object]) -> None:
    async with JetStream(engine.url) as store:
        answer = await store._ask(subject, change)  # pyright: ignore
        assert "error" not in answer, answer


def test_an_engine_that_dies_and_comes_back_whole_is_trusted_and_begins_an_epoch(tmp_path: Path) -> None:
    with Engine(tmp_path / "engine") as engine:

        async def check() -> None:
            async with guarded(engine) as (store, guard):
                first = guard.epoch
                assert (await store.get_leader("cfg.epoch")).value == {"epoch": first, "store": read(engine).store}
                last = await store.cas("res.island.a", {}, 0)
                await store.cas("res.island.b", {}, 0)
                os.kill(engine.pid, signal.SIGKILL)
                while engine.running:
                    await asyncio.sleep(0.01)
                engine.start()
                assert await store.cas("res.island.a", None, last)
                await verdict(guard)
                assert (guard.ok, guard.epoch) == (True, first + 1)
                await asyncio.sleep(0.7)
                assert read(engine).epoch == first + 1
            async with guarded(engine) as (_, again):  # the same life of the engine: nothing begins
                assert (again.ok, again.epoch) == (True, first + 1)

        asyncio.run(check())


def read(engine: Engine) -> Mark:
    mark = read_mark(engine.directory)
    assert mark
    return mark


def test_in_safe_mode_nothing_is_started_and_afterwards_all_is(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "engine")
    with engine:
        asyncio.run(fill(engine))
    flip_a_bit(engine)

    async def work(accept: bool) -> State:
        async with guarded(engine, accept) as (store, guard), JetStream(engine.url, bucket=PROGRESS) as progress:
            dispatcher = Dispatcher(store, "d", safety=guard)
            with Journal(tmp_path / "h1.db") as journal:
                agent = Agent(store, progress, example_routines(), journal, "h1")
                running = [asyncio.create_task(one.run()) for one in (dispatcher, agent)]
                task = await Tasks(store).submit(
                    Request("platform.sleep@1", {"seconds": 0.1}, (Resource("island", "a"),), key="once")
                )
                with contextlib.suppress(TimeoutError):
                    task = await Tasks(store).wait(task.id, 10 if accept else 2)
                for one in running:
                    one.cancel()
                await asyncio.wait(running)
                return (await Tasks(store).get(task.id)).state

    with engine:
        assert asyncio.run(work(accept=False)) is State.QUEUED
    with engine:
        assert asyncio.run(work(accept=True)) is State.DONE


def test_two_guards_agree_and_one_writes(tmp_path: Path) -> None:
    with Engine(tmp_path / "engine") as engine:

        async def check() -> None:
            async with guarded(engine) as (store, first):
                second = StoreGuard(store, engine.directory)
                running = asyncio.create_task(second.run())
                await asyncio.sleep(0.3)
                assert (second.ok, second.epoch) == (True, first.epoch)
                running.cancel()
                await asyncio.wait([running])

        asyncio.run(check())


def test_an_engine_that_does_not_sync_is_refused(tmp_path: Path) -> None:
    """Ours by its files, but somebody changed them, or the program that reads them."""
    careless = tmp_path / "careless-server"
    careless.write_text(
        f'#!/bin/sh\nsed -i "s/sync_interval: always/sync_interval: 2m/" "$2"\nexec {find_server()} "$@"\n'
    )
    careless.chmod(0o700)
    with pytest.raises(HostError, match="not safe"), Engine(tmp_path / "engine", server=str(careless)):
        pass
    with Engine(tmp_path / "engine") as engine:
        require_synced(engine.address)
        engine.stop()
        configuration = engine.directory / "nats.conf"
        configuration.write_text(configuration.read_text().replace("sync_interval: always", "sync_interval: 2m"))
        log = (tmp_path / "log").open("wb")
        with log, subprocess.Popen([find_server(), "-c", configuration], stderr=log) as server:
            try:

                async def attach() -> str:
                    async with guarded(engine) as (_, guard):
                        return guard.reason

                for _ in range(100):
                    with contextlib.suppress(HostError):
                        assert "not safe" in asyncio.run(attach())
                        break
                else:
                    raise AssertionError("it was never reached")
                with pytest.raises(HostError, match="not safe"):
                    require_synced(engine_address(engine.directory))
            finally:
                server.kill()


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 50), max_size=8),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=12),
    st.data(),
)
def test_no_history_without_damage_is_suspected_and_every_loss_beyond_it_is(
    known: dict[str, int], later: list[tuple[str, bool]], data: st.DataObject
) -> None:
    mark = Mark("s", 3, 50, "e")
    epoch: dict[str, object] = {"store": "s", "epoch": 3}
    held, last = dict(known), 50
    for key, there in later:
        last += 1
        held[key] = last
        if not there:
            del held[key]
    assert find_damage(mark, known, last, held, epoch) == ""
    assert "ends at revision" in find_damage(mark, known, data.draw(st.integers(0, 49)), held, epoch)
    assert find_damage(mark, known, last, held, None)
    assert find_damage(mark, known, last, held, {**epoch, "epoch": 2})
    assert find_damage(mark, known, last, held, {**epoch, "store": "t"})
    if len(known) > last - 50:
        assert "keys are gone" in find_damage(mark, known, last, {}, epoch)
