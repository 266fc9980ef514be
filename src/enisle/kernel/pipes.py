"""Pipes and named pipes. The bytes are the host's; who waits for whom at the opening of a FIFO is decided here.

`FifoTable` counts, per inode, how often each side was opened by guests, as fs/pipe.c does with r_counter and
w_counter; its lock is its own. A partner outside the island is noticed by polling.
"""

import os
import threading
from errno import EINVAL, ENXIO
from typing import TYPE_CHECKING

from enisle.abi.linux_fs import O_ACCMODE, O_CLOEXEC, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from enisle.abi.types import Gva
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.table import Int, Support, syscall
from enisle.kernel.wait import MustLeave

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

POLLIN, POLLOUT, POLLERR, POLLHUP = 1, 4, 8, 16
PARTNER_CHECK_SECONDS = 0.02
"""How often a waiting opener looks for a partner that is no guest."""


class PipeFile(OpenFile):
    """One end of a pipe or an open FIFO."""

    kind = "pipe"
    seekable = False

    def __init__(self, fd: int, flags: int, path: bytes = b"") -> None:
        super().__init__(fd, flags, path, blocking=True)
        self.stream = not flags & O_DIRECT


class FifoFile(PipeFile):
    """An open FIFO, counted at its inode until it is closed."""

    def __init__(self, fd: int, flags: int, path: bytes) -> None:
        super().__init__(fd, flags, path)
        status = os.fstat(fd)
        self.key = (status.st_dev, status.st_ino)
        self.reads = flags & O_ACCMODE in (O_RDONLY, O_RDWR)
        self.writes = flags & O_ACCMODE in (O_WRONLY, O_RDWR)
        self.partners_before = FIFOS.enter(self)
        """How often the other side had been opened by then."""

    def close(self) -> None:
        if self.fd >= 0:
            FIFOS.leave(self)
        super().close()


class Fifo:
    """Who has a FIFO open, how often each side was opened, and who waits for that to change (fs/pipe.c)."""

    def __init__(self) -> None:
        self.files: set[FifoFile] = set()
        self.readers_ever = self.writers_ever = 0
        self.waiting: set[Thread] = set()

    def opened_opposite(self, file: FifoFile) -> int:
        """Return how often the side that `file` waits for has been opened."""
        return self.writers_ever if file.reads else self.readers_ever


class FifoTable:
    """The FIFOs that guests have open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fifos: dict[tuple[int, int], Fifo] = {}

    def enter(self, file: FifoFile) -> int:
        """Count a file and wake who waits for its side; return how often the other side has been opened so far."""
        with self.lock:
            fifo = self.fifos.setdefault(file.key, Fifo())
            fifo.files.add(file)
            fifo.readers_ever += file.reads
            fifo.writers_ever += file.writes
            for thread in fifo.waiting:
                thread.waiter.wake()
            return fifo.opened_opposite(file)

    def leave(self, file: FifoFile) -> None:
        with self.lock:
            fifo = self.fifos[file.key]
            fifo.files.discard(file)
            if not fifo.files:
                del self.fifos[file.key]

    def has_partner(self, file: FifoFile) -> bool:
        """Return whether the other side is open, or being opened by somebody who waits."""
        with self.lock:
            files = self.fifos[file.key].files
            other = any(one.writes for one in files) if file.reads else any(one.reads for one in files)
        return other or shows_partner(file)

    def wait_for_partner(self, thread: "Thread", file: FifoFile) -> None:
        """Sleep until the other side is opened, even if it is closed again at once. Raises ERESTARTSYS."""
        with self.lock:
            fifo = self.fifos[file.key]
            fifo.waiting.add(thread)
        try:
            while fifo.opened_opposite(file) == file.partners_before and not shows_partner(file):
                thread.sleep(PARTNER_CHECK_SECONDS)
        finally:
            with self.lock:
                fifo.waiting.discard(thread)


FIFOS = FifoTable()


def shows_partner(file: FifoFile) -> bool:
    """Return whether the host shows a trace of the other side: data or a hang-up to read, no error to write."""
    import select

    poll = select.poll()
    poll.register(file.fd, POLLIN if file.reads else POLLOUT)
    ready = poll.poll(0)
    events = ready[0][1] if ready else 0
    return bool(events & (POLLIN | POLLHUP)) if file.reads else not events & POLLERR


def is_anonymous(fd: int) -> bool:
    """Return whether a FIFO is one of pipe(2)'s: those lie on a file system of their own."""
    global _pipe_device
    if _pipe_device < 0:
        ends = os.pipe2(os.O_CLOEXEC)
        _pipe_device = os.fstat(ends[0]).st_dev
        for end in ends:
            os.close(end)
    return os.fstat(fd).st_dev == _pipe_device


_pipe_device = -1


def open_fifo(thread: "Thread", fd: int, flags: int, path: bytes) -> OpenFile:
    """Finish the opening of a FIFO, whose host descriptor did not wait: fifo_open of fs/pipe.c."""
    file = FifoFile(fd, flags, path)
    try:
        # A pipe without a name is opened through /proc: whoever could do so has its other end, or had.
        if (
            not is_anonymous(fd)
            and flags & O_ACCMODE != O_RDWR
            and not flags & O_NONBLOCK
            and not FIFOS.has_partner(file)
        ):
            if not thread.waiter.may_sleep:
                raise MustLeave
            FIFOS.wait_for_partner(thread, file)
    except BaseException:
        file.close()
        raise
    return file


def open_fifo_for_writing(directory: int, path: bytes, flags: int) -> int:
    """Open a FIFO that has no reader yet: a writer that will wait for one counts as a writer already.

    Raises ENXIO when it is none.
    """
    import stat

    if not stat.S_ISFIFO(os.stat(path, dir_fd=directory).st_mode):
        raise LinuxError(ENXIO)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.open(path, flags, dir_fd=directory)
    finally:
        os.close(reader)


def make_pipe(thread: "Thread", place: Gva, flags: int) -> None:
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT):
        raise LinuxError(EINVAL)
    limit = thread.process.limits.soft(RLIMIT_NOFILE)
    host = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK | (flags & O_DIRECT))
    kept = flags & ~O_CLOEXEC
    ends = PipeFile(host[0], O_RDONLY | kept, b"pipe:"), PipeFile(host[1], O_WRONLY | kept, b"pipe:")
    files = thread.files
    try:
        reader = files.add(ends[0], bool(flags & O_CLOEXEC), limit)
    except LinuxError:
        ends[1].close()
        raise
    try:
        writer = files.add(ends[1], bool(flags & O_CLOEXEC), limit)
    except LinuxError:
        files.close(reader)
        raise
    try:
        thread.mm.write(place, reader.to_bytes(4, "little") + writer.to_bytes(4, "little"))
    except LinuxError:
        files.close(reader)
        files.close(writer)
        raise


@syscall(22, Support.FULL)
def sys_pipe(thread: "Thread", place: Gva) -> None:
    make_pipe(thread, place, 0)


@syscall(293, Support.FULL)
def sys_pipe2(thread: "Thread", place: Gva, flags: Int) -> None:
    make_pipe(thread, place, flags)
