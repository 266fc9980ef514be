"""System calls under a blocking value, on both doors and both processors: refused as told, neighbours untouched.

Without a value the same program is served in full, as on Linux; its output there says which lines must change.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import ENISLE, Setting, run

pytestmark = pytest.mark.emulated
TEMPLATE = """
[syscalls]
ENOSYS = ["getuid"]
SIGSYS = ["getpgrp"]
exception = ["getegid"]
[syscalls.prctl]
EPERM = ["PR_SET_NAME"]
[syscalls.fcntl]
ENOSYS = ["F_GETFL"]
[syscalls.ioctl]
EPERM = [0x5412]
[syscalls.socket]
EPERM = ["AF_INET6"]
[syscalls.clone3]
ENOSYS = ["CLONE_NEWUSER"]
"""
REFUSED = {
    "getuid": "getuid ENOSYS",
    "getgid": "getgid served",
    "prctl name": "prctl name EPERM",
    "prctl dumpable": "prctl dumpable served",
    "fcntl getfl": "fcntl getfl ENOSYS",
    "fcntl getfd": "fcntl getfd served",
    "ioctl": "ioctl EPERM",
    "ioctl garbage": "ioctl garbage EPERM",
    "number garbage": "number garbage ENOSYS",
    "socket": "socket EPERM served",
    "clone3": "clone3 ENOSYS",
    "fork": "fork 3",
    "sigsys": "sigsys -77 code 1 number 1 arch c000003e rip 0 rax 1",
    "exception": "exception vector 6 rip 0 rax 1",
}


def island(setting: Setting, program: Path, *options: str) -> tuple[list[str], dict[str, int]]:
    """Return the lines of the program and the island's statistics."""
    mount = ["--mount", f"{program.parent}:{program.parent}", "--cwd", "/"]
    command = [ENISLE, "run", *setting.options(), "--json", *mount, *options, "--", program]
    outcome = run(command, b"", program.parent, {}, 100)
    record = json.loads(outcome.stdout)
    assert record["exit_code"] == 0, record
    return record["stdout"].splitlines(), record["statistics"]


def test_blocked_functions_are_refused_and_their_neighbours_served(
    setting: Setting, compile_c: Callable[..., Path], tmp_path: Path
) -> None:
    program = compile_c("filtered", "-static")
    template = tmp_path / "calls.toml"
    template.write_text(TEMPLATE)
    lines, statistics = island(setting, program, "--cpu", str(template))
    assert lines == list(REFUSED.values())
    if setting.exitless and setting.processor == "kvm":
        assert statistics["syscalls_without_exit"] > 0


def test_without_a_value_every_one_is_served(setting: Setting, compile_c: Callable[..., Path]) -> None:
    lines, _ = island(setting, compile_c("filtered", "-static"))
    assert lines[:2] == ["getuid served", "getgid served"]
    assert lines[2:6] == ["prctl name served", "prctl dumpable served", "fcntl getfl served", "fcntl getfd served"]
    assert lines[9] == "socket served served"
    assert re.fullmatch(r"sigsys \d+ code 0 number 0 arch 0 rip 0 rax 0", lines[12])
    assert len(lines) == 13, "no exception"


def test_what_is_not_named_is_refused_by_default(setting: Setting, tmp_path: Path) -> None:
    """A program that needs nothing but to write and to end runs under a list of what is allowed."""
    needed = (
        '"write", "exit_group", "execve", "brk", "mmap", "munmap", "mprotect", "arch_prctl", "set_tid_address", "rseq",'
        ' "set_robust_list", "prlimit64", "readlinkat", "readlink", "getrandom", "newfstatat", "openat", "read", "close",'
        ' "pread64", "fstat", "access"'
    )
    template = tmp_path / "few.toml"
    template.write_text(f'[syscalls]\ndefault = "EPERM"\nallow = [{needed}]\n')
    words = [ENISLE, "run", *setting.options(), "--cpu", str(template), "--cwd", "/", "--", "/bin/sh", "-c"]
    assert run([*words, "echo few"], b"", tmp_path, {}, 100).stdout == b"few\n"
    assert run([*words, "(echo child)"], b"", tmp_path, {}, 100).stdout == b"", "fork is not among them"
