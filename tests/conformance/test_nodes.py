"""Islands with nodes: real programs in every mode of page tables, and what a program sees of its nodes.

A selection of modes and programs; `make soak` (ENISLE_SOAK=1) runs each program in each mode.
"""

import os
import subprocess
from itertools import product
from pathlib import Path

import pytest

from conformance.harness import ENISLE, PYTHON, Outcome, Runner, Setting
from enisle.errors import InvalidRequest
from enisle.island import Island

PROGRAMS = Path(__file__).parent / "programs"
MODES = {
    "off": ["--page-tables", "off"],
    "eager": ["--page-tables", "eager"],
    "lazy": ["--page-tables", "lazy"],
    "auto": ["--page-tables", "auto"],
    "migrate": ["--page-tables", "migrate"],
    "eager on one of two": ["--page-tables", "eager:1"],
    "machine per node": ["--page-tables", "eager", "--vm-per-node"],
    "lazy, machine per node": ["--page-tables", "lazy", "--vm-per-node"],
    "eager, verified": ["--page-tables", "eager", "--verify-page-tables"],
    "lazy, verified": ["--page-tables", "lazy", "--verify-page-tables"],
}
PYTHONS = ["threads", "multiprocessing fork", "multiprocessing spawn", "subprocess", "mmap", "signals", "asyncio"]
SELECTED = [
    ("eager", "threads"),
    ("lazy", "threads"),
    ("lazy", "mmap"),
    ("auto", "subprocess"),
    ("migrate", "multiprocessing fork"),
    ("machine per node", "threads"),
    ("eager, verified", "threads"),
    ("lazy, verified", "subprocess"),
    ("eager", "gcc"),
    ("lazy", "gcc"),
]
WHOLE = bool(os.environ.get("ENISLE_SOAK"))
GCC = """set -e
printf '#include <stdio.h>\\n#include <pthread.h>\\nstatic void *f(void *x) { long *n = x; for (int i = 0; i < 100000; i++) ++*n; return x; }\\n
int main(void) { pthread_t t[4]; long n[4] = {0}; for (int i = 0; i < 4; i++) pthread_create(t + i, 0, f, n + i);
for (int i = 0; i < 4; i++) pthread_join(t[i], 0); printf("%%ld\\\\n", n[0] + n[1] + n[2] + n[3]); return 0; }\\n' > hello.c
gcc -O1 -Wall -pthread -o hello hello.c && ./hello
"""


@pytest.fixture(scope="session")
def on_kvm(scratch: Path, native_outcomes: dict[object, Outcome]) -> Runner:
    """Run natively and on an island on KVM: that both doors give the same answers is told elsewhere."""
    return Runner(Setting("kvm", exitless=True), scratch, native_outcomes)


@pytest.mark.kvm
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("mode", "program"), [*product(MODES, [*PYTHONS, "gcc"])] if WHOLE else SELECTED)
def test_programs_behave_as_on_linux_in_every_mode(mode: str, program: str, on_kvm: Runner) -> None:
    options = ["--nodes", "2", *MODES[mode]]
    if program == "gcc":
        island = on_kvm(["sh", "-c", GCC], options=options, timeout=100)
    else:
        stem, *arguments = program.split()
        text = (PROGRAMS / f"py_{stem}.py").read_bytes()
        command = [PYTHON, "-B", "program.py", *arguments]
        island = on_kvm(command, files={"program.py": text}, options=options, timeout=190)
    assert island.status == 0, island.stderr.decode()


@pytest.mark.emulated(alone=True)
def test_threads_on_emulated_nodes(run_both: Runner) -> None:
    text = (PROGRAMS / "py_mmap.py").read_bytes()
    options = ["--nodes", "2", "--page-tables", "lazy"]
    run_both([PYTHON, "-S", "-B", "program.py"], files={"program.py": text}, options=options, timeout=110)


