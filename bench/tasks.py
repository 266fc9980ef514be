"""The task system measured: `python -m bench.tasks [--quick] [--only NAME…] [--check]`.

On an engine of its own (one server, synced always): latency and rate of tasks that hold a resource and of the fast
lane, against raw writes to the same engine in the same run and against DBOS with SQLite on the same work; 300 hosts;
100,000 ended tasks; the dispatcher's memory. The dispatcher and the agent are processes of their own, as they are on a
platform. Exit status 1 when a promise was missed and `--check` was given.
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
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.tasks_parts import Parts, burst, latencies, memory_mib, percentile
from bench.tasks_sides import dbos, fast_lane, history, hosts, raw
from enisle.tasks import Engine

Figures = dict[str, float]
Measure = Callable[[Parts, bool], Awaitable[Figures]]

PROMISES: dict[str, tuple[float, str]] = {
    "locked p50 ms": (50, "most"),
    "locked p99 ms": (300, "most"),
    "locked burst /s": (60, "least"),
    "fast lane p50 ms": (5, "most"),
    "fast lane /s": (300, "least"),
    "history page p95 ms": (50, "most"),
    "hosts false losses": (0, "most"),
}


async def locked(parts: Parts, quick: bool) -> Figures:
    """Tasks that hold a resource each: one at a time, then all at once."""
    async with parts.platform():
        taken = await latencies(parts, 30 if quick else 200)
        rate = await burst(parts, 200 if quick else 500)
        await asyncio.sleep(2)
        return {
            "locked p50 ms": statistics.median(taken) * 1e3,
            "locked p99 ms": percentile(taken, 99) * 1e3,
            "locked burst /s": rate,
            "dispatcher MiB": memory_mib(parts.dispatcher_pid),
        }


MEASURES: dict[str, Measure] = {
    "raw": raw,
    "locked": locked,
    "fast": fast_lane,
    "history": history,
    "hosts": hosts,
    "dbos": dbos,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, for a look")
    parser.add_argument("--only", nargs="*", choices=[*MEASURES], default=[*MEASURES])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: Figures = {}
    for name in asked.only:
        # /tmp may be memory: what is synced there says nothing of a disk.
        with tempfile.TemporaryDirectory(dir=os.path.expanduser("~")) as directory:
            with Engine(Path(directory) / "engine") as engine:
                parts = Parts(engine, Path(directory))
                try:
                    figures = asyncio.run(MEASURES[name](parts, asked.quick))
                except (OSError, subprocess.SubprocessError) as error:
                    print(f"{name}: SKIPPED, {error}", file=sys.stderr, flush=True)
                    continue
        found |= figures
        for figure, value in figures.items():
            print(f"{figure:28} {value:12.2f}  {verdict(figure, value)}".rstrip(), flush=True)
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
