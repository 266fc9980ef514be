"""The task system measured: `python -m bench.tasks [--quick] [--only NAME…] [--minutes N] [--check]`.

On an engine of its own (one server, synced always): latency and rate of tasks that hold a resource (also on a cluster
of three) and of the fast lane, calm and while the engine is killed, against raw writes to the same engine and in turns
with DBOS on SQLite; 100,000 ended tasks, 100,000 keys, 300 hosts (a minute, or `--minutes`). Dispatcher, agent, worker
and hosts are processes of their own. Exit status 1 when a promise was missed and `--check` was given.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bench.tasks_cluster import cluster
from bench.tasks_dbos import dbos
from bench.tasks_parts import Figures, Parts, burst, latencies, memory_mib, percentile
from bench.tasks_scale import history, hosts, keys
from bench.tasks_sides import fast_lane, fast_lane_killed, raw
from enisle.tasks import Engine

Measure = Callable[[Parts], Coroutine[Any, Any, Figures]]

PROMISES: dict[str, tuple[float, str]] = {
    "locked p50 ms": (50, "most"),
    "locked p99 ms": (300, "most"),
    "locked burst /s": (60, "least"),
    "cluster locked p50 ms": (40, "most"),
    "fast lane p50 ms": (5, "most"),
    "fast lane /s": (300, "least"),
    "fast60 /s": (300, "least"),
    "fast60 acknowledged and lost": (0, "most"),
    "fast60 duplicates not reported": (0, "most"),
    "history page p95 ms": (50, "most"),
    "history page at work p95 ms": (50, "most"),
    "keys restart s": (2, "most"),
    "keys view resync s": (10, "most"),
    "hosts false losses": (0, "most"),
    "hosts least lease left s": (0, "least"),
}


async def locked(parts: Parts) -> Figures:
    """Tasks that hold a resource each: one at a time, then all at once."""
    async with parts.platform():
        taken = await latencies(parts, 30 if parts.quick else 200)
        rate = await burst(parts, 200 if parts.quick else 500)
        await asyncio.sleep(2)
        return {
            "locked p50 ms": statistics.median(taken) * 1e3,
            "locked p99 ms": percentile(taken, 99) * 1e3,
            "locked burst /s": rate,
            "dispatcher MiB": memory_mib(parts.pids["dispatcher"]),
        }


MEASURES: dict[str, Measure] = {
    "raw": raw,
    "locked": locked,
    "cluster": cluster,
    "fast": fast_lane,
    "fast60": fast_lane_killed,
    "history": history,
    "keys": keys,
    "hosts": hosts,
    "dbos": dbos,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, for a look")
    parser.add_argument("--only", nargs="*", choices=[*MEASURES], default=[*MEASURES])
    parser.add_argument("--minutes", type=float, default=0, help="how long the 300 hosts are watched (1)")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: Figures = {}
    for name in asked.only:
        # /tmp may be memory: what is synced there says nothing of a disk.
        with tempfile.TemporaryDirectory(dir=os.path.expanduser("~")) as directory:
            with Engine(Path(directory) / "engine") as engine:
                parts = Parts(engine, Path(directory), asked.quick, asked.minutes)
                try:
                    figures = asyncio.run(MEASURES[name](parts))
                except (OSError, subprocess.SubprocessError) as error:
                    print(f"{name}: SKIPPED, {error}", file=sys.stderr, flush=True)
                    continue
        found |= figures
        for figure, value in figures.items():
            print(f"{figure:32} {value:12.2f}  {verdict(figure, value)}".rstrip(), flush=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, {time.strftime('%F %T')}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    return int(asked.check and any("MISSED" in verdict(*one) for one in found.items()))


def verdict(figure: str, value: float) -> str:
    if figure not in PROMISES:
        return ""
    bound, which = PROMISES[figure]
    kept = value <= bound if which == "most" else value >= bound
    return f"at {which} {bound:g}: {'kept' if kept else 'MISSED'}"


if __name__ == "__main__":
    sys.exit(main())
