"""CPython of this host: threads, processes, asyncio, signals, mmap, sqlite3, the standard library, a virtual environment."""

from pathlib import Path

import pytest

from conformance.harness import PYTHON, Runner

PROGRAMS = Path(__file__).parent / "programs"
ISOLATED = ["-I", "-B"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "name",
    [
        "threads",
        "subprocess",
        "multiprocessing fork",
        "multiprocessing spawn",
        "asyncio",
        "signals",
        "mmap",
        "sqlite",
        "library",
    ],
)
def test_python_behaves_as_on_linux(name: str, run_both: Runner) -> None:
    stem, *arguments = name.split()
    program = (PROGRAMS / f"py_{stem}.py").read_bytes()
    island = run_both([PYTHON, "-B", "program.py", *arguments], files={"program.py": program}, timeout=190)
    assert island.status == 0, island.stderr.decode()


@pytest.mark.emulated(alone=True)
@pytest.mark.parametrize("name", ["mmap", "threads"])
def test_python_behaves_as_on_linux_on_the_emulated_processor(name: str, run_both: Runner) -> None:
    program = (PROGRAMS / f"py_{name}.py").read_bytes()
    run_both([PYTHON, "-S", "-B", "program.py"], files={"program.py": program}, timeout=110)


SHORT = {
    "nothing": "pass",
    "an exit status": "raise SystemExit(7)",
    "an exception": "1 / 0",
    "imports": "import json, re, socket, threading, decimal, http.client, email, unittest, ctypes, sqlite3, ssl, asyncio; print(len(json.dumps([1])))",
    "computation": "print(sum(i * i % 7 for i in range(200000)), 3 ** 2000 % 1009, sorted(map(hash, range(9))))",
    "the environment": "import os, sys; print(sorted(os.environ), sys.argv, sys.flags.isolated, os.getcwd().endswith('work'), sys.stdin.read())",
    "a death by signal": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "a closed descriptor": "import os; os.close(1); os.open('f', os.O_CREAT | os.O_WRONLY); print('into the file'); import sys; sys.stdout.flush(); os.write(2, open('f', 'rb').read())",
}


@pytest.mark.emulated
@pytest.mark.parametrize("title", SHORT)
def test_a_short_python_program_behaves_as_on_linux(title: str, run_both: Runner) -> None:
    run_both([PYTHON, *ISOLATED, "-c", SHORT[title]], stdin=b"from stdin", compare_stderr=title != "a death by signal")


@pytest.mark.timeout(200)
def test_a_virtual_environment_is_made_and_used(run_both: Runner) -> None:
    check = "import sys, sysconfig; print(sys.prefix != sys.base_prefix, sysconfig.get_path('scripts').endswith('venv/bin'))"
    script = f'set -e; "$PY" -m venv --without-pip venv; venv/bin/python -c "{check}"; ls venv venv/bin | sort; . venv/bin/activate; which python | grep -c venv'
    run_both(["bash", "-c", script], env={"PY": str(PYTHON)}, timeout=190)


def test_the_bytecode_cache_is_written_and_read(run_both: Runner) -> None:
    files = {"pack/__init__.py": "from pack.one import x\n", "pack/one.py": "x = 41\n"}
    script = "import sys, pack; print(pack.x + 1); import os; print(sorted(os.listdir('pack/__pycache__')))"
    run_both(
        ["bash", "-c", f'"$PY" -c "{script}"; "$PY" -v -c "import pack" 2>&1 | grep -c "matches.*pack"'],
        files=files,
        env={"PY": str(PYTHON)},
    )
