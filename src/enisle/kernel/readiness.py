"""Waiting for many descriptors: what poll and select have in common.

The host's poll answers for the host descriptors behind the guest's; here are the numbers that are not open, several
descriptors on one host descriptor, and signals. Runs on the guest thread that waits.
"""

import select
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from errno import EINTR, EINVAL
from typing import TYPE_CHECKING

from enisle.abi.linux import ERESTARTNOHAND
from enisle.abi.linux_socket import POLLERR, POLLHUP, POLLNVAL, POLLOUT, POLLWRNORM
from enisle.abi.linux_time import NS, TIMESPEC
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.files import OpenFile
from enisle.kernel.wait import remaining

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

ALWAYS = POLLERR | POLLHUP | POLLNVAL
SIGSET_SIZE = 8
LONGEST = 1_000_000.0
"""Seconds of one host wait; the host counts its milliseconds in an int."""

Interest = tuple[int, int]
"""A guest descriptor and the poll events asked for."""


class Watch:
    """What one call waits for: guest descriptors, held while it does."""

    def __init__(self, thread: "Thread", interests: Sequence[Interest]) -> None:
        self.thread, self.interests = thread, interests
        self.files: dict[int, OpenFile] = {}
        self.events: dict[int, int] = {}
        """Events by host descriptor."""

    def __enter__(self) -> "Watch":
        files = self.thread.files
        for fd, events in self.interests:
            file = self.files.get(fd)
            if fd >= 0 and file is None:
                file = files.find(fd)
                if file is None:
                    continue
                self.files[fd] = file.hold()
            if file:
                self.events[file.fd] = self.events.get(file.fd, 0) | askable(file, events)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.drop()

    def answers(self, ready: Sequence[tuple[int, int]]) -> list[int]:
        """Return what poll(2) answers for each interest; `ready` is what the host says."""
        found = dict(ready)
        answers: list[int] = []
        for fd, events in self.interests:
            file = self.files.get(fd)
            if file is None:
                answers.append(POLLNVAL if fd >= 0 else 0)
            else:
                answers.append(found.get(file.fd, 0) & (askable(file, events) | ALWAYS))
        return answers

    def wait(self, deadline: float | None) -> list[int]:
        """Return the answers as soon as one is not 0, or at the monotonic deadline. Raises ERESTARTNOHAND."""
        answers = self.look()
        while not any(answers):
            if self.thread.interrupted():
                raise LinuxError(ERESTARTNOHAND)
            try:
                left = remaining(deadline)
            except LinuxError:
                return answers
            seconds = left if left is None else min(left, LONGEST)
            ready = self.thread.waiter.poll(list(self.events.items()), seconds)
            if ready:
                answers = self.answers(ready)
        return answers

    def look(self) -> list[int]:
        """Return the answers of this moment."""
        poll = select.poll()
        for fd, events in self.events.items():
            poll.register(fd, events)
        return self.answers(poll.poll(0))


def askable(file: OpenFile, events: int) -> int:
    """Return the events a file can have: the eventfd behind a signalfd or timer could be written to, they cannot."""
    return events & ~(POLLOUT | POLLWRNORM) if file.kind in ("signalfd", "timerfd") else events


def read_deadline(thread: "Thread", address: int) -> float | None:
    """Return the monotonic deadline of a relative timespec, None for a null pointer. Raises EINVAL, EFAULT."""
    if not address:
        return None
    seconds, nanos = TIMESPEC.unpack(thread.mm.read(address, TIMESPEC.size))
    return deadline_of(seconds, nanos)


def deadline_of(seconds: int, nanos: int) -> float:
    if seconds < 0 or not 0 <= nanos < NS:
        raise LinuxError(EINVAL)
    return time.monotonic() + seconds + nanos / NS


def write_remaining(thread: "Thread", address: int, deadline: float | None, unit: int) -> None:
    """Tell how much time was left, in seconds and `unit`ths, where that can be written (poll_select_finish)."""
    if not address or deadline is None:
        return
    left = max(0, int((deadline - time.monotonic()) * unit))
    try:
        thread.mm.write(address, TIMESPEC.pack(left // unit, left % unit))
    except LinuxError:
        return


@contextmanager
def temporary_mask(thread: "Thread", address: int, size: int) -> Generator[None, None, None]:
    """Use the guest's sigset at `address` (if any) for a wait.

    After a wait that a signal ended it stays until the handler has its frame; else the old one is back at once
    (restore_saved_sigmask_unless). Raises EINVAL, EFAULT.
    """
    if not address:
        yield
        return
    if size != SIGSET_SIZE:
        raise LinuxError(EINVAL)
    signals.block_for_wait(thread, thread.mm.read_u64(address))
    interrupted = False
    try:
        yield
    except LinuxError as error:
        interrupted = error.errno in (ERESTARTNOHAND, EINTR)
        raise
    finally:
        if not interrupted and thread.restore_mask is not None:
            mask, thread.restore_mask = thread.restore_mask, None
            signals.set_blocked(thread, mask)
