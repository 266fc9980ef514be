"""Our tasks beside DBOS with SQLite, in turns: the same work, a durable task of one step that does nothing.

Ours also takes and frees a lock, by an engine, a dispatcher and an agent in processes of their own; DBOS does all in
the process that asks. It runs as shipped, and tuned: its database in WAL mode, its polls every 10 and 20 ms.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import uuid
from pathlib import Path

from bench.tasks_parts import Figures, Parts, burst, latencies

KEPT = Path("~/.cache/enisle-bench").expanduser()
DBOS = "dbos==3.4.0"
OURS, SHIPPED, TUNED = "ours", "shipped", "tuned"
Sample = tuple[float, float]
"""The median of one task after the other, in milliseconds; how many end a second when all are asked for at once."""

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
for _ in range(5):
    DBOS.start_workflow(work).get_result(**more)
taken = []
for _ in range(count // 5):
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


async def dbos(parts: Parts) -> Figures:
    """Both in turns, in an order that turns round; ratios are of neighbours, told with the smallest and the largest."""
    python = await asyncio.to_thread(_dbos_python)
    rounds, count = (3, 50) if parts.quick else (7, 100)
    samples: dict[str, list[Sample]] = {OURS: [], SHIPPED: [], TUNED: []}
    async with parts.platform():
        await latencies(parts, 20)
        for turn in range(rounds):
            for how in list(samples)[:: 1 if turn % 2 == 0 else -1]:
                one = _ours(parts, count) if how == OURS else asyncio.to_thread(_theirs, parts, python, count, how)
                samples[how].append(await one)
    found: Figures = {}
    for how, taken in samples.items():
        found[f"dbos {how} p50 ms"] = statistics.median(latency for latency, _ in taken)
        found[f"dbos {how} burst /s"] = statistics.median(rate for _, rate in taken)
    for how in (SHIPPED, TUNED):
        pairs = list(zip(samples[how], samples[OURS], strict=True))
        found |= _spread(f"latency {how} / ours", [theirs[0] / ours[0] for theirs, ours in pairs])
        found |= _spread(f"rate ours / {how}", [ours[1] / theirs[1] for theirs, ours in pairs])
    return found


def _spread(name: str, ratios: list[float]) -> Figures:
    return {name: statistics.median(ratios), f"{name} least": min(ratios), f"{name} most": max(ratios)}


async def _ours(parts: Parts, count: int) -> Sample:
    taken = await latencies(parts, count // 5)
    return statistics.median(taken) * 1e3, await burst(parts, count)


def _theirs(parts: Parts, python: str, count: int, how: str) -> Sample:
    place = parts.directory / f"dbos-{how}-{uuid.uuid4().hex[:6]}"
    place.mkdir()
    script = place / "work.py"
    script.write_text(WORK)
    command = [python, script, place, str(count), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=place)
    told = [line for line in done.stdout.splitlines() if line.startswith("FIGURES")]
    if not told:
        raise OSError(f"DBOS did not do its work: {(done.stderr or done.stdout).strip()[-300:]}")
    latency, rate = json.loads(told[0].removeprefix("FIGURES"))
    return latency, rate


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
