"""The same random updates under the processor's own counters: only where a host has two nodes and lets us count.

Runs the program on an island on KVM with a thread on a processor of each node, tables on one node and with a copy on
every node, and prints cycles spent in walks and the time of a phase. Says what is missing otherwise, and measures
nothing.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from bench.sides import compile_programs

NODES = Path("/sys/devices/system/node")
COUNTERS = Path("/sys/bus/event_source/devices/cpu")
WALK_EVENTS = ("dtlb_load_misses.walk_active", "dtlb_store_misses.walk_active")
"""Intel, since Skylake: cycles in which a walk is under way (Intel's perfmon event lists)."""
EVENTS = ("cycles:u", *WALK_EVENTS)
PHASES = 5


def list_of(text: str) -> list[int]:
    """Return the numbers of a list like `0-3,8`."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers


def processors_by_node(root: Path = NODES) -> dict[int, list[int]]:
    """Return the processors of each node that has processors and memory."""
    try:
        with_memory = list_of((root / "has_memory").read_text())
        found = {node: list_of((root / f"node{node}/cpulist").read_text()) for node in with_memory}
    except OSError:
        return {}
    return {node: cpus for node, cpus in found.items() if cpus}


def missing(root: Path = NODES, counters: Path = COUNTERS) -> list[str]:
    """Return what this host lacks for the measurement, in words."""
    reasons: list[str] = []
    nodes = processors_by_node(root)
    if len(nodes) < 2:
        count = f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}"
        reasons.append(f"this host has {count} with processors and memory; two are needed for a table to be remote")
    if not counters.is_dir():
        reasons.append("its processors offer no performance counters (no PMU: a virtual machine, or switched off)")
    if shutil.which("perf") is None:
        reasons.append("the `perf` command is not installed")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        reasons.append("/dev/kvm cannot be used")
    return reasons


def parse_counts(text: str) -> dict[str, float]:
    """Return event → count of what `perf stat -x,` printed; events that were not counted are left out."""
    counts: dict[str, float] = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[0].replace(".", "", 1).isdigit():
            counts[fields[2]] = float(fields[0])
    return counts


def island_words(program: Path, mode: str, nodes: dict[int, list[int]], mib: int, updates: int) -> Sequence[str]:
    """Return the words that run the program on an island with the host's nodes."""
    enisle = str(Path(sysconfig.get_path("scripts")) / "enisle")
    island = ("--mount", f"{program.parent}:{program.parent}", "--cwd", "/", "--processor", "kvm")
    replicas = ("--nodes", str(len(nodes)), "--page-tables", mode)
    pinned = (str(cpus[0]) for cpus in nodes.values())
    return (
        *(enisle, "run", *island, *replicas, "--"),
        *(str(program), str(len(nodes)), str(mib), str(updates), *pinned),
    )


def run_once(words: Sequence[str]) -> tuple[dict[str, float], list[float]]:
    """Return the counts of a whole run, and the seconds of its phases."""
    command = ("perf", "stat", "-x,", "-o", "/dev/stderr", "-e", ",".join(EVENTS), "--", *words)
    done = subprocess.run(command, input="\n" * PHASES, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    seconds = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("done ")]
    return parse_counts(done.stderr), seconds


def measure_hardware(mib: int, updates: int) -> int:
    """Print the comparison, or why there is none. Returns 0 for figures, 5 when this host cannot give any."""
    reasons = missing()
    if reasons:
        print("nothing was measured: this host cannot show what copies of page tables gain or cost", file=sys.stderr)
        for reason in reasons:
            print(f"  {reason}", file=sys.stderr)
        print("  hint: python -m bench.walks counts whose tables are read, on emulated nodes", file=sys.stderr)
        return 5
    nodes = processors_by_node()
    programs = compile_programs()
    try:
        print(f"{len(nodes)} nodes of the host, {time.strftime('%F')}; medians of {PHASES} phases")
        for mode in ("off", "eager"):
            counts, seconds = run_once(island_words(programs / "gups", mode, nodes, mib, updates))
            walking, cycles = sum(counts.get(event, 0) for event in WALK_EVENTS), counts.get("cycles:u", 0)
            share = f"{walking / cycles:.1%} of cycles in walks" if cycles and walking else "walks were not counted"
            print(f"copies {mode:6} {sorted(seconds)[len(seconds) // 2] * 1e3:10.1f} ms a phase   {share}")
    except (RuntimeError, subprocess.TimeoutExpired, IndexError) as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 5
    finally:
        shutil.rmtree(programs, ignore_errors=True)
    return 0
