"""Programs that mean harm: whatever they call, execute or hoard, the island stays well, and the host too.

Not compared with the host's own run, which they would harm. Each program says at its end that it is alive: its fork,
pipe and memory still work. `python -m bench.soak` runs the walker with many more seeds.
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.conftest import KVM, KVM_EXIT_DOOR
from conformance.harness import ENISLE, Setting

QUIET = ["-Wno-unused-result", "-fno-stack-protector"]
BOTH_DOORS = [
    pytest.param(KVM, id="kvm", marks=pytest.mark.kvm),
    pytest.param(KVM_EXIT_DOOR, id="kvm-exit-door", marks=pytest.mark.kvm),
]
pytestmark = pytest.mark.root

Compiler = Callable[..., Path]


def run_hostile(program: Path, *words: str, door: Setting = KVM, limits: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run a program on a small island; return its exit code and output."""
    places = ["--mount", f"{program.parent}:{program.parent}", "--cwd", "/tmp"]
    small = ["--memory", "128M", "--processes", "200", "--timeout", "60"]
    command = [ENISLE, "run", "--debug", *door.options(), *places, *small, *limits, "--", program, *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=90
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("door", BOTH_DOORS)
def test_wild_arguments_to_every_system_call_harm_only_the_caller(door: Setting, compile_c: Compiler) -> None:
    code, output, errors = run_hostile(compile_c("hostile_calls", *QUIET), "1", "15", door=door)
    assert (code, output) == (0, "alive and well\n"), errors[-2000:]


@pytest.mark.kvm
def test_damaged_programs_are_refused_or_die_alone(compile_c: Compiler) -> None:
    code, output, errors = run_hostile(compile_c("hostile_elfs", *QUIET), "1", "120")
    assert code == 0, errors[-2000:]
    assert output.splitlines() == [
        "recursive script: ELOOP",
        "script without interpreter: ENOEXEC",
        "missing interpreter: ENOENT",
        "a.out: ENOEXEC",
        "empty: ENOEXEC",
        "garbage as interpreter: ENOEXEC",
        "alive",
    ]


KILLED = "killed: KILL"
BOMBS = {
    "malloc": KILLED,
    "private": KILLED,
    "shared": KILLED,
    "copies": "mmap: ENOMEM",
    "copies-later": "",
    "tables": KILLED,
    "memfd": "write: ENOSPC",
    "sealable": "write: ENOSPC",
    "sealables": "ftruncate: ENOSPC",
    "tmpfs": "write: ENOSPC",
    "inodes": "open: ENOSPC",
    "pipes": "pipe: EMFILE",
    "sockets": "socketpair: ENFILE",
    "mappings": "mmap: ENOMEM",
    "threads": "",
    "forks": "fork: EAGAIN",
    "zombies": "fork: EAGAIN",
    "proc": "grow: EINVAL",
    "timers": "timer_create: EAGAIN",
    "descriptors": "open: EMFILE",
    "all-descriptors": "open: EMFILE",
    "numbers": "syscall: ENOSYS",
}
"""What each bomb comes to; "" where it depends on which of two limits is met first."""


@pytest.mark.kvm
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_meets_a_limit_and_the_others_go_on(kind: str, compile_c: Compiler) -> None:
    code, output, errors = run_hostile(compile_c("hostile_bombs", *QUIET), kind)
    *before, last = output.splitlines()
    assert (code, last) == (0, "alive"), (output, errors[-2000:])
    if BOMBS[kind]:
        assert before == [BOMBS[kind]]
    if before == [KILLED]:
        assert errors.startswith("enisle: note: out of memory: killed process ")


@pytest.mark.kvm
def test_all_memory_a_program_may_take_is_bounded_together(compile_c: Compiler, tmp_path: Path) -> None:
    """The island process's own peak stays near its limit, whatever was tried."""
    program = compile_c("hostile_bombs", *QUIET)
    script = "; ".join(f"{program} {kind}" for kind in ("malloc", "shared", "sealables", "copies", "tmpfs", "tables"))
    places = ["--mount", f"{program.parent}:{program.parent}", "--memory", "128M"]
    command = [ENISLE, "run", *places, "--", "sh", "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        highest = 0
        while process.poll() is None:
            highest = max(highest, resident_mib(process.pid))
            time.sleep(0.01)
        assert process.stdout.read().count("alive") == 6
    assert highest < 128 + 100


def resident_mib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) >> 10


WAITS = "loop read write futex sleep poll epoll wait4 exec vfork accept flock fifo signal stop threads calls faults"


@pytest.mark.kvm
def test_nothing_outlives_its_time_wherever_it_waits(compile_c: Compiler) -> None:
    program = compile_c("hostile_waits", *QUIET)
    late: list[str] = []
    for kind in WAITS.split():
        begin = time.monotonic()
        code, output, _ = run_hostile(program, kind, limits=("--timeout", "0.4"))
        seconds = time.monotonic() - begin
        if code != 124 or not output.startswith("ready") or seconds > 5:
            late.append(f"{kind}: exit code {code} after {seconds:.1f} s, {output!r}")
    assert not late
