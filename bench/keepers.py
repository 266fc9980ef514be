"""What keepers cost: `python bench/keepers.py [ISLANDS]`.

Prints, as medians over 15 islands of 64 MiB: the time until an island is made by the SDK in a process that is there
already, the time until it is made by a keeper that is started for it, the keeper's processor time until then (for when
the computer is not idle) and its memory; then how long ISLANDS (50) take when they are started together, and what they
take of the host's memory.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from enisle.control.keeper_client import KeeperClient
from enisle.island import Island

TIMES = 15
SMALL = {"memory": "64M"}


def status(pid: int, word: str) -> int:
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index(f"{word}:") + 1])


def available() -> int:
    words = Path("/proc/meminfo").read_text().split()
    return int(words[words.index("MemAvailable:") + 1])


async def start(directory: Path, name: str) -> tuple[KeeperClient, dict[str, object], float]:
    client = KeeperClient(directory / name)
    begin = time.perf_counter()
    process = await asyncio.to_thread(
        client.spawn, {"name": f"{name}-{os.getpid()}", "configuration": SMALL, "program": []}
    )
    about = await client.wait_until_ready(process)
    process.returncode = 0
    return client, about, time.perf_counter() - begin


async def warm_up(directory: Path) -> None:
    for number in range(2):
        client, _, _ = await start(directory, f"first{number}")
        await client.stop("warm")


async def measure(directory: Path, many: int) -> dict[str, object]:
    alone: list[float] = []
    kept: list[float] = []
    memory: list[int] = []
    computed: list[float] = []
    for number in range(TIMES):
        begin = time.perf_counter()
        with Island(**SMALL):
            alone.append(time.perf_counter() - begin)
        client, about, seconds = await start(directory, f"one{number}")
        kept.append(seconds)
        memory.append(status(int(str(about["pid"])), "VmRSS"))
        computed.append(int(Path(f"/proc/{about['pid']}/schedstat").read_text().split()[0]) / 1e6)
        await client.stop("measured")
    before, begin = available(), time.perf_counter()
    fleet = await asyncio.gather(*(start(directory, f"many{number}") for number in range(many)))
    seconds = time.perf_counter() - begin
    await asyncio.sleep(2)
    taken = before - available()
    for client, _, _ in fleet:
        assert (await client.ask("about"))["state"] == "running"
    await asyncio.gather(*(client.stop("measured") for client, _, _ in fleet))
    return {
        "sdk_island_ms": round(statistics.median(alone) * 1e3, 1),
        "kept_island_ms": round(statistics.median(kept) * 1e3, 1),
        "keeper_ms": round((statistics.median(kept) - statistics.median(alone)) * 1e3, 1),
        "keeper_cpu_ms": round(statistics.median(computed), 1),
        "keeper_rss_mib": round(statistics.median(memory) / 1024, 1),
        "islands": many,
        "islands_together_s": round(seconds, 2),
        "islands_memory_mib_each": round(taken / 1024 / many, 1),
    }


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as directory:
        # As installed: with byte code, which a work tree may lack, or a variable forbid to be written.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{directory}/bytecode"
        asyncio.run(warm_up(Path(directory)))
        print(json.dumps(asyncio.run(measure(Path(directory), many)), indent=1))


main()
