"""One command of an island, running or ended: what it wrote, how it ended, and what of that is on disk.

Its thread reads its output and writes it down; any thread may kill it.
"""

import base64
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from enisle.control.output import Output
from enisle.control.typed import Typed
from enisle.control.wire import Json
from enisle.errors import GuestError, StateError

if TYPE_CHECKING:
    from enisle.island import RunningCommand

HEAD_BYTES = 16 << 10


class Command:
    """One command, running or ended."""

    def __init__(self, directory: str, task: str, token: int, argv: list[str]) -> None:
        self.directory, self.task, self.token, self.argv = directory, task, token, argv
        self.output = Output(directory)
        self.running: RunningCommand | None = None
        self.started = time.time()
        self.began = time.monotonic()
        self.timed_out = False
        self.typed: Typed | None = None
        """Its input, when that was asked to stay open."""
        self.end: Json | None = None
        self._heads = {"stdout": bytearray(), "stderr": bytearray()}
        self._sizes = {"stdout": 0, "stderr": 0}
        self._timer: threading.Timer | None = None

    def status(self) -> Json:
        told: Json = {"task": self.task, "argv": self.argv, "started": self.started, "next": self.output.number}
        return told | (self.end or {"ended": None})

    @property
    def written(self) -> int:
        return sum(self._sizes.values())

    def take(self, stream: str, content: bytes) -> None:
        head = self._heads[stream]
        head += content[: HEAD_BYTES - len(head)]
        self._sizes[stream] += len(content)
        self.output.write(stream, content)

    def limit(self, seconds: float) -> None:
        """Kill it when it runs longer."""
        self._timer = threading.Timer(seconds, self._overdue)
        self._timer.daemon = True
        self._timer.start()

    def _overdue(self) -> None:
        self.timed_out = True
        self.kill(signal.SIGKILL)

    def kill(self, signo: int) -> None:
        if self.running is not None:
            try:
                self.running.kill(signo)
            except (GuestError, StateError):
                pass  # the island went first

    def finish(self, exit_code: int | None, error: Json | None, reason: Json | None = None) -> Json:
        """Return how it ended, and write it down. `reason`: why there is a code though nothing could be run."""
        if self._timer:
            self._timer.cancel()
        self.output.close()
        end: Json = {
            "ended": time.time(),
            "exit_code": exit_code,
            "timed_out": self.timed_out,
            "seconds": round(time.monotonic() - self.began, 6),
            "stdout": base64.b64encode(self._heads["stdout"]).decode(),
            "stderr": base64.b64encode(self._heads["stderr"]).decode(),
            "stdout_bytes": self._sizes["stdout"],
            "stderr_bytes": self._sizes["stderr"],
            "truncated": self.output.truncated,
            "error": error,
            "reason": reason,
        }
        write_json(f"{self.directory}/command.json", self.status() | end)
        return end


def write_json(path: str, value: Json) -> bool:
    """Replace a file; return whether the disk took it."""
    staged = f"{path}.new"
    try:
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(value, file)
        os.replace(staged, path)
    except OSError:
        try:
            os.unlink(staged)
        except OSError:
            pass
        return False
    return True


def read_json(path: str) -> Json | None:
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
