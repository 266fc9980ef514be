"""Sockets, readiness and /proc on an island against Linux, in both directions of every call."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner

QUIET = ["-Wno-unused-result", "-Wno-missing-field-initializers", "-Wno-stringop-overflow"]
PROGRAMS = ["sockets_names", "sockets_messages", "readiness", "proc_files"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_answers_are_as_on_linux(name: str, compile_c: Callable[..., Path], run_both: Runner) -> None:
    run_both([compile_c(name, *QUIET)], timeout=60)
