"""The task system when there is much: 100,000 ended tasks in its history, 100,000 keys in its store, 300 hosts."""

import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.tasks_parts import Figures, Parts, burst, end_task, latencies, memory_mib, percentile
from enisle.tasks import PROGRESS, Copy, History, JetStream, Resource, State, Task, View

HOSTS = 300
TOGETHER = 100
"""Records in a message of the engine's copy."""


async def history(parts: Parts) -> Figures:
    """100,000 ended tasks: filled in, searched, added to by a platform that works, filled again when lost."""
    count = 20_000 if parts.quick else 100_000
    ended = [ended_task(number) for number in range(count)]
    with History(parts.directory / "history.db") as kept:
        begin = time.perf_counter()
        for start in range(0, count, 1000):
            kept.add(ended[start : start + 1000])
        found = {"history added /s": count / (time.perf_counter() - begin)}
        before = memory_mib(os.getpid())
        found |= _pages("history page", kept, float(count))
        found["history grown MiB"] = memory_mib(os.getpid()) - before
    found["history on disk MiB"] = (parts.directory / "history.db").stat().st_size / 2**20
    async with parts.platform():
        found |= await _history_at_work(parts, count)
        async with JetStream(parts.engine.url) as store:
            copy = Copy(store)
            for start in range(0, count, TOGETHER):
                await copy.add(ended[start : start + TOGETHER], [])
        begin = time.perf_counter()
        lost = parts.directory / "another"
        lost.mkdir()
        async with parts.role("dispatcher", lost):
            await asyncio.to_thread(_until_it_has, lost / "history.db", count)
        found["history filled again s"] = time.perf_counter() - begin
    return found


def _pages(name: str, kept: History, latest: float) -> Figures:
    """How long pages of fifty take, one behind the other, by each filter."""
    taken: list[float] = []
    for filters in ({}, {"state": "failed"}, {"resource": "island/i7"}, {"routine": "x.y"}):
        at = latest
        for _ in range(20):
            begin = time.perf_counter()
            page = kept.list("default", before=at, limit=50, **filters)
            taken.append(time.perf_counter() - begin)
            assert len(page) == 50, (filters, at, len(page))
            at = page[-1].submitted
    return {f"{name} p50 ms": statistics.median(taken) * 1e3, f"{name} p95 ms": percentile(taken, 95) * 1e3}


async def _history_at_work(parts: Parts, count: int) -> Figures:
    """Tasks beside that history: they cost no more, are in it soon, and pages are read meanwhile."""
    with History(parts.directory / "history.db", writable=False) as reader:
        before = reader.count()
        working = asyncio.create_task(latencies(parts, 100 if parts.quick else 300))
        found = await asyncio.to_thread(_pages, "history page at work", reader, float(count))
        taken = await working
        begin = time.perf_counter()
        while reader.count() < before + len(taken):
            await asyncio.sleep(0.01)
        return found | {
            "history locked p50 ms": statistics.median(taken) * 1e3,
            "history last one in it s": time.perf_counter() - begin,
            "history dispatcher MiB": memory_mib(parts.pids["dispatcher"]),
        }


def _until_it_has(path: Path, count: int) -> None:
    while not path.exists():
        time.sleep(0.01)
    with History(path, writable=False) as reader:
        while reader.count() < count:
            time.sleep(0.1)


def ended_task(number: int) -> Task:
    state = State.FAILED if number % 10 == 0 else State.DONE
    held = (Resource("island", f"i{number % 20}"),)
    task = Task(f"t{number}", f"x.{'yz'[number % 2]}@1", {"n": number}, held, "", float(number), state=state)
    return replace(task, finished=time.time(), host="h1", attempt=1, order=number)


# ---- keys ----------------------------------------------------------------------------------------------------------


async def keys(parts: Parts) -> Figures:
    """A store of 100,000 tasks: killed and started again, told anew to a view, changed, worked with."""
    count = 10_000 if parts.quick else 100_000
    engine = parts.engine
    async with JetStream(engine.url) as store:
        found = {"keys cas before p50 ms": await _cas(store, "before")}
        begin = time.perf_counter()
        await _fill(store, count)
        found["keys stored /s"] = count / (time.perf_counter() - begin)
        os.kill(engine.pid, signal.SIGKILL)
        while engine.running:
            await asyncio.sleep(0.002)
        begin = time.perf_counter()
        await asyncio.to_thread(engine.start)
        await store.cas("raw.after", {}, 0)
        found["keys restart s"] = time.perf_counter() - begin
        async with JetStream(engine.url, bucket=PROGRESS) as progress:
            begin = time.perf_counter()
            view = View(store, progress)
            running = asyncio.create_task(view.run())
            await view.ready()
            found["keys view resync s"] = time.perf_counter() - begin
            assert len(view.tasks) == count, len(view.tasks)
            await end_task(running)
        found["keys cas p50 ms"] = await _cas(store, "with")
    found["keys engine MiB"] = memory_mib(engine.pid)
    return found | await _work_among_keys(parts, count)


