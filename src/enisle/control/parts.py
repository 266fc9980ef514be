"""One process of the platform, as its supervisor sees it: started, started again when it dies, ended.

Owned by the supervisor's thread, and a child of it: the child dies with that thread.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from enisle.abi import host

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
GOOD_S = 20.0
"""A process that lived this long starts at once when it dies; one that did not waits twice as long as before."""
PATIENCE_S = 8.0


class Part:
    """A named command line, perhaps of an `island`; the words `once` are for its first start alone."""

    def __init__(self, name: str, argv: list[str], once: Sequence[str] = (), island: bool = False) -> None:
        self.name, self._argv, self._once, self.island = name, argv, once, island
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = FIRST_PAUSE_S
        self._began = self._again = 0.0
        self.restarts = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*self._argv, *self._once],
            stdin=subprocess.DEVNULL,
            stdout=2,
            cwd="/",
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),
        )
        self._once = ()

    def last_words(self) -> str:
        assert self._process is not None
        return f"its {self.name} ended with status {self._process.poll()}"

    def look_after(self) -> bool:
        """Start it again when it died and its pause is over; return whether anything changed."""
        if self.running or self._process is None:
            return False
        now = time.monotonic()
        if not self._again:
            if now - self._began > GOOD_S:
                self._pause_s = FIRST_PAUSE_S
            self._again = now + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
            return True
        if now < self._again:
            return False
        self._again = 0.0
        self.restarts += 1
        self.start()
        return True

    def stop(self) -> None:
        """Ask it to end, and make it."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with(parent: int) -> Callable[[], None]:
    """Return what a child does before it becomes its program: it ends when we do."""

    def prepare() -> None:
        host.prctl(host.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


def python(module: str, *words: str) -> list[str]:
    """Return the command line of a module of ours."""
    return [sys.executable, "-m", module, *words]
