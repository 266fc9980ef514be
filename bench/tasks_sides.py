"""What the task system is measured against and beside: raw writes, the fast lane, history, many hosts, DBOS."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

from bench.tasks_parts import Parts, memory_mib, percentile
from enisle.tasks import Change, FastLane, History, JetStream, Request, Resource, State, Task

Figures = dict[str, float]
KEPT = Path("~/.cache/enisle-bench").expanduser()
DBOS = "dbos==3.4.0"


async def raw(parts: Parts, quick: bool) -> Figures:
    """What the engine itself takes: one durable write, a batch of four, and as many as it can side by side."""
    count = 100 if quick else 500
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


async def fast_lane(parts: Parts, quick: bool) -> Figures:
    """Calls by the fast lane, the worker in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.tasks_parts", "worker", parts.engine.url, str(parts.directory)
    )
    try:
        async with JetStream(parts.engine.url) as store, FastLane(store) as lane:
            await lane.call("bench.nothing@1", {}, 30)
            taken: list[float] = []
            for _ in range(100 if quick else 500):
                begin = time.perf_counter()
                await lane.call("bench.nothing@1", {}, 30)
                taken.append(time.perf_counter() - begin)
            end, done, room = time.perf_counter() + (5 if quick else 60), 0, asyncio.Semaphore(32)

            async def one() -> None:
                nonlocal done
                try:
                    await lane.call("bench.nothing@1", {}, 60)
                    done += 1
                finally:
                    room.release()

            begin = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                while time.perf_counter() < end:
                    await room.acquire()
                    group.create_task(one())
            return {
                "fast lane p50 ms": statistics.median(taken) * 1e3,
                "fast lane p99 ms": percentile(taken, 99) * 1e3,
                "fast lane /s": done / (time.perf_counter() - begin),
            }
    finally:
        process.terminate()
        await process.wait()


async def history(parts: Parts, quick: bool) -> Figures:
    """A hundred thousand ended tasks: how long a page takes, and how much the process grows by keeping them."""
    count = 20_000 if quick else 100_000
    before = memory_mib(os.getpid())
    with History(parts.directory / "many.db") as kept:
        begin = time.perf_counter()
        for start in range(0, count, 1000):
            kept.add([_ended(number) for number in range(start, start + 1000)])
        filled = time.perf_counter() - begin
        taken: list[float] = []
        for filters in ({}, {"state": "failed"}, {"resource": "island/i7"}, {"routine": "x.y"}):
            at = float(count)
            for _ in range(20):
                begin = time.perf_counter()
                page = kept.list("default", before=at, limit=50, **filters)
                taken.append(time.perf_counter() - begin)
                assert len(page) == 50, (filters, at, len(page))
                at = page[-1].submitted
        return {
            "history page p50 ms": statistics.median(taken) * 1e3,
            "history page p95 ms": percentile(taken, 95) * 1e3,
            "history added /s": count / filled,
            "history grown MiB": memory_mib(os.getpid()) - before,
        }


def _ended(number: int) -> Task:
    state = State.FAILED if number % 10 == 0 else State.DONE
    held = (Resource("island", f"i{number % 20}"),)
    task = Task(f"t{number}", f"x.{'yz'[number % 2]}@1", {"n": number}, held, "", float(number), state=state)
    return replace(task, finished=time.time(), host="h1", attempt=1, order=number)


async def hosts(parts: Parts, quick: bool) -> Figures:
    """300 hosts that renew their leases while tasks run: how many seemed lost, and what it costs the engine."""
    seconds = 15 if quick else 600
    async with parts.platform(), JetStream(parts.engine.url) as store:
        leases = await asyncio.gather(*(store.lease(f"host.s{n}", {"host": f"s{n}"}, 3.0) for n in range(300)))
        lost, taken = 0, [0.0]
        used, end = _processor_s(parts.engine.pid), time.monotonic() + seconds
        async with parts.view.subscribe(parts.view.revision) as subscription:
            while time.monotonic() < end:
                begin = time.perf_counter()
                request = Request("bench.nothing@1", {}, (Resource("thing", "t"),), host="h1", placement="pinned")
                task = await parts.tasks.submit(request)
                await parts.tasks.wait(task.id, 60)
                taken.append(time.perf_counter() - begin)
                lost += sum(news.kind == "host" and news.value is None for news in await subscription.news())
        found = {
            "hosts false losses": float(lost + sum(not lease.held for lease in leases)),
            "hosts locked p50 ms": statistics.median(taken) * 1e3,
            "hosts engine load %": (_processor_s(parts.engine.pid) - used) / seconds * 100,
            "hosts engine MiB": memory_mib(parts.engine.pid),
        }
        await asyncio.gather(*(lease.release() for lease in leases))
        return found


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


WORK = """
import json, statistics, sys, time
from dbos import DBOS

config = {"name": "bench", "system_database_url": f"sqlite:///{sys.argv[1]}/dbos.sqlite", "run_admin_server": False}
DBOS(config=config)
tuned = sys.argv[3] == "tuned"

@DBOS.step()
def nothing():
    return None

@DBOS.workflow()
def work():
    nothing()

if tuned:
    import sqlite3
    sqlite3.connect(f"{sys.argv[1]}/dbos.sqlite").execute("PRAGMA journal_mode=WAL")
DBOS.launch()
queue = DBOS.register_queue("bench", **({"polling_interval_sec": 0.02} if tuned else {}))
count = int(sys.argv[2])
more = {"polling_interval_sec": 0.01} if tuned else {}
taken = []
for _ in range(count // 10):
    begin = time.perf_counter()
    DBOS.start_workflow(work).get_result(**more)
    taken.append(time.perf_counter() - begin)
begin = time.perf_counter()
for handle in [queue.enqueue(work) for _ in range(count)]:
    handle.get_result(**more)
rate = count / (time.perf_counter() - begin)
print("FIGURES", json.dumps([statistics.median(taken) * 1e3, rate]), flush=True)
import os
os._exit(0)
"""


async def dbos(parts: Parts, quick: bool) -> Figures:
    """The same work, a durable task with one step that does nothing, by DBOS on SQLite: as shipped, and tuned."""
    python = await asyncio.to_thread(_dbos_python)
    found: Figures = {}
    for how in ("shipped", "tuned"):
        place = parts.directory / f"dbos-{how}-{uuid.uuid4().hex[:6]}"
        place.mkdir()
        script = place / "work.py"
        script.write_text(WORK)
        command = [python, script, place, str(100 if quick else 500), how]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=300, cwd=place)
        told = [line for line in done.stdout.splitlines() if line.startswith("FIGURES")]
        if not told:
            raise OSError(f"DBOS did not do its work: {(done.stderr or done.stdout).strip()[-300:]}")
        latency, rate = json.loads(told[0].removeprefix("FIGURES"))
        found |= {f"dbos {how} p50 ms": latency, f"dbos {how} burst /s": rate}
    return found


def _dbos_python() -> str:
    """Return the interpreter of an environment with DBOS in it, made once. Raises OSError when it cannot be had."""
    python = KEPT / "dbos" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", KEPT / "dbos"], check=True, capture_output=True)
    if subprocess.run([python, "-c", "import dbos"], capture_output=True).returncode:
        made = subprocess.run([python, "-m", "pip", "install", "-q", DBOS], capture_output=True, text=True, timeout=300)
        if made.returncode:
            raise OSError(f"{DBOS} cannot be had: {made.stderr.strip()[-200:]}")
    return str(python)