async def _fill(store: JetStream, count: int) -> None:
    """Store ended tasks without waiting for each answer: only how many there are matters."""
    client, first = store._client, await store.last_revision() or 0
    for start in range(0, count, 500):
        for number in range(start, start + 500):
            value = json.dumps(ended_task(number).to_value(), separators=(",", ":")).encode()
            await client.publish(f"{store.bucket.root}task.t{number}", value)
        while (await store.last_revision() or 0) < first + start + 500:
            await asyncio.sleep(0.005)


async def _cas(store: JetStream, name: str) -> float:
    """How long a change takes, in milliseconds: made, changed, changed again."""
    taken: list[float] = []
    for number in range(100):
        revision = 0
        for value in range(3):
            begin = time.perf_counter()
            revision = await store.cas(f"raw.{name}{number}", {"n": value}, revision)
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e3


async def _work_among_keys(parts: Parts, count: int) -> Figures:
    """A dispatcher that starts on such a store, and moves what has ended into the history while tasks run."""
    begin = time.perf_counter()
    async with parts.platform():
        found = {"keys platform ready s": time.perf_counter() - begin}
        taken = await latencies(parts, 30 if parts.quick else 100)
        with History(parts.directory / "history.db", writable=False) as reader:
            while reader.count() < count or len(parts.view.tasks) > 2200:
                await asyncio.sleep(0.1)
        return found | {
            "keys locked p50 ms": statistics.median(taken) * 1e3,
            "keys moved to history s": time.perf_counter() - begin,
            "keys dispatcher MiB": memory_mib(parts.pids["dispatcher"]),
        }


# ---- hosts ---------------------------------------------------------------------------------------------------------


async def hosts(parts: Parts) -> Figures:
    """300 hosts that renew their leases while tasks run: how many seemed lost, and what it costs the engine.

    One task after the other on a resource, and a hundred at once four times a minute.
    """
    seconds = parts.minutes * 60 if parts.minutes else 15 if parts.quick else 60
    async with parts.platform(), parts.role("hosts"):
        while len(parts.view.hosts) < HOSTS + 1:
            await asyncio.sleep(0.05)
        gone: list[str] = []
        watching = asyncio.create_task(_note_losses(parts, gone))
        used, begin = _processor_s(parts.engine.pid), time.monotonic()
        taken, rates = await _load(parts, begin + seconds)
        used, spent = _processor_s(parts.engine.pid) - used, time.monotonic() - begin
        await end_task(watching)
        found = {
            "hosts minutes": spent / 60,
            "hosts locked p50 ms": statistics.median(taken) * 1e3,
            "hosts locked p99 ms": percentile(taken, 99) * 1e3,
            "hosts tasks": float(len(taken) + TOGETHER * len(rates)),
            "hosts burst /s": statistics.median(rates),
            "hosts engine load %": used / spent * 100,
            "hosts engine MiB": memory_mib(parts.engine.pid),
            "hosts dispatcher MiB": memory_mib(parts.pids["dispatcher"]),
        }
    told = json.loads(parts.leases.read_text())
    found["hosts least lease left s"] = told["least_s"]
    return found | {"hosts false losses": float(len(gone) + told["lost"])}


async def _note_losses(parts: Parts, gone: list[str]) -> None:
    async with parts.view.subscribe(parts.view.revision) as subscription:
        while True:
            gone += [news.id for news in await subscription.news() if news.kind == "host" and news.value is None]


async def _load(parts: Parts, end: float) -> tuple[Sequence[float], Sequence[float]]:
    """Run tasks until a moment; return how long each took that ran alone, and the rate of each burst."""
    taken: list[float] = []
    rates: list[float] = []
    next_burst = 0.0
    while time.monotonic() < end:
        if time.monotonic() > next_burst:
            rates.append(await burst(parts, TOGETHER))
            next_burst = time.monotonic() + 15
        taken += await latencies(parts, 8)
    return taken, rates


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
