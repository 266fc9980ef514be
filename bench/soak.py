"""Run islands for a while and see that nothing stays behind: no process, mount, descriptor table or shared memory of the host.

Every eighth is given to a hostile program with a seed of its own: wild system calls or damaged ELF files (tests/conformance).

Exit status 1 when a run went wrong or something was left.
"""

import argparse
import concurrent.futures
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.sides import Side, Unmeasurable, sides

COMMANDS: list[tuple[list[str], str]] = [
    (["/bin/true"], ""),
    (["/bin/echo", "hello"], "hello\n"),
    (["/bin/sh", "-c", "for i in 1 2 3 4 5; do /bin/true & done; wait; echo done"], "done\n"),
    (["/bin/sh", "-c", "seq 20000 | sort -rn | head -1"], "20000\n"),
    (["python3", "-c", "print(sum(range(10 ** 6)))"], "499999500000\n"),
    (
        [
            "/bin/sh",
            "-c",
            "sleep 100 & kill -9 $!; wait; dd if=/dev/zero of=/tmp/f bs=1M count=20 2>/dev/null; wc -c < /tmp/f",
        ],
        "20971520\n",
    ),
]


HOSTILE = {"hostile_calls": ("40", "alive and well\n"), "hostile_elfs": ("200", "alive\n")}
"""Programs that mean harm: how much of it, and how their output ends."""


def build_hostile(target: Path) -> None:
    """Compile them into a directory."""
    sources = Path(__file__).parents[1] / "tests" / "conformance" / "programs"
    flags = ["-O1", "-D_GNU_SOURCE", "-fno-stack-protector", "-Wno-unused-result", "-pthread"]
    for name in HOSTILE:
        subprocess.run(["gcc", *flags, "-o", target / name, sources / f"{name}.c"], check=True)


def one_hostile(side: Side, directory: Path, seed: int) -> str:
    """Run one of them with a seed; return what was wrong, or an empty string."""
    name = random.Random(seed).choice(sorted(HOSTILE))
    amount, end = HOSTILE[name]
    words = [f"{directory}/{name}", str(seed), amount]
    try:
        found = side.run(["/bin/sh", "-c", f"cd /tmp && exec {' '.join(words)}"], 120)[0]
    except Unmeasurable as error:
        return f"{words}: {error}"
    return "" if found.endswith(end) and "does not die" not in found else f"{words}: {found[-200:]!r}"


def left_behind() -> dict[str, int]:
    """Count what an island could leave on the host."""
    return {
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "processes": sum(1 for entry in Path("/proc").iterdir() if entry.name.isdigit() and names_enisle(entry)),
        "shared memory": len(list(Path("/dev/shm").iterdir())) if Path("/dev/shm").is_dir() else 0,
    }


def names_enisle(process: Path) -> bool:
    try:
        return b"enisle\0run\0" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def one(side: Side, directory: Path, seed: int) -> str:
    """Run one command; return what was wrong, or an empty string."""
    if seed % 8 == 7:
        return one_hostile(side, directory, seed)
    argv, expected = random.Random(seed).choice(COMMANDS)
    try:
        found = side.run(argv, 60)[0]
    except Unmeasurable as error:
        return f"{argv}: {error}"
    return "" if found == expected else f"{argv}: {found[:100]!r}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--together", type=int, default=2, help="islands at the same time (2)")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    build_hostile(directory)
    island = next(side for side in sides(directory) if side.name == "enisle")
    before, runs, wrong = left_behind(), 0, 0
    deadline = time.monotonic() + options.seconds
    with concurrent.futures.ThreadPoolExecutor(options.together) as pool:
        while time.monotonic() < deadline:
            for trouble in pool.map(
                lambda seed: one(island, directory, seed), range(runs, runs + 4 * options.together)
            ):
                runs += 1
                if trouble:
                    wrong += 1
                    print(trouble, flush=True)
    shutil.rmtree(directory)
    after = left_behind()
    left = {name: after[name] - before[name] for name in before if after[name] > before[name]}
    print(f"{runs} islands, {wrong} went wrong, left behind: {left or 'nothing'}")
    return 1 if wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
