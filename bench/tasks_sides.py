"""What the engine itself takes, and the fast lane beside it: calm, and while its engine is killed."""

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections import Counter

from bench.tasks_parts import Figures, Parts, percentile
from enisle.errors import EnisleError
from enisle.tasks import Change, Engine, FastLane, JetStream

AT_ONCE = 32


async def raw(parts: Parts) -> Figures:
    """What the engine itself takes: one durable write, a batch of four, and as many as it can side by side."""
    count = 100 if parts.quick else 500
    async with JetStream(parts.engine.url) as store:
        single: list[float] = []
        batch: list[float] = []
        for number in range(count):
            begin = time.perf_counter()
            await store.cas(f"raw.{number}", {"n": number}, 0)
            single.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            await store.batch([Change(f"raw.b{number}.{part}", {"n": number}, 0) for part in range(4)])
            batch.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        room = asyncio.Semaphore(32)

        async def one(number: int) -> None:
            async with room:
                await store.cas(f"raw.c{number}", {"n": number}, 0)

        await asyncio.gather(*(one(number) for number in range(4 * count)))
        rate = 4 * count / (time.perf_counter() - begin)
    return {
        "raw write p50 ms": statistics.median(single) * 1e3,
        "raw batch of 4 p50 ms": statistics.median(batch) * 1e3,
        "raw writes side by side /s": rate,
    }


async def fast_lane(parts: Parts) -> Figures:
    """Calls by the fast lane, the worker in a process of its own: one at a time, then as many as it takes."""
    async with parts.role("worker"), JetStream(parts.engine.url) as store, FastLane(store) as lane:
        await lane.call("bench.nothing@1", {}, 30)
        taken: list[float] = []
        for _ in range(100 if parts.quick else 500):
            begin = time.perf_counter()
            await lane.call("bench.nothing@1", {}, 30)
            taken.append(time.perf_counter() - begin)
        calls = await _stream(lane, 5 if parts.quick else 20)
        return {
            "fast lane p50 ms": statistics.median(taken) * 1e3,
            "fast lane p99 ms": percentile(taken, 99) * 1e3,
            "fast lane /s": calls.rate(),
        }


class Calls:
    """A stream of calls, as its caller saw it. `refused` ones were never taken; `lost` ones were, and did not end."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.seconds: Counter[int] = Counter()
        self.done = self.refused = self.lost = 0
        self.longest_s, self._last = 0.0, self.begun

    def end_one(self) -> None:
        now = time.monotonic()
        self.done += 1
        self.seconds[int(now - self.begun)] += 1
        self.longest_s, self._last = max(self.longest_s, now - self._last), now

    def rate(self) -> float:
        return self.done / (self._last - self.begun)


async def _stream(lane: FastLane, seconds: float) -> Calls:
    """Keep `AT_ONCE` calls on their way for some seconds, then wait for the last."""
    calls, room = Calls(), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        try:
            _, outcome = await lane.run("bench.nothing@1", {}, timeout_s=30)
            if outcome is None or outcome.failure:
                calls.lost += 1
            else:
                calls.end_one()
        except EnisleError:
            calls.refused += 1
        finally:
            room.release()

    async with asyncio.TaskGroup() as group:
        while time.monotonic() < calls.begun + seconds:
            await room.acquire()
            group.create_task(one())
    return calls


async def fast_lane_killed(parts: Parts) -> Figures:
    """A minute of calls in which the engine is killed twice: how many ended, were lost, were done twice and told so."""
    seconds = 12 if parts.quick else 60
    outages: list[float] = []

    async def kill(engine: Engine) -> None:
        for _ in range(2):
            await asyncio.sleep(seconds / 3)
            begin = time.monotonic()
            os.kill(engine.pid, signal.SIGKILL)
            while engine.running:
                await asyncio.sleep(0.002)
            await asyncio.to_thread(engine.start)
            outages.append(time.monotonic() - begin)

    async with parts.role("worker"), JetStream(parts.engine.url) as store, FastLane(store) as lane:
        await lane.call("bench.nothing@1", {}, 30)
        killing = asyncio.create_task(kill(parts.engine))
        calls = await _stream(lane, seconds)
        await killing
        begun = Counter(parts.calls.read_text().split())
        seen, reported = sum(begun.values()) - len(begun), lane.repeated
        with contextlib.suppress(KeyError):
            del calls.seconds[seconds]
        return {
            "fast60 calls": float(calls.done),
            "fast60 /s": calls.rate(),
            "fast60 slowest second /s": float(min(calls.seconds[number] for number in range(seconds))),
            "fast60 longest silence s": calls.longest_s,
            "fast60 engine away s": max(outages),
            "fast60 acknowledged and lost": float(calls.lost),
            "fast60 refused": float(calls.refused),
            "fast60 duplicates seen": float(seen),
            "fast60 duplicates not reported": float(abs(seen - reported)),
        }
