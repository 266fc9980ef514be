"""The sides compared: the host itself, an island (both doors), and gVisor's `runsc do` on the ptrace platform."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LC_ALL": "C"}


class Unmeasurable(Exception):
    """A side could not run a program; the reason stands in the table."""


@dataclass(frozen=True, slots=True)
class Side:
    """A way to run a command: the words to put before it."""

    name: str
    prefix: tuple[str, ...]

    def run(self, argv: Sequence[str], timeout: float = 120) -> tuple[str, float]:
        """Run `argv` to its end; return its standard output and the wall time in seconds. Raises Unmeasurable."""
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [*self.prefix, *argv],
                input="",  # not /dev/null: runsc as root gives a device it gets to nobody, on the host
                capture_output=True,
                env=ENVIRONMENT,
                cwd="/",
                timeout=timeout,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as expired:
            raise Unmeasurable(f"no end after {timeout:g} s") from expired
        wall = time.perf_counter() - start
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise Unmeasurable(f"status {done.returncode}: {reason[:120]}")
        return done.stdout, wall


def sides(bin_directory: Path) -> list[Side]:
    """Return the sides this host has."""
    enisle = Path(sysconfig.get_path("scripts")) / "enisle"
    island = (str(enisle), "run", "--mount", f"{bin_directory}:{bin_directory}:ro", "--cwd", "/")
    found = [
        Side("native", ()),
        Side("enisle", (*island, "--")),
        Side("exit door", (*island, "--exitless", "off", "--")),
    ]
    runsc = shutil.which("runsc")
    if runsc:
        found.append(Side("runsc", (runsc, "--platform=ptrace", "--network=none", "--ignore-cgroups", "do")))
    return found


def compile_programs() -> Path:
    """Compile the C programs into a directory of their own and return it; the caller removes it."""
    directory = Path(tempfile.mkdtemp(prefix="enisle-bench-"))
    directory.chmod(0o755)
    for source in sorted(PROGRAMS.glob("*.c")):
        target = directory / source.stem
        subprocess.run(["gcc", "-O2", "-o", str(target), str(source), "-lm"], check=True)
    return directory


def python() -> str:
    """Return the interpreter all sides run: the host's own, not the virtual environment's."""
    return shutil.which("python3", path=ENVIRONMENT["PATH"]) or os.path.realpath(sys.executable)
