"""Run a command on Linux first, then on an island, and compare what came out.

Both runs get the same argument vector, standard input, environment, working directory (same path, fresh copy of the same files) and
umask. Exit statuses are compared as a shell would see them: 128 + signal for a death by signal.
"""

import difflib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ENISLE = Path(sysconfig.get_path("scripts")) / "enisle"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/tmp", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "TERM": "dumb"}

Argument = str | bytes | Path


@dataclass(frozen=True, slots=True)
class Setting:
    """What an island runs on."""

    processor: str
    exitless: bool

    def options(self) -> list[str]:
        return ["--processor", self.processor, *([] if self.exitless else ["--exitless", "off"])]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind. `status` is what a shell would show."""

    status: int
    stdout: bytes
    stderr: bytes


@dataclass(slots=True)
class Runner:
    """Runs commands on both sides; keeps the native outcomes, which are the same for every setting."""

    setting: Setting
    scratch: Path
    native: dict[object, Outcome]

    def __call__(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes = b"",
        files: Mapping[str, bytes | str] | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        compare_stderr: bool = False,
        timeout: float = 100,
    ) -> Outcome:
        """Run `argv` natively and on an island; fail the test when they differ, else return the island's outcome.

        `files` maps paths beneath the working directory to contents; a file that starts with `#!` is executable.
        """
        native, island = self.outcomes(
            argv, stdin=stdin, files=files or {}, env=env or {}, options=options, timeout=timeout
        )
        difference = compare(native, island, compare_stderr)
        if difference:
            pytest.fail(f"{' '.join(map(str, argv))[:200]}\n{difference}", pytrace=False)
        return island

    def outcomes(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes,
        files: Mapping[str, bytes | str],
        env: Mapping[str, str],
        options: Sequence[str] = (),
        timeout: float = 100,
    ) -> tuple[Outcome, Outcome]:
        """Return both outcomes without comparing them."""
        key = (tuple(map(str, argv)), stdin, tuple(sorted(files.items())), tuple(sorted(env.items())))
        environment = ENVIRONMENT | env
        work = self.scratch / "work"
        if key not in self.native:
            fresh(work, files)
            native = run(argv, stdin, work, environment, timeout)
            self.native[key] = native
        fresh(work, files)
        variables = [word for item in environment.items() for word in ("--env", "=".join(item))]
        places = ["--mount", f"{work}:{work}:rw", "--cwd", str(work)]
        binaries = self.scratch / "bin"
        if binaries.exists():
            places += ["--mount", f"{binaries}:{binaries}:ro"]
        command = [ENISLE, "run", *self.setting.options(), *places, *variables, *options, "--", *argv]
        return self.native[key], run(command, stdin, work, dict(os.environ), timeout)


def run(argv: Sequence[Argument], stdin: bytes, cwd: Path, env: Mapping[str, str], timeout: float) -> Outcome:
    """Run `argv` to its end; one that outlives `timeout` seconds is killed and reported as status -1."""
    words = [os.fspath(word) for word in argv]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=env, umask=0o022, start_new_session=True
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            return Outcome(-1, stdout, stderr + f"\n[killed after {timeout:g} s]\n".encode())
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Outcome(status, stdout, stderr)


def fresh(work: Path, files: Mapping[str, bytes | str]) -> None:
    """Make `work` an empty directory holding `files` alone."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = content.encode() if isinstance(content, str) else content
        path.write_bytes(encoded)
        path.chmod(0o755 if encoded.startswith(b"#!") else 0o644)


def compare(native: Outcome, island: Outcome, compare_stderr: bool) -> str:
    """Return a readable difference, or an empty string."""
    parts: list[str] = []
    if native.status != island.status:
        parts.append(f"status: {native.status} on Linux, {island.status} on the island")
    if native.stdout != island.stdout:
        parts.append(_differ("stdout", native.stdout, island.stdout))
    if compare_stderr and native.stderr != island.stderr:
        parts.append(_differ("stderr", native.stderr, island.stderr))
    if parts and island.stderr:
        parts.append("stderr of the island:\n" + island.stderr.decode(errors="replace")[-3000:])
    return "\n".join(parts)


def _differ(name: str, native: bytes, island: bytes) -> str:
    lines = difflib.unified_diff(
        native.decode(errors="backslashreplace").splitlines(),
        island.decode(errors="backslashreplace").splitlines(),
        f"{name} on Linux",
        f"{name} on the island",
        n=1,
        lineterm="",
    )
    return "\n".join(list(lines)[:60])


MARK = "=-=-= "
"""What a shared script prints before each of its sections, followed by the section's name."""


def sections(stdout: bytes) -> dict[str, str]:
    """Split the output of a shared script at its marks."""
    parts = ("\n" + stdout.decode(errors="backslashreplace")).split("\n" + MARK)[1:]
    return dict(part.partition("\n")[::2] for part in parts)


@dataclass(slots=True)
class SharedRuns:
    """Several tests, one island: a script with marked sections runs once, each test compares its section."""

    runner: Runner
    outcomes: dict[object, tuple[Outcome, Outcome]]

    def compare_section(
        self, key: object, name: str, argv: Sequence[Argument], files: Mapping[str, bytes | str], timeout: float
    ) -> None:
        """Run the script known by `key` if it has not run yet; fail the test unless section `name` is the same."""
        if key not in self.outcomes:
            self.outcomes[key] = self.runner.outcomes(argv, stdin=b"", files=files, env={}, timeout=timeout)
        native, island = self.outcomes[key]
        expected, found = sections(native.stdout), sections(island.stdout)
        assert name in expected, native.stderr.decode()[-2000:]
        if name not in found:
            last = list(found)[-1:] or ["nothing"]
            tail = island.stderr.decode(errors="replace")[-2000:]
            pytest.fail(f"the island came only to {last[0]!r}, status {island.status}\n{tail}", pytrace=False)
        if found[name] != expected[name]:
            difference = _differ("section", expected[name].encode(), found[name].encode())
            tail = island.stderr.decode(errors="replace")[-1500:]
            pytest.fail(f"{difference}\nstderr of the island's script:\n{tail}", pytrace=False)


PYTHON = Path(os.path.realpath(sys.executable))
"""The interpreter of this host that the tests run on islands: not the virtual environment's link."""
