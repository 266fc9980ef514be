"""How a guest thread waits: for descriptors, for a wake-up or for time, always interruptible by its signals.

A wait never misses a wake-up: `wake` marks it first and then rings whatever the waiter sleeps on (the GIL orders the
mark against the waiter's announcement). A thread that may not sleep (served while it spins in its guest) raises
`MustLeave` instead; nothing may have been changed by then.
"""

import os
import select
import threading
import time
from collections.abc import Sequence
from errno import ETIMEDOUT

from enisle.abi.linux import ERESTARTSYS
from enisle.errors import LinuxError

POLLERR, POLLHUP, POLLNVAL = 8, 16, 32


class MustLeave(Exception):
    """The call would wait: serve it again on the thread's own processor, through the exit door."""


class Waiter:
    """The sleeping place of one guest thread."""

    def __init__(self) -> None:
        self._event = -1
        self._bell = threading.Lock()
        self._bell.acquire()
        self._on_descriptors = self._on_bell = False
        self.awake = False
        """Set by `wake`; cleared when a wait begins with `clear` or ends because of it."""
        self.may_sleep = True

    @property
    def asleep(self) -> bool:
        """Whether the thread waits at this moment."""
        return self._on_descriptors or self._on_bell

    def wake(self) -> None:
        """End the current or the next wait, from any thread."""
        self.awake = True
        if self._on_descriptors:
            os.eventfd_write(self._event, 1)
        if self._on_bell:
            try:
                self._bell.release()
            except RuntimeError:  # rung already
                pass

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep until `wake` or for `seconds`; return whether woken."""
        if not self.may_sleep:
            raise MustLeave
        self._on_bell = True
        if not self.awake:
            self._bell.acquire(timeout=-1 if seconds is None else min(max(seconds, 0), threading.TIMEOUT_MAX))
        self._on_bell = False
        self._bell.acquire(blocking=False)
        woken, self.awake = self.awake, False
        return woken

    def poll(self, fds: Sequence[tuple[int, int]], seconds: float | None = None) -> list[tuple[int, int]] | None:
        """Poll (descriptor, events) pairs; return the ready ones, [] at the timeout, None when woken."""
        if not self.may_sleep:
            raise MustLeave
        if self._event < 0:
            self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        poll = select.poll()
        for fd, events in fds:
            poll.register(fd, events)
        poll.register(self._event, select.POLLIN)
        self._on_descriptors = True
        deadline = None if seconds is None else time.monotonic() + seconds
        ready: list[tuple[int, int]] = []
        if not self.awake:
            ready = poll.poll(None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000))
        self._on_descriptors = False
        woken, self.awake = self.awake, False
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass
        ready = [(fd, events) for fd, events in ready if fd != self._event]
        return None if woken and not ready else ready

    def close(self) -> None:
        if self._event >= 0:
            os.close(self._event)
            self._event = -1


def deadline_after(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def remaining(deadline: float | None) -> float | None:
    """Return seconds left until a monotonic deadline. Raises ETIMEDOUT when it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise LinuxError(ETIMEDOUT)
    return left


def interrupted() -> LinuxError:
    """Return the error of a wait ended by a signal; dispatch restarts the call or turns it into EINTR."""
    return LinuxError(ERESTARTSYS)
