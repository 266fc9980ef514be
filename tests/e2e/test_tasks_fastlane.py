"""The fast lane on its real engine: what was taken is done, whoever dies, and what cannot be done is said."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.tasks import OBJECTS, Engine, FastLane, JetStream, KeyTaken, LaneCall, LaneWorker, Objects
from enisle.tasks import lane as agreed
from enisle.tasks.laneworker import Handler

SOAK = bool(os.environ.get("ENISLE_SOAK"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine") as engine:
        yield engine


@contextlib.asynccontextmanager
async def lane(engine: Engine, **more: float) -> AsyncIterator[FastLane]:
    async with JetStream(engine.url) as store, FastLane(store, **more) as lane:  # pyright: ignore
        yield lane


@contextlib.asynccontextmanager
async def worker(engine: Engine, handler: Handler, **more: float) -> AsyncIterator[LaneWorker]:
    async with JetStream(engine.url) as store, LaneWorker(store, **more) as working:  # pyright: ignore
        task = asyncio.create_task(working.work(handler))
        try:
            yield working
        finally:
            task.cancel()
            await asyncio.wait([task])


async def restart(engine: Engine) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    while engine.running:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(engine.start)


@pytest.mark.timeout(180)
def test_no_call_that_was_taken_is_lost_when_the_engine_dies_twice(engine: Engine) -> None:
    count = 10_000 if SOAK else 800
    done: Counter[int] = Counter()

    async def handler(call: LaneCall) -> int:
        done[call.arguments["n"]] += 1
        return call.arguments["n"]

    async def check() -> None:
        async with lane(engine, ack_wait_s=1.5) as caller, worker(engine, handler, ack_wait_s=1.5):
            room, taken = asyncio.Semaphore(48), 0

            async def one(number: int) -> tuple[int, int]:
                nonlocal taken
                async with room:
                    call = await caller.submit("a.b@1", {"n": number}, key=f"call {number}")
                    taken += 1
                    outcome = await caller.wait(call, 60)
                    return outcome.get(), outcome.runs

            calls = asyncio.gather(*(one(number) for number in range(count)))
            for part in (3, 1.5):
                while taken < count / part and not calls.done():
                    await asyncio.sleep(0.005)
                await restart(engine)
            results = await calls
            assert [result for result, _ in results] == list(range(count))
            assert set(done) == set(range(count))
            assert caller.repeated == sum(done.values()) - count

    asyncio.run(check())


def test_a_call_costs_a_few_milliseconds(engine: Engine) -> None:
    """A wide bound, for a busy machine: `bench.tasks` holds the promise."""

    async def handler(call: LaneCall) -> int:
        return call.arguments["n"]

    async def check() -> None:
        async with lane(engine, ack_wait_s=1.5) as caller, worker(engine, handler, ack_wait_s=1.5):
            taken: list[float] = []
            for number in range(50):
                begin = time.perf_counter()
                assert await caller.call("a.b@1", {"n": number}, 10) == number
                taken.append(time.perf_counter() - begin)
            assert statistics.median(taken) < 0.05

    asyncio.run(check())


def test_a_full_queue_refuses_one_key_is_one_call_and_bad_calls_never_get_in(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreed, "MAX_WAITING", 20)

    async def check() -> None:
        async with lane(engine) as caller:
            first = await caller.submit("a.b@1", {"n": 0}, key="once")
            assert await caller.submit("a.b@1", {"n": 0}, key="once") == first
            with pytest.raises(KeyTaken):
                await caller.submit("a.b@1", {"n": 1}, key="once")
            for number in range(19):
                await caller.submit("a.b@1", {"n": number})
            with pytest.raises(StateError, match="queue is full"):
                await caller.submit("a.b@1", {"n": 20})
            for routine, arguments in (
                ("nonsense", {}),
                ("a.b@1", {"n": float("nan")}),
                ("a.b@1", {"n": "x" * 270_000}),
            ):
                with pytest.raises(InvalidRequest):
                    await caller.submit(routine, arguments)

            async def handler(call: LaneCall) -> int:
                return call.arguments["n"] // 0

            async with worker(engine, handler):
                outcome = await caller.wait(first, 10)
                assert outcome.failure
                assert "ZeroDivisionError" in outcome.failure.why

    asyncio.run(check())


def test_a_result_waits_for_a_caller_who_was_away(engine: Engine) -> None:
    async def check() -> None:
        async with lane(engine) as caller:
            call = await caller.submit("a.b@1", {"n": 7})

        async def handler(call: LaneCall) -> int:
            return call.arguments["n"]

        async with worker(engine, handler) as working, lane(engine) as back:
            while not working.done:
                await asyncio.sleep(0.01)
            assert (await back.wait(call, 10)).get() == 7

    asyncio.run(check())


DEADLY = """
import asyncio, os, sys
from enisle.tasks import JetStream, LaneWorker

