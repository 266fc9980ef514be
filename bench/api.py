"""What the API costs, on a platform of its own: `python -m bench.api`.

Times are of one client on this machine, through HTTP: a task to its end, a refusal with its holder, an event from its
cause to its reader, an island to its first output. The same numbers stand in SPECIFICATION.md.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from enisle import Platform
from enisle.control import Places, platform_info, start_platform, stop_platform
from enisle.errors import EnisleError, StateError

ROUNDS = 100


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        places = Places(Path(directory) / "state")
        begin = time.monotonic()
        info = start_platform(places)
        print(f"platform up: {time.monotonic() - begin:.2f} s")
        try:
            with Platform(info.url, places.token.read_text().strip()) as platform:
                measure(platform, platform_info(places).parts["api"])
        finally:
            stop_platform(places, islands=True)


def measure(platform: Platform, pid: int) -> None:
    known = one_task(platform)
    tell("GET /v1/tasks/ID", [timed(lambda: platform.tasks.get(known)) for _ in range(ROUNDS)])
    tell("submit", [timed(lambda: platform.tasks.submit("platform.sleep@1", {"seconds": 0.0})) for _ in range(ROUNDS)])
    tell("submit to end, one resource", [timed(lambda: one_task(platform)) for _ in range(ROUNDS)])
    tell("refusal with holder and progress", refusals(platform))
    tell("event: submission to `task` seen", event_delays(platform))
    tell("create, exec true, remove an island", [timed(lambda: island(platform)) for _ in range(5)])
    tell("exec true", commands(platform))
    with open(f"/proc/{pid}/status") as file:
        resident = next(line.split()[1] for line in file if line.startswith("VmRSS"))
    print(f"API process: {int(resident) / 1024:.0f} MiB resident")


def timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def tell(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what}: p50 {statistics.median(ordered) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms (n={len(ordered)})")


def one_task(platform: Platform) -> str:
    task = platform.tasks.submit("platform.sleep@1", {"seconds": 0.0}, [("bench", "one")])
    return platform.tasks.wait(task.id).id


def refusals(platform: Platform) -> list[float]:
    holder = platform.tasks.submit("platform.sleep@1", {"seconds": 60.0}, [("bench", "held")])
    while platform.tasks.get(holder.id).state != "running":
        time.sleep(0.01)

    def refused() -> None:
        try:
            platform.tasks.submit("platform.sleep@1", {"seconds": 0.0}, [("bench", "held")], if_blocked="fail")
        except StateError:
            return
        raise AssertionError("it was not refused")

    try:
        return [timed(refused) for _ in range(ROUNDS)]
    finally:
        platform.tasks.cancel(holder.id, "measured")


def event_delays(platform: Platform) -> list[float]:
    seen: dict[str, float] = {}
    ready, stop = threading.Event(), threading.Event()

    def follow() -> None:
        for event in platform.events():
            if event.name == "current":
                ready.set()
            elif event.name == "task":
                seen.setdefault(event.id, time.perf_counter())
            if stop.is_set():
                return

    reader = threading.Thread(target=follow)
    reader.start()
    ready.wait(10)
    begun: dict[str, float] = {}
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        begun[platform.tasks.submit("platform.sleep@1", {"seconds": 0.0}).id] = begin
        time.sleep(0.02)
    time.sleep(1)
    stop.set()
    one_task(platform)
    reader.join(20)
    return [seen[task] - begin for task, begin in begun.items()]


def island(platform: Platform) -> None:
    with platform.islands.create(memory="256M") as made:
        assert made.exec(["true"]).ok


def commands(platform: Platform) -> list[float]:
    try:
        with platform.islands.create(memory="256M") as made:
            return [timed(lambda: made.exec(["true"])) for _ in range(20)]
    except EnisleError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
