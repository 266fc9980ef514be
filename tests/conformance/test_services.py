"""Futexes, clocks, timers, identity, limits and scheduling: C programs that print what Linux answers, part by part."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner

QUIET = ["-Wno-unused-result", "-Wno-stringop-overflow", "-Wno-stringop-overread"]
Compile = Callable[..., Path]


@pytest.mark.emulated
def test_futexes_wake_as_on_linux(compile_c: Compile, run_both: Runner) -> None:
    run_both([compile_c("services_futex", *QUIET)], timeout=60)


@pytest.mark.emulated
@pytest.mark.parametrize("part", ["clocks", "sleeps", "interval", "posix", "files", "usage"])
def test_time_passes_as_on_linux(part: str, compile_c: Compile, run_both: Runner) -> None:
    run_both([compile_c("services_time", *QUIET), part], timeout=60)


@pytest.mark.root
@pytest.mark.emulated
@pytest.mark.parametrize("part", ["users", "exec", "limits", "asks", "scheduling", "refused"])
def test_identity_and_limits_follow_the_rules_of_linux(part: str, compile_c: Compile, run_both: Runner) -> None:
    run_both([compile_c("services_identity", *QUIET), part], timeout=60)
