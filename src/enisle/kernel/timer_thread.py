"""The host thread that lets an island's timers ring. One per island, started with its first timer.

`set` may be called by any thread; `ring` is called on the timer thread with no lock held, and may come once more after
a timer was changed: whoever rings looks at its own state first.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from enisle.kernel.timer_queue import TimerQueue


class Ringing(Protocol):
    def ring(self) -> None: ...


class TimerThread:
    """Calls `ring` of what is due by the host's monotonic clock."""

    def __init__(self, panic: Callable[[BaseException], None]) -> None:
        self._changed = threading.Condition()
        self._queue: TimerQueue[Ringing] = TimerQueue()
        self._panic = panic
        self._thread: threading.Thread | None = None
        self._closed = False

    def set(self, timer: Ringing, due_ns: int | None) -> None:
        """Let `timer` ring at `due_ns` (`time.monotonic_ns`), or not at all."""
        with self._changed:
            before = self._queue.next_due()
            self._queue.set(timer, due_ns)
            if due_ns is not None and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._main, name="timers", daemon=True)
                self._thread.start()
            if due_ns is not None and (before is None or due_ns < before):
                self._changed.notify()

    def _main(self) -> None:
        try:
            while not self._closed:
                for timer in self._wait():
                    timer.ring()
        except BaseException as error:
            self._panic(error)

    def _wait(self) -> list[Ringing]:
        with self._changed:
            now = time.monotonic_ns()
            taken = self._queue.take_due(now)
            if not taken and not self._closed:
                due = self._queue.next_due()
                self._changed.wait(None if due is None else min((due - now) / 1e9, threading.TIMEOUT_MAX))
            return taken

    def close(self) -> None:
        """Ring no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
