"""Small C programs that say, line by line, what Linux answers; an island must answer the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner

PROBES = ["efault", "faults", "memory", "signals", "pipes", "files", "processes", "threads", "sockets"]
QUIET = ["-Wno-unused-result", "-Wno-stringop-overread"]


@pytest.mark.emulated
@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", PROBES)
def test_the_kernel_answers_as_linux(name: str, compile_c: Callable[..., Path], run_both: Runner) -> None:
    run_both([compile_c(f"probe_{name}", *QUIET)], timeout=60)