SEEN = """/has_cpu 0-3
/has_memory 0-3
/has_normal_memory 0-3
/node3/cpulist 3
/node3/cpumap 00000008
/node3/distance 20 20 20 10
/online 0-3
/possible 0-3
links True True
threads [(0, 0), (1, 1), (2, 2), (3, 3)]
affinity 2 (2, 2)
affinity 0 (0, 0)
affinity 3 (3, 3)
default (0, 0) allowed (0, 15)
bind 0 (2, 6)
interleave 0 (3, 9) (0, 9)
preferred 0 (1, 4)
wrong EINVAL EINVAL EINVAL
wrong EINVAL EINVAL EINVAL
again 0 (0, 0)
first touch [0, 0, 0]
moved 3 2 [3, 2, 0] ENODEV
bound 0 [1, 1, 1, 1, 1, 1, 1, 1, 0]
policy there (2, 2) (1, 2)
turns 0
balanced [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
contents True
migrated 0 {3}
contents True
before touch 0
touched [2] [2]
nowhere [-14] -14
child 201 0
"""


def run(*options: str, command: list[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    words = [ENISLE, "run", *options, "--", *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.kvm
@pytest.mark.parametrize("mode", ["lazy", "machine per node"])
def test_a_program_sees_its_nodes(mode: str) -> None:
    options = ["--nodes", "4", *MODES[mode], "--mount", f"{PROGRAMS}:/programs"]
    told = run(*options, command=[str(PYTHON), "-S", "/programs/py_nodes.py"])
    assert told.stdout == SEEN, told.stderr


@pytest.mark.kvm
def test_one_node_answers_as_a_linux_without_numa() -> None:
    program = (
        "import ctypes, errno, os; libc = ctypes.CDLL(None, use_errno=True)\n"
        "for number in (237, 238, 239, 256, 279): print(libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno())\n"
        "print(os.path.exists('/sys/devices/system/node'))"
    )
    told = run(command=[str(PYTHON), "-S", "-c", program])
    assert told.stdout == "-1 38\n" * 5 + "False\n", told.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--nodes", "0"],
        ["--nodes", "65"],
        ["--nodes", "4", "--page-tables", "eager:"],
        ["--nodes", "4", "--page-tables", "eager:4"],
        ["--nodes", "4", "--page-tables", "eager:x"],
        ["--nodes", "4", "--page-tables", "eager:2-1"],
        ["--nodes", "4", "--page-tables", "sometimes"],
        ["--vm-per-node"],
        ["--verify-page-tables"],
        ["--nodes", "2", "--vm-per-node", "--processor", "emulated"],
    ],
    ids=" ".join,
)
def test_senseless_nodes_are_refused_with_a_hint(words: list[str]) -> None:
    told = run(*words, command=["true"])
    assert told.returncode == 2
    assert "hint: " in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.kvm
@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_the_largest_number_of_nodes_on_the_smallest_memory(mode: str) -> None:
    told = run("--nodes", "64", "--memory", "24M", "--page-tables", mode, command=["/bin/echo", "here"])
    assert told.stdout == "here\n", told.stderr


@pytest.mark.kvm
@pytest.mark.timeout(100)
def test_the_mode_changes_while_programs_run() -> None:
    program = (
        "import threading, hashlib\n"
        "blocks = [bytearray(1 << 20) for _ in range(4)]\n"
        "def work(block, seed):\n"
        "    for turn in range(500):\n"
        "        for at in range(0, len(block), 4096): block[at] = (block[at] * 31 + seed + turn) & 255\n"
        "threads = [threading.Thread(target=work, args=pair) for pair in zip(blocks, range(4))]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(hashlib.sha256(b''.join(blocks)).hexdigest())"
    )
    native = subprocess.run([PYTHON, "-S", "-c", program], capture_output=True, text=True, check=True).stdout
    words = [str(PYTHON), "-S", "-c", program]
    with Island(nodes=4, page_tables="off") as island, island.start(words) as command:
        modes = ["eager", "lazy:0,2", "off", "migrate", "auto", "eager:1-2"]
        for turn in range(30):
            island.set_page_tables(modes[turn % len(modes)])
        result = command.collect(60)
        assert result.stdout.decode() == native, result.stderr
        island.set_page_tables("off")
        statistics = island.statistics()["replication"]
        assert statistics["mode"] == "off"
        assert statistics["toggles"] > 0
        with pytest.raises(InvalidRequest):
            island.set_page_tables("eager:9")
    with Island() as island, pytest.raises(InvalidRequest, match="one node"):
        island.set_page_tables("eager")