async def main(url):
    async def handler(call):
        if call.arguments["n"] == 13:
            os._exit(1)
        return call.arguments["n"]
    async with JetStream(url) as store, LaneWorker(store, ack_wait_s=0.5) as worker:
        await worker.work(handler)

asyncio.run(main(sys.argv[1]))
"""


def test_a_call_that_ends_its_worker_each_time_is_given_up_though_the_engine_dies_too(engine: Engine) -> None:
    """The engine's own count of deliveries may start over when it is killed; ours does not."""

    async def check() -> None:
        async with lane(engine, ack_wait_s=0.5) as caller:
            deadly, other = [await caller.submit("a.b@1", {"n": number}) for number in (13, 14)]
            process = subprocess.Popen([sys.executable, "-c", DEADLY, engine.url])
            waiting = asyncio.ensure_future(caller.wait(deadly, 60))
            deaths = 0
            try:
                while not waiting.done():
                    if process.poll() is not None:
                        deaths += 1
                        await restart(engine)
                        await caller._ask("CONSUMER.DELETE.RUN.default", {})  # it may not have been written down
                        process = subprocess.Popen([sys.executable, "-c", DEADLY, engine.url])
                    await asyncio.sleep(0.02)
                outcome = await waiting
                assert outcome.failure
                assert (outcome.failure.message, outcome.runs) == ("the call ends its worker", 3)
                assert deaths == 3
                assert (await caller.wait(other, 30)).get() == 14
                assert (caller.given_up, caller.failed, caller.done) == (1, 1, 1)
            finally:
                process.kill()
                process.wait()

    asyncio.run(check())


def test_a_worker_told_to_end_gives_its_call_back_and_that_counts_for_nothing(engine: Engine) -> None:
    begun: list[str] = []

    async def check() -> None:
        async def never(call: LaneCall) -> None:
            begun.append(call.tenant)
            await asyncio.sleep(60)

        async def done(call: LaneCall) -> str:
            return call.routine

        async with lane(engine) as caller:
            call = await caller.submit("a.b@1", {}, tenant="acme")
            for number in range(1, 5):
                async with worker(engine, never):
                    while len(begun) < number:
                        await asyncio.sleep(0.01)
            async with worker(engine, done):
                outcome = await caller.wait(call, 10, "acme")
            assert (outcome.get(), outcome.runs, set(begun)) == ("a.b@1", 1, {"acme"})
            with pytest.raises(NotFound):
                await caller.look(call, "default")
            assert (await caller.look(call, "*")) == outcome

    asyncio.run(check())


def test_a_worker_takes_as_many_calls_as_it_has_room_for_and_none_when_it_may_not(engine: Engine) -> None:
    async def check() -> None:
        running, most, may = 0, 0, False

        async def handler(call: LaneCall) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1

        async with lane(engine) as caller, JetStream(engine.url) as store, LaneWorker(store, may=lambda: may) as worker:
            working = asyncio.create_task(worker.work(handler, 2))
            calls = [await caller.submit("a.b@1", {}) for _ in range(8)]
            await asyncio.sleep(0.3)
            assert ((await caller.figures()).waiting, worker.done) == (8, 0)
            may = True
            for call in calls:
                await caller.wait(call, 10)
            assert most == 2
            working.cancel()
            await asyncio.wait([working])

    asyncio.run(check())


def test_objects_are_what_was_put_or_an_error(engine: Engine) -> None:
    async def check() -> None:
        async with JetStream(engine.url, bucket=OBJECTS) as store:
            objects = Objects(store)
            for content in (b"", os.urandom(1500 << 10)):
                reference = await objects.put(content)
                assert await objects.put(content) == reference
                assert await objects.get(reference) == content
            damaged = f"obj.{reference['object']}.1"
            there = await store.get_leader(damaged)
            await store.cas(damaged, {"data": "AAAA"}, there.revision)
            with pytest.raises(Exception, match="is not what it was"):
                await objects.get(reference)
            await store.cas(damaged, None, (await store.get_leader(damaged)).revision)
            with pytest.raises(Exception, match="is gone"):
                await objects.get(reference)
            with pytest.raises(InvalidRequest):
                await objects.get({"object": "../x", "size": 1})

    asyncio.run(check())


def test_streams_that_an_older_version_made_are_brought_up_to_date(engine: Engine) -> None:
    async def test() -> None:
        async with JetStream(engine.url) as store:
            old = {"name": agreed.RUN, "subjects": ["run.>"], "retention": "workqueue", "discard": "new", "max_msgs": 7}
            await agreed._ask(store, f"STREAM.CREATE.{agreed.RUN}", old)
        async with worker(engine, answer), lane(engine) as caller:
            assert await caller.call("echo@1", {"number": 3}, timeout_s=10) == 3

    async def answer(call: LaneCall) -> int:
        return call.arguments["number"]

    asyncio.run(test())
