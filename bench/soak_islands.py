"""Islands of the platform under deaths: `python bench/soak_islands.py [ISLANDS] [SECONDS]`.

Starts ISLANDS (50) by tasks, then for SECONDS (60) runs commands on them, each of which leaves a mark in its island,
while agent and dispatcher are killed again and again. At the end every task has ended, every command that is told done
has left exactly one mark, every island lives, and no lock is left. Prints what it did.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from control_parts import SMALL, WHO, Platform, keeper_pid
from enisle.control import IslandSpec
from enisle.tasks import State, Task


async def make(platform: Platform, many: int) -> float:
    begin = time.monotonic()
    specs = [IslandSpec(name=f"soak{number}", memory=SMALL) for number in range(many)]
    tasks = await asyncio.gather(*(platform.operations.create_island(spec, **WHO) for spec in specs))
    for task in tasks:
        await platform.until(lambda task=task: platform.view.tasks[task.id].finished, 120)
        assert platform.view.tasks[task.id].state is State.DONE, platform.view.tasks[task.id].failure
    return time.monotonic() - begin


async def kill_now_and_then(platform: Platform, kills: dict[str, int]) -> None:
    while True:
        await asyncio.sleep(random.uniform(3, 8))
        part = random.choice(("agent", "dispatcher"))
        platform.processes[part].kill()
        await asyncio.to_thread(platform.processes[part].wait)
        kills[part] += 1
        if part == "agent":
            platform.start_agent()
        else:
            platform.start("dispatcher", "dispatcher", str(platform.places.directory))


async def command(platform: Platform, number: int, marks: list[tuple[str, Task]], many: int) -> None:
    name, mark = f"soak{random.randrange(many)}", f"m{number}"
    words = ["sh", "-c", f"echo {mark} >> /tmp/marks; sleep {random.uniform(0, 0.5):.2f}"]
    marks.append((mark, await platform.operations.exec_island(name, words, **WHO)))


async def soak(platform: Platform, many: int, seconds: float) -> dict[str, object]:
    made_s, kills = await make(platform, many), {"agent": 0, "dispatcher": 0}
    keepers = [keeper_pid(path) for path in platform.islands()]
    assert all(keepers)
    killing = asyncio.create_task(kill_now_and_then(platform, kills))
    marks: list[tuple[str, Task]] = []
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        await command(platform, len(marks), marks, many)
        await asyncio.sleep(0.05)
    killing.cancel()
    await platform.until(lambda: all(platform.view.tasks[task.id].finished for _, task in marks), 120)
    ends = [platform.view.tasks[task.id] for _, task in marks]
    found: list[str] = []
    for number in range(many):
        if any(f"soak{number}" in path.name for path in platform.islands()):
            told = await platform.end(
                platform.operations.exec_island(f"soak{number}", ["sh", "-c", "cat /tmp/marks 2>/dev/null"], **WHO)
            )
            assert told.state is State.DONE, (told, platform.logs())
            found += str(told.result["stdout"]).split()
    done = [mark for (mark, _), end in zip(marks, ends, strict=True) if end.state is State.DONE]
    assert len(set(found)) == len(found), "a command ran twice"
    assert set(done) <= set(found), "a command that is told done left no mark"
    assert [keeper_pid(path) for path in platform.islands()] == keepers, "an island died"
    await platform.until(lambda: not platform.view.locks)
    failed = [end.failure.message for end in ends if end.failure]
    return {
        "islands": many,
        "made_s": round(made_s, 2),
        "commands": len(marks),
        "done": len(done),
        "failed": sorted(set(failed)),
        "kills": kills,
    }


async def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with tempfile.TemporaryDirectory() as directory:
        async with Platform(Path(directory) / "state") as platform:
            print(json.dumps(await soak(platform, many, seconds), indent=1))


asyncio.run(main())
