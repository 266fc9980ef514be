"""What is measured, in which unit, and what is promised about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.memory import private_memory
from bench.sides import Side, python

LOOP = (
    "import time; s = time.perf_counter(); a = 0\n"
    "for i in range(2500000):\n    a = (a * 31 + i) % 1000003\n"
    "print(time.perf_counter() - s)"
)


@dataclass(frozen=True, slots=True)
class Promise:
    """`side` takes at most `ratio` times what `against` takes in the same run."""

    side: str
    against: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity; `measure` returns it in `unit` (seconds and bytes are scaled to it)."""

    name: str
    unit: str
    measure: Callable[[Side], float]
    promises: tuple[Promise, ...] = ()
    most: Mapping[str, float] | None = None
    without: frozenset[str] = frozenset()


def printed(argv: list[str], scale: float) -> Callable[[Side], float]:
    """Measure by the first number the program prints, times `scale`."""
    return lambda side: float(side.run(argv)[0].split()[0]) * scale


def wall(argv: list[str]) -> Callable[[Side], float]:
    """Measure by the wall time of the whole command, in milliseconds."""
    return lambda side: side.run(argv)[1] * 1e3


COMPUTATION = (Promise("enisle", "native", 1 / 0.95), Promise("exit door", "native", 1 / 0.95))
CALL = (Promise("enisle", "runsc", 0.3), Promise("exit door", "runsc", 2.5))
TRANSFER = (Promise("enisle", "runsc", 0.6), Promise("exit door", "runsc", 2.5))


def figures(programs: Path) -> list[Figure]:
    """Return every figure, in the order of the table."""
    compute, calls, memory = (str(programs / name) for name in ("compute", "calls", "memory"))
    kernels = {
        "integer": "C integer",
        "float": "C floating point",
        "avx2": "C AVX2 matrix product",
        "memory": "C memory-bound",
    }
    return [
        Figure("CPython loop", "ms", printed([python(), "-I", "-c", LOOP], 1e3), COMPUTATION),
        *(Figure(title, "ms", printed([compute, name], 1e3), COMPUTATION) for name, title in kernels.items()),
        Figure("/bin/true, wall", "ms", wall(["/bin/true"]), (Promise("enisle", "runsc", 0.8),)),
        Figure("python3 -c pass, wall", "ms", wall([python(), "-c", "pass"]), (Promise("enisle", "runsc", 1.0),)),
        Figure("getppid", "µs", printed([calls, "getppid"], 1e6), CALL),
        Figure("4 KiB file read", "µs", printed([calls, "file-read"], 1e6), TRANSFER),
        Figure("4 KiB file write", "µs", printed([calls, "file-write"], 1e6), TRANSFER),
        Figure("4 KiB pipe write and read", "µs", printed([calls, "pipe"], 1e6), TRANSFER),
        Figure("clock_gettime", "µs", printed([calls, "time"], 1e6), (), {"enisle": 1.0}),
        Figure("gettimeofday", "µs", printed([calls, "gettimeofday"], 1e6), (), {"enisle": 1.0}),
        Figure(
            "touch a fresh page (of 256 MiB)",
            "µs",
            printed([memory, "touch"], 1e6),
            (Promise("enisle", "native", 0.5),),
        ),
        Figure("fork, exit, wait (50 MiB)", "ms", printed([memory, "fork"], 1e3)),
        Figure("posix_spawn true (50 MiB)", "ms", printed([memory, "exec"], 1e3)),
        Figure("idle private memory", "MiB", private_memory, (), {"enisle": 40.0}, frozenset({"native"})),
    ]
