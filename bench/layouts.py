"""What the controller costs on the host, on one island, on two: `python -m bench.layouts`.

Start of the platform, a list and a locked task over HTTP by one client, resident memory of the controller's processes
with their islands'. A figure of its own for each layout; the machine should be quiet.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.api import one_task, timed
from enisle import Platform
from enisle.control import Places, platform_info, start_platform, stop_platform

LAYOUTS = ("host", "island", "islands")
PARTS = ("controller", "dispatcher", "api")
ROUNDS = 100


def main(rounds: int = ROUNDS) -> None:
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as directory:
            places = Places(Path(directory) / "state")
            begin = time.monotonic()
            info = start_platform(places, controller=layout)
            up = time.monotonic() - begin
            try:
                with Platform(info.url, places.token.read_text().strip()) as platform:
                    warm_up(platform, rounds)
                    listed = p50([timed(lambda: list(platform.islands.list())) for _ in range(rounds)])
                    locked = p50([timed(lambda: one_task(platform)) for _ in range(rounds)])
                parts = platform_info(places).parts
                memory = sum(resident(parts[name]) for name in PARTS if name in parts)
            finally:
                stop_platform(places, islands=True)
        print(
            f"{layout:8} up {up:.2f} s, GET /v1/islands p50 {listed:.1f} ms, locked task p50 {locked:.1f} ms,"
            f" {memory:.0f} MiB",
            flush=True,
        )


def warm_up(platform: Platform, rounds: int) -> None:
    """Warm up what is measured."""
    for _ in range(max(1, rounds // 10)):
        list(platform.islands.list())
        one_task(platform)


def p50(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def resident(pid: int) -> float:
    """Return the MiB a process has resident, an island's guest memory among them."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in told.splitlines() if line.startswith("VmRSS"))) / 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
