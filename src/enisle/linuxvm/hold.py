"""A machine's processors held still for a look, and let go on whatever happens.

One hold at a time for all processes (a lock file); a mark on disk says that the processors are to run again, so that
the guardian can let them when the holder was killed. Any thread may call; threads of one object take turns.
"""

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from enisle.errors import StateError
from enisle.linuxvm import state
from enisle.linuxvm.guardian import HOLD, MARK
from enisle.linuxvm.monitor import TIMEOUT, Monitor, lock_within


class Holdable:
    """What of a machine is needed to stop and continue it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = directory.name
        self._turn = threading.RLock()
        self._depth = 0
        """How often `paused` is entered. Guarded by _turn."""
        self._held = False
        """Whether we have the lock of all processes. Guarded by _turn."""

    @property
    def is_alive(self) -> bool:
        """Whether its processes are there."""
        return state.is_alive(self.directory)

    def reason(self) -> str:
        """Why it ended, as far as that is known."""
        record = state.try_read(self.directory)
        return record.reason if record and record.reason else "it is gone"

    def require_alive(self) -> None:
        """Raise StateError unless its processes are there."""
        if not self.is_alive:
            hint = f"enisle vm rm {self.name}" if state.try_read(self.directory) else "enisle vm ps"
            raise StateError(f"the machine {self.name} has ended", self.reason(), hint)

    def monitor(self, timeout: float = TIMEOUT) -> Monitor:
        """Return a conversation with its QEMU, to be entered. Raises StateError when it has ended."""
        self.require_alive()
        return Monitor(self.directory / state.PEN / "qmp", timeout)

    def pause(self) -> None:
        """Stop its processors until `resume`. Raises StateError when it has ended."""
        with self._turn, self._held_still(), self.monitor() as monitor:
            monitor.execute("stop")

    def resume(self) -> None:
        """Let its processors go on."""
        with self._turn, self._held_still(), self.monitor() as monitor:
            monitor.execute("cont")

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Hold its processors still for a while; they run again afterwards if they ran before. May be nested."""
        with self._turn:
            self._depth += 1
            try:
                if self._depth > 1:
                    yield
                    return
                with self._held_still():
                    was_running = self._stop_for_a_moment()
                    try:
                        yield
                    finally:
                        if was_running:
                            self._go_on()
            finally:
                self._depth -= 1

    @contextmanager
    def _held_still(self) -> Generator[None, None, None]:
        """Keep other processes from stopping and continuing it. Raises StateError within `paused`."""
        self.require_alive()
        if self._held:
            raise StateError(f"{self.name} is being held still", "by this very thread", "leave `paused` first")
        lock = lock_within(self.directory / HOLD, TIMEOUT)
        self._held = True
        try:
            yield
        finally:
            self._held = False
            os.close(lock)

    def _stop_for_a_moment(self) -> bool:
        """Stop the processors; whether they ran."""
        mark = self.directory / MARK
        with self.monitor() as monitor:
            # A mark without a holder: somebody was killed before letting them go on, so we shall.
            was_running = mark.exists() or bool(monitor.execute("query-status")["running"])
            if was_running:
                mark.touch()
                try:
                    monitor.execute("stop")
                except BaseException:
                    monitor.execute("cont")
                    mark.unlink(missing_ok=True)
                    raise
        return was_running

    def _go_on(self) -> None:
        try:
            with self.monitor() as monitor:
                monitor.execute("cont")
        except StateError:
            if self.is_alive:
                raise
        (self.directory / MARK).unlink(missing_ok=True)
