"""What function blocking costs: `python -m bench.blocking`. Prints figures; times are medians of what this host did.

Page scans and the probe are timed in this process, traps and starts on islands with and without `--cpu x86-64-v2`.
"""

import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from enisle.machine import TierTable, find_value, probe_controls
from enisle.machine.blocking.instructions import OF_FEATURE
from enisle.machine.enforcement.opcodes import CODED, traps_of
from enisle.machine.enforcement.scan import CONTEXT, Scanner
from enisle.machine.enforcement.tiers import MAPS
from enisle.machine.software.opcodes import rules

PAGE = 4096
LEVEL = "x86-64-v2"
ENISLE = [sys.executable, "-m", "enisle", "run"]
PROGRAMS = Path(__file__).parent / "programs"


def text_pages(path: str) -> list[bytes]:
    """Return the pages of the executable segment of an ELF file."""
    content = Path(path).read_bytes()
    (table,) = struct.unpack_from("<Q", content, 32)
    (count,) = struct.unpack_from("<H", content, 56)
    for index in range(count):
        kind, flags, offset, _, _, size = struct.unpack_from("<IIQQQQ", content, table + 56 * index)
        if kind == 1 and flags & 1:
            first, end = offset & -PAGE, offset + size
            return [content[at : at + PAGE].ljust(PAGE, b"\0") for at in range(first, end, PAGE)]
    return []


def scanner() -> Scanner:
    """Return what looks at pages under the level, where nothing is kept by hardware."""
    value = find_value(LEVEL)
    return Scanner(traps_of([k for k in value.trapped() if k in CODED], [f for f in value.actions if f in OF_FEATURE]))


def scan(paths: list[str]) -> None:
    pages = [page for path in paths for page in text_pages(path)]
    looking = scanner()
    for encoding, maps in MAPS.items():  # an island parses its tables before it starts
        for number in maps:
            rules(encoding, number)
    begun = time.perf_counter()
    found = [looking.matches(page) for page in pages]
    searched = time.perf_counter() - begun
    before = b""
    begun = time.perf_counter()
    stepped = 0
    for page in pages:
        look = looking.look(page, before)
        stepped += look is not None and look.patched is None
        before = page[-CONTEXT:]
    cold = time.perf_counter() - begun
    begun = time.perf_counter()
    for page in pages:
        looking.look(page)
    known = time.perf_counter() - begun
    print(f"pages                 {len(pages)}, of which {sum(map(bool, found))} with a trap, {stepped} to be stepped")
    print(f"search                {searched / len(pages) * 1e6:.1f} us a page")
    print(f"look, cold            {cold / len(pages) * 1e6:.1f} us a page, {cold * 1e3:.1f} ms in all")
    print(f"look, known           {known / len(pages) * 1e6:.1f} us a page")


def median(rounds: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(rounds))


def wall(words: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([*ENISLE, *words], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1e3


def islands() -> None:
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "blocked_cpuid"
        subprocess.run(["gcc", "-O2", "-o", program, PROGRAMS / "blocked_cpuid.c"], check=True)
        for label, options in (("unblocked", []), (LEVEL, ["--cpu", LEVEL])):
            words = [*options, "--mount", f"{place}:{place}", "--", str(program)]
            done = subprocess.run([*ENISLE, *words], check=True, capture_output=True, text=True)
            cpuid, counter = done.stdout.split()
            start = median(5, lambda options=options: wall([*options, "--", "/bin/true"]))
            print(f"{label:<21} CPUID {cpuid} us, RDTSC {counter} us, start of /bin/true {start:.0f} ms")


DUTIES = {"90 %": (10_000, 3_800), "10 %": (1_000, 30_600), "1 %": (1_000, 337_000), "0.1 %": (1_000, 3_400_000)}
"""Share of its time in which a program has YMM registers in use: iterations with and without (3.4 times quicker)."""


def duties(rounds: int) -> None:
    """Print how soon the use of vector state that is hidden is seen, by the share of time it is there."""
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "blocked_avx"
        subprocess.run(["gcc", "-O2", "-o", program, PROGRAMS / "blocked_avx.c"], check=True)
        for label, (use, rest) in DUTIES.items():
            words = ["--cpu", LEVEL, "--mount", f"{place}:{place}", "--", str(program), str(use), str(rest), "4"]
            tries = (subprocess.run([*ENISLE, *words], capture_output=True, text=True) for _ in range(rounds))
            found = sorted(float(done.stdout) for done in tries)
            seen = [value for value in found if value >= 0]
            within = sum(value <= 10 for value in seen)
            middle = f"median {statistics.median(seen):.1f} ms, longest {seen[-1]:.1f}" if seen else "never"
            print(f"AVX for {label:<6} {middle}; {within} of {rounds} within 10 ms, {rounds - len(seen)} not in 4 s")


def tiers() -> None:
    begun = time.perf_counter()
    matrix = probe_controls("kvm", cached=False)
    print(f"probe                 {(time.perf_counter() - begun) * 1e3:.0f} ms, once per boot")
    rows = TierTable(matrix, find_value(LEVEL)).rows.values()
    print("\n".join(f"  {row.instruction:<12} {row.tier.name:<9} {row.way}" for row in rows))


if __name__ == "__main__":
    named = sys.argv[1:] or ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
    scan(named)
    islands()
    duties(12)
    tiers()
