"""A platform of its own for a test: up in a temporary directory, with contexts of its own, down at the end."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from commandline import ENISLE

NEEDED = ("nats", "starlette", "uvicorn", "httpx", "msgspec")
PATIENCE_S = 30.0


class Up:
    """A platform that is up, and the words to use it. `user` 0: whoever runs the tests."""

    def __init__(self, directory: Path, user: int = 0, program: tuple[str, ...] = (ENISLE,)) -> None:
        self.directory, self.state, self.user, self.program = directory, directory / "state", user, program
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ENISLE_")},
            "ENISLE_STATE": str(self.state),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "HOME": str(directory),
            # The engine is found on the PATH by a Python that is not ours.
            "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(ENISLE).parent)]),
        }

    def _options(self) -> dict[str, Any]:
        own: dict[str, Any] = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        return {"env": self.environment, "cwd": "/", "text": True, **own}

    def enisle(self, *words: str, stdin: str | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a verb to its end."""
        options = self._options()
        options["env"] = {**self.environment, **environment}
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run([*self.program, *words], capture_output=True, timeout=60, **given, **options)

    def ok(self, *words: str, stdin: str | None = None) -> str:
        """Run a verb that must succeed; return what it prints."""
        done = self.enisle(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Run a verb beside the test."""
        options = self._options()
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*self.program, *words], **pipes, **options)

    def pids(self) -> dict[int, str]:
        """Return the processes of this platform by the directory in their words, keepers of islands too."""
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(str(self.state).encode() in word for word in words):
                    found[int(entry.name)] = b" ".join(words).decode(errors="replace")
        return found


def wait_until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Return what becomes true."""
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"never: {what.__name__}"
        time.sleep(0.02)
    return found


@contextmanager
def up(*words: str, user: int = 0, program: tuple[str, ...] = (ENISLE,)) -> Iterator[Up]:
    """Have a platform until the block ends; nothing of it is left then."""
    for name in NEEDED:
        pytest.importorskip(name)
    directory = Path(tempfile.mkdtemp(prefix="enisle-up-"))
    if user:
        shutil.chown(directory, user, user)
    platform = Up(directory, user, program)
    try:
        if words != ("not",):
            platform.ok("up", *words)
        yield platform
    finally:
        platform.enisle("down", "--islands")
        for pid in platform.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(directory, ignore_errors=True)
