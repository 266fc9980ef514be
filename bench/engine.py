"""The engine measured by itself: `python -m bench.engine [--quick] [--check] [--json FILE]`.

One server of ours, synced always. The client library's own calls stand beside our store's, so that what a task costs
can be told from what the engine costs; then a host's way in (its account, TLS), the guard's check, and a store of
100,000 keys killed and started again. Exit status 1 when a promise was missed and `--check` was given.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from enisle.tasks import Change, Engine, JetStream, StoreGuard, admit_host, new_identity

Figures = dict[str, float]
PAYLOAD = b"x" * 512
AT_ONCE = 32

PROMISES: dict[str, float] = {
    "our cas / raw cas": 2.0,
    "restart with 100,000 keys s": 2.0,
    "resync of 100,000 keys s": 10.0,
    "check of 100,000 keys s": 10.0,
    "admission of a host s": 1.0,
    "start ms": 500.0,
}
"""At most this."""


async def timed(count: int, act: Callable[[int], Awaitable[object]]) -> list[float]:
    """Return how long each of `count` calls took, one after the other, in milliseconds."""
    taken: list[float] = []
    for number in range(count):
        begin = time.perf_counter()
        await act(number)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


async def rate(count: int, act: Callable[[int], Awaitable[object]]) -> float:
    """Return calls a second, `AT_ONCE` on their way at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with room:
            await act(number)

    begin = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    return count / (time.perf_counter() - begin)


def told(name: str, taken: list[float]) -> Figures:
    taken = sorted(taken)
    return {f"{name} p50 ms": statistics.median(taken), f"{name} p99 ms": taken[int(len(taken) * 0.99)]}


async def verbs(engine: Engine, count: int) -> Figures:
    """Each verb of the store, and what the client library alone takes for the same change; in turns."""
    async with JetStream(engine.url) as store:
        raw = store._client

        async def raw_publish(number: int) -> None:
            await raw.request(f"$KV.ctl.raw.{number}", PAYLOAD, timeout=10)

        async def raw_cas(number: int) -> None:
            expected = {"Nats-Expected-Last-Subject-Sequence": "0"}
            answer = await raw.request(f"$KV.ctl.rawcas.{number}", PAYLOAD, timeout=10, headers=expected)
            assert b'"seq"' in answer.data, answer.data

        async def cas(number: int) -> None:
            await store.cas(f"cas.{number}", {"p": "x" * 500}, 0)

        async def batch(number: int) -> None:
            await store.batch([Change(f"batch.{number}.{part}", {"n": number}, 0) for part in range(4)])

        async def read(number: int) -> None:
            await store.get_leader(f"cas.{number}")

        await timed(20, raw_publish)
        taken: dict[str, list[float]] = {}
        for _ in range(5):
            done = len(taken.get("raw publish", ()))
            for name, act in (
                ("raw publish", raw_publish),
                ("raw cas", raw_cas),
                ("our cas", cas),
                ("our batch of 4", batch),
                ("our read at the leader", read),
            ):
                taken.setdefault(name, []).extend(await timed(count // 5, lambda n, act=act, done=done: act(done + n)))
        figures: Figures = {}
        for name, samples in taken.items():
            figures |= told(name, samples)
        figures["our cas / raw cas"] = figures["our cas p50 ms"] / figures["raw cas p50 ms"]
        figures["raw publish side by side /s"] = await rate(4 * count, lambda n: raw_publish(10**6 + n))
        figures["our cas side by side /s"] = await rate(4 * count, lambda n: cas(10**6 + n))
        figures["our batch of 4 side by side /s"] = await rate(count, lambda n: batch(10**6 + n))
        return figures | await news(store, count // 5)


async def news(store: JetStream, count: int) -> Figures:
    """From the beginning of a change until a watch tells it."""
    seen: asyncio.Queue[float] = asyncio.Queue()

    async def follow() -> None:
        async for entry in store.watch("news."):
            if entry and entry.key:
                seen.put_nowait(time.perf_counter())

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.3)
    taken: list[float] = []
    for number in range(count):
        begin = time.perf_counter()
        await store.cas(f"news.{number}", {}, 0)
        taken.append((await seen.get() - begin) * 1e3)
    following.cancel()
    await asyncio.wait([following])
    return told("change to watch", taken)


async def host(directory: Path, count: int) -> Figures:
    """A host's change, by its account over TLS; and how long it takes to let one in."""
    with Engine(directory, listen="0.0.0.0", advertise="127.0.0.1") as engine:
        async with JetStream(engine.url):
            who = new_identity()
            begin = time.perf_counter()
            await asyncio.to_thread(admit_host, engine.directory, "h1", who.public)
            admission = time.perf_counter() - begin
            async with JetStream(engine.hosts_url, seed=who.seed, ca=engine.address.ca, host="h1") as store:
                taken = await timed(count, lambda n: store.cas(f"asg.h1.{n}", {"p": "x" * 500}, 0))
    return told("a host's cas over TLS", taken) | {"admission of a host s": admission}


async def size(engine: Engine, keys: int) -> Figures:
    """A store of many keys: filled, checked, killed, started again, told anew."""
    async with JetStream(engine.url) as store:
        raw = store._client
        for start in range(0, keys, 500):  # not acknowledged one by one: only its size matters
            for number in range(start, min(keys, start + 500)):
                await raw.publish(f"$KV.ctl.task.{number}", b'{"padding":"' + PAYLOAD[:300] + b'"}')
            while (await store.last_revision() or 0) < min(keys, start + 500):
                await asyncio.sleep(0.01)
        guarding = asyncio.create_task((guard := StoreGuard(store, engine.directory)).run())
        begin = time.perf_counter()
        while not guard.ok:
            await asyncio.sleep(0.01)
        checked = time.perf_counter() - begin
        guarding.cancel()
        await asyncio.wait([guarding])
        memory = resident_mib(engine.pid)
        os.kill(engine.pid, signal.SIGKILL)
        while engine.running:
            await asyncio.sleep(0.002)
        begin = time.perf_counter()
        await asyncio.to_thread(engine.start)
        await store.cas("task.after", {}, 0)
        restarted = time.perf_counter() - begin
        begin = time.perf_counter()
        async for entry in store.watch("task."):
            if entry and entry.current:
                break
        resynced = time.perf_counter() - begin
    return {
        f"check of {keys:,} keys s": checked,
        f"restart with {keys:,} keys s": restarted,
        f"resync of {keys:,} keys s": resynced,
        "engine with them MiB": memory,
    }


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError(pid)


async def measure(directory: Path, quick: bool) -> Figures:
    count, keys = (100, 10_000) if quick else (500, 100_000)
    begin = time.perf_counter()
    with Engine(directory / "one") as engine:
        figures = {"start ms": (time.perf_counter() - begin) * 1e3, "engine MiB": resident_mib(engine.pid)}
        figures |= await verbs(engine, count)
    figures |= await host(directory / "two", count)
    with Engine(directory / "three") as engine:
        figures |= await size(engine, keys)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples, and 10,000 keys")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--check", action="store_true", help="fail when a promise is not kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(measure(Path(directory), options.quick))
    missed = 0
    for name, value in figures.items():
        most = PROMISES.get(name)
        missed += most is not None and value > most
        verdict = "" if most is None else f"  at most {most:g}: {'kept' if value <= most else 'MISSED'}"
        print(f"{name:36} {value:12.3f}{verdict}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
