"""Signals on an island against Linux: the frame under a handler, who gets what, every way to wait for one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner


@pytest.mark.parametrize("name", ["frames", "sending", "storm"])
def test_signals_are_as_on_linux(name: str, compile_c: Callable[..., Path], run_both: Runner) -> None:
    run_both([compile_c(f"signal_{name}", "-Wno-unused-result")], timeout=60)
