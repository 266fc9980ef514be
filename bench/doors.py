"""Where a system call's time goes: calls, exits and the island's processor time, for each door."""

import json
from pathlib import Path

from bench.sides import Side, Unmeasurable

WORK = ("getppid", "file-read", "file-write", "pipe")


def show_doors(programs: Path, among: list[Side]) -> None:
    """Print a table of the island's own statistics while it serves a hot loop of calls."""
    doors = [side for side in among if side.name in ("enisle", "exit door")]
    if not doors:
        return
    print(
        f"\n{'what an island counted':22} {'door':10} {'calls':>9} {'exits':>9} {'no exit':>8} {'kernel µs a call':>17}"
    )
    for work in WORK:
        for side in doors:
            head, tail = side.prefix[:2], side.prefix[2:]
            counted = Side(side.name, (*head, "--json", *tail))
            try:
                told = json.loads(counted.run([str(programs / "calls"), work])[0])["statistics"]
            except (Unmeasurable, ValueError, KeyError) as error:
                print(f"{work:22} {side.name:10} {error}")
                continue
            calls, exits = told["syscalls"], told["exits"]
            share, spent = told["syscalls_without_exit"] / calls, told["kernel_seconds"] / calls * 1e6
            print(f"{work:22} {side.name:10} {calls:9} {exits:9} {share:8.1%} {spent:17.2f}", flush=True)
