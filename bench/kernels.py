"""Look into every pinned kernel and compare with what the guest says of itself: the matrix of SPECIFICATION.md.

    python -m bench.kernels                     all kernels once, and the variants of one
    python -m bench.kernels --only 7.2-cloud    one kernel
    python -m bench.kernels --boots 10          one kernel ten times, each time elsewhere in memory, and its variants
    python -m bench.kernels --rounds 10         every time of ten rounds, their 95th percentile: add --only, --check

Exit status 1 when a fact was wrong, a list differed, an export was missing, or a time was over its limit (--check).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.kernel_guest import TestGuest, differing_tasks, guests, in_user_mode, running, wrong_calls, wrong_facts
from enisle.errors import EnisleError
from enisle.introspect import Introspection
from enisle.introspect.dump import SavedGuest

APPEND = "PROCESSES=200 MODULES=12"
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "pti=on, 2 processors in user mode": ("pti=on", {"processors": 2}),
    "4 levels": ("", {"cpu": "max,la57=off"}),
    "no KASLR": ("nokaslr", {}),
}
ROUNDS = 10
LEAST = {"addresses": 35, "offsets": 14}
WITHOUT_EXPORTS = (
    "current_task",
    "task_struct.cred",
    "task_struct.real_parent",
    "cred.uid",
    "cred.euid",
    "sys_call_table",
    "entry_SYSCALL_64",
)
"""What a kernel without a table of exports must give all the same."""
LIMITS = {"cold_s": 5.0, "cached_s": 0.5, "ps_ms": 100.0, "pause_p95_ms": 250.0, "memory_mib": 500.0}
Row = dict[str, object]


def timed(work: Callable[[], object], rounds: int = 1) -> list[float]:
    """Return the seconds that each of some rounds took."""
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


PEAK = """
import sys
from enisle.cli import main
code = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1], file=sys.stderr)
sys.exit(code)
"""
"""Runs a command and tells the most KiB it held (proc(5)). wait4(2) would count what its parent held at the fork."""


def peak_memory(name: str) -> float:
    """Return the most MiB that a command held while it looked into a guest for the first time and checked it."""
    with tempfile.TemporaryDirectory() as empty:
        words = [sys.executable, "-c", PEAK, "introspect", name, "check", "--json"]
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"XDG_CACHE_HOME": empty})
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1]) / 1024


def measure(guest: TestGuest, where: Path, rounds: int) -> Row:
    """Return everything that is told of one guest."""
    oracle = guest.dump()
    sessions: list[Introspection] = []
    cold = timed(lambda: sessions.append(Introspection.attach(guest.guest)), rounds)
    kept = Introspection.attach(guest.guest, keep=where).kernel.cached
    cached = timed(lambda: sessions.append(Introspection.attach(guest.guest, keep=where)), rounds)
    session = sessions[0]
    alone = Introspection.attach(guest.guest, use_exports=False)
    ps = timed(session.processes, max(ROUNDS, rounds))
    for _ in range(rounds):
        session.check()
    pauses = [max(pause.seconds for pause in each.pauses) for each in sessions[1:]]
    pauses += [pause.seconds for pause in session.pauses]
    before, seen = guest.ask(), session.processes().processes
    differing = differing_tasks(session, before, guest.ask(), seen)
    facts = [fact for fact in session.kernel.facts if fact.value is not None]
    wrong, wrong_alone = wrong_facts(session, oracle), wrong_facts(alone, oracle)
    symbols, exports = oracle.symbols(), session.kernel.exports.by_name
    told = {name.removeprefix("__ksymtab_") for name in symbols if name.startswith("__ksymtab_")}
    patterns = {p: sum(any(w.pattern == p for w in f.witnesses) for f in facts) for p in ("P1", "P2", "P3", "P4")}
    return {
        "release": oracle.release,
        "levels": session.kernel.space.levels,
        "exports": len(exports),
        "exports_wrong": sum(value not in symbols.get(name, ()) for name, value in exports.items()),
        "exports_missing": len(told - exports.keys()),
        "addresses": sum(fact.kind in ("global", "function") for fact in facts),
        "offsets": sum(fact.kind == "offset" for fact in facts),
        "confirmed": sum(fact.status == "confirmed" for fact in facts),
        "conflicts": sum(fact.status == "conflict" for fact in session.kernel.facts),
        "wrong": [fact.name for fact in wrong] + wrong_calls(session, oracle),
        "unknown": [name for name in WITHOUT_EXPORTS if alone.kernel.facts.value(name) is None],
        "kept": kept,
        "alone": sum(fact.value is not None for fact in alone.kernel.facts),
        "alone_wrong": [fact.name for fact in wrong_alone],
        "alone_processes": len(alone.processes().processes),
        "patterns": patterns,
        "processes": len(session.processes().processes),
        "differing": differing,
        "modules": [module.name for module in session.modules().modules] == before.modules(),
        "path": "switch" if session.kernel.dispatch.switch else "table",
        "findings": [list(finding) for finding in session.check().findings],
        "cold_s": _p95(cold),
        "cold_median_s": statistics.median(cold),
        "cached_s": _p95(cached),
        "ps_ms": 1000 * _p95(ps),
        "pause_ms": 1000 * max(pauses),
        "pause_p95_ms": 1000 * _p95(pauses),
        "memory_mib": peak_memory(guest.machine.name),
        "relative": _relative(session),
    }


def _p95(values: list[float]) -> float:
    """Return the 95th percentile (nearest rank: of ten values the largest)."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def _relative(session: Introspection) -> dict[str, int]:
    """Return the facts without the slide."""
    start = session.kernel.image.start
    return {
        fact.name: fact.value - start if fact.kind in ("global", "function") else fact.value
        for fact in session.kernel.facts
        if fact.value is not None and fact.kind != "per-cpu"
    }


