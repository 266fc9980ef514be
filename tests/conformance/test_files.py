"""Programs about files and locks say, line by line, what Linux answers; an island must answer the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner


@pytest.mark.parametrize("name", ["file_calls", "file_locks"])
def test_files_answer_as_on_linux(name: str, compile_c: Callable[..., Path], run_both: Runner) -> None:
    run_both([compile_c(name, "-w")], timeout=60)
