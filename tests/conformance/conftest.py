"""Every conformance test runs once for each setting: the exit-less door open, closed, and the emulated processor.

A test takes the fixture `run_both`. On the emulated processor, tens of times slower, only tests marked `emulated` run.
`emulated(alone=True)` picks a few cases of a test that runs all of them on KVM.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.harness import Outcome, Runner, Setting, SharedRuns

PROGRAMS = Path(__file__).parent / "programs"

KVM = Setting("kvm", exitless=True)
KVM_EXIT_DOOR = Setting("kvm", exitless=False)
EMULATED = Setting("emulated", exitless=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "setting" not in metafunc.fixturenames:
        return
    settings = [
        pytest.param(KVM, id="kvm", marks=pytest.mark.kvm),
        pytest.param(KVM_EXIT_DOOR, id="kvm-exit-door", marks=pytest.mark.kvm),
    ]
    mark = metafunc.definition.get_closest_marker("emulated")
    if mark:
        settings = [*([] if mark.kwargs.get("alone") else settings), pytest.param(EMULATED, id="emulated")]
    metafunc.parametrize("setting", settings, scope="session")


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of the session whose `bin` holds what the tests compile."""
    path = tmp_path_factory.mktemp("conformance")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def native_outcomes() -> dict[object, Outcome]:
    """What the host answered, kept for all settings."""
    return {}


@pytest.fixture(scope="session")
def run_both(setting: Setting, scratch: Path, native_outcomes: dict[object, Outcome]) -> Runner:
    """Run a command natively and on an island of `setting`, and compare; see `Runner`."""
    return Runner(setting, scratch, native_outcomes)


@pytest.fixture(scope="session")
def shared(run_both: Runner) -> SharedRuns:
    """Scripts whose sections are separate tests but share an island; see `SharedRuns`."""
    return SharedRuns(run_both, {})


@pytest.fixture(scope="session")
def compile_c(scratch: Path) -> Callable[..., Path]:
    """Compile `programs/NAME.c` on the host, once a session, and return the program."""

    def build(name: str, *flags: str) -> Path:
        target = scratch / "bin" / "-".join([name, *(flag.strip("-") for flag in flags)])
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            command = ["gcc", "-O1", "-g0", "-Wall", "-Wextra", "-pthread", "-D_GNU_SOURCE", *flags]
            subprocess.run([*command, "-o", target, PROGRAMS / f"{name}.c", "-lm"], check=True)
        return target

    return build