def one(name: str, label: str, where: Path, append: str = "", rounds: int = 1, **settings: object) -> Row:
    """Boot one kernel and measure it; what fails is told in the row."""
    try:
        with running(name, f"{APPEND} {append}".strip(), **settings) as guest:
            if settings.get("processors"):
                guest.run("(while :; do :; done) & (while :; do :; done) & true")
                states = in_user_mode(guest)
                frozen = SavedGuest(name, guest.guest.memory, states)
                if not states or not Introspection.attach(frozen).kernel.exports.by_name:
                    return {"kernel": label, "error": "the processors were never seen in user mode"}
            return {"kernel": label} | measure(guest, where, rounds)
    except (EnisleError, OSError, AssertionError) as error:
        return {"kernel": label, "error": f"{type(error).__name__}: {error}"}


def show(row: Row) -> None:
    """Print one line of the table."""
    if "error" in row:
        print(f"{row['kernel']:34} {str(row['error']).splitlines()[0]}", flush=True)
        return
    bad = [*row["wrong"], *row["alone_wrong"]]  # type: ignore[misc]
    kernel = f"{row['kernel']:34} {row['levels']} {row['exports']:6} ({row['exports_wrong']}/{row['exports_missing']})"
    facts = f"{row['addresses']:4} {row['offsets']:3} ({len(bad)})"
    lists = f"{row['processes']:4} ({len(row['differing'])}) {'=' if row['modules'] else '!'} {row['path']:6}"  # type: ignore[arg-type]
    times = f"{row['cold_s']:5.2f} {row['cached_s']:5.2f} {row['ps_ms']:6.1f}"
    rest = f"{row['pause_p95_ms']:5.0f} {row['pause_ms']:5.0f} {row['memory_mib']:4.0f} {row['patterns']}"
    print(kernel, facts, lists, times, rest, *bad, flush=True)


def failures(row: Row, times: bool) -> list[str]:
    """Return what a row does not keep of what is promised."""
    if "error" in row:
        return [str(row["error"])]
    found = [key for key in ("exports_wrong", "wrong", "alone_wrong", "differing", "findings") if row[key]]
    found += [] if row["modules"] else ["modules"]
    found += ["exports_missing"] if row["exports_missing"] > 0.001 * row["exports"] else []  # type: ignore[operator]
    found += [key for key, least in LEAST.items() if row["exports"] and row[key] < least]  # type: ignore[operator]
    found += ["unknown"] if row["unknown"] else []
    return found + [key for key, most in LIMITS.items() if times and row[key] > most]  # type: ignore[operator]


def boots(name: str, count: int, where: Path) -> list[Row]:
    """Boot one kernel again and again, and once in every variant; facts must lie at the same places of the image, and
    those kept from the first boot must serve all others."""
    kinds = [(f"{name} boot {number + 1}", "", {}) for number in range(count)]
    kinds += [(f"{name}, {label}", append, settings) for label, (append, settings) in VARIANTS.items()]
    rows: list[Row] = []
    for label, append, settings in kinds:
        row = one(name, label, where, append, **settings)
        if rows and "error" not in row:
            differ = row["relative"] != rows[0].get("relative")
            row["wrong"] = [*row["wrong"], *["relative"] * differ, *["kept"] * (not row["kept"])]  # type: ignore[misc]
        rows.append(row)
        show(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="this kernel (may be given often)")
    parser.add_argument("--boots", type=int, default=0, help="boot the first kernel that often instead")
    parser.add_argument("--rounds", type=int, default=1, help="take times so often (1)")
    parser.add_argument("--variants", action="store_true", help="boot the first kernel in all variants instead")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--check", action="store_true", help="fail when a time is over its limit too")
    options = parser.parse_args()
    names = options.only or list(guests.read_manifest())
    rows: list[Row] = []
    print("kernel, levels, exports (wrong/missing), addresses, offsets (wrong), processes (differing), modules,")
    print("dispatch, cold s, cached s, ps ms, pause ms (all p95), longest pause ms, MiB, facts by pattern", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        if options.boots:
            rows = boots(names[0], options.boots, where)
        else:
            for name in [] if options.variants else names:
                rows.append(one(name, name, where, rounds=options.rounds))
                show(rows[-1])
            for label, (append, settings) in VARIANTS.items() if not options.only or options.variants else ():
                rows.append(one(names[0], f"{names[0]}, {label}", where, append, **settings))
                show(rows[-1])
    good = [row for row in rows if "error" not in row]
    if good:
        medians = [float(str(row["cold_median_s"])) for row in good]
        print(f"cold: median {statistics.median(medians):.2f} s")
    failed = {str(row["kernel"]): found for row in rows if (found := failures(row, options.check))}
    for kernel, found in failed.items():
        print(f"NOT KEPT {kernel}: {', '.join(found)}", file=sys.stderr)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
