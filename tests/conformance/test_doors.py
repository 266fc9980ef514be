"""System calls through both doors: what is true of one is true of the other, and a forged slot harms its forger alone."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import ENISLE, Runner


@pytest.mark.emulated
def test_hot_calls_give_right_answers_while_signals_arrive(run_both: Runner, compile_c: Callable[..., Path]) -> None:
    run_both([compile_c("door_hot")])


def island(*arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([ENISLE, "run", *map(str, arguments)], capture_output=True, timeout=timeout, check=False)


@pytest.mark.kvm
def test_forged_slots_leave_the_island_alive(compile_c: Callable[..., Path]) -> None:
    program = compile_c("door_forge")
    told = island(
        "--mount", f"{program.parent}:/bin2", "--timeout", 30, "--", "sh", "-c",
        f"/bin2/{program.name}; /bin2/{program.name} & /bin2/{program.name}; wait; echo survived; ls /bin2 | wc -l",
    )  # fmt: skip
    assert told.stdout.startswith(b"survived\n"), told.stderr.decode()
    assert told.returncode == 0


@pytest.mark.kvm
def test_a_hot_caller_is_killed_on_time() -> None:
    loop = "import os\nwhile True: os.getppid()"
    told = island("--timeout", 1, "--", "python3", "-c", loop, timeout=20)
    assert told.returncode == 124


@pytest.mark.kvm
def test_one_core_is_never_shared_with_a_poller(compile_c: Callable[..., Path]) -> None:
    program = compile_c("door_hot")
    command = ["taskset", "-c", "0", ENISLE, "run", "--mount", f"{program.parent}:/bin2", "--", f"/bin2/{program.name}"]
    told = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert b"wrong answers: 0\nticks arrived: yes\nhandled late: 0\n" in told.stdout, told.stderr.decode()
