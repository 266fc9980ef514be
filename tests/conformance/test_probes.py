"""Small C programs that say, line by line, what Linux answers; an island must answer the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner

PROBES = ["efault", "memory", "signals", "pipes", "files", "processes", "threads", "sockets"]
QUIET = ["-Wno-unused-result", "-Wno-stringop-overread"]


@pytest.mark.emulated
@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", PROBES)
def test_the_kernel_answers_as_linux(name: str, compile_c: Callable[..., Path], run_both: Runner) -> None:
    run_both([compile_c(f"probe_{name}", *QUIET)], timeout=60)


def test_faults_are_told_as_linux_tells_them(compile_c: Callable[..., Path], run_both: Runner) -> None:
    """Not on the emulated processor, which knows no misaligned MOVAPS and tells a bus error a block late (decision 007)."""
    run_both([compile_c("probe_faults", *QUIET)], timeout=60)
