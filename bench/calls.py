"""What a call costs beside a bare `enisle run` of the same program, in turns: `python -m bench.calls [--rounds N]`.

On a platform of its own with one host. The call is asked for by the Python client, `enisle run` starts Python anew, as
it always does; `enisle call` does both. Then how many calls of `true` a second end with eight callers.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from enisle import Platform
from enisle.control import Places, start_platform, stop_platform

PROGRAM = ["python3", "-c", "print(1)"]
ENISLE = [sys.executable, "-m", "enisle"]
CALLERS = 8


def timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1e3


def command(*words: str) -> None:
    assert subprocess.run([*ENISLE, *words, "--", *PROGRAM], stdin=subprocess.DEVNULL, capture_output=True).stdout


def rate(url: str, token: str, seconds: float) -> float:
    """Return how many calls a second end when all callers ask again and again."""
    end = time.perf_counter() + seconds

    def caller(_: int) -> int:
        done = 0
        with Platform(url, token) as platform:
            while time.perf_counter() < end:
                assert platform.run(["true"], memory="64M").ok
                done += 1
        return done

    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(pool.map(caller, range(CALLERS))) / seconds


def measure(url: str, token: str, rounds: int) -> None:
    os.environ |= {"ENISLE_URL": url, "ENISLE_TOKEN": token}
    with Platform(url, token) as platform:
        ways: dict[str, Callable[[], object]] = {
            "enisle run": lambda: command("run"),
            "platform.run": lambda: platform.run(PROGRAM),
            "enisle call": lambda: command("call"),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, act in ways.items():
                taken[name].append(timed(act))
    for name, times in taken.items():
        ordered = sorted(times[1:])
        print(f"{name:14} p50 {statistics.median(ordered):7.1f} ms   p90 {ordered[int(0.9 * len(ordered))]:7.1f} ms")
    bare, called = (statistics.median(taken[name][1:]) for name in ("enisle run", "platform.run"))
    print(f"a call takes {called - bare:+.1f} ms beside a bare run")
    print(f"calls of true, {CALLERS} callers: {rate(url, token, 10):.1f} /s")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=Path.home()) as directory:
        places = Places(Path(directory) / "state")
        info = start_platform(places)
        try:
            measure(info.url, places.token.read_text().strip(), rounds)
        finally:
            stop_platform(places, islands=True)


if __name__ == "__main__":
    main()
