"""Open file descriptions and descriptor tables: `struct file` and `struct files_struct` of Linux.

Every guest descriptor has exactly one host descriptor behind it. The host descriptor of anything that could block
(pipe, socket, eventfd, terminal) is non-blocking; the guest's own O_NONBLOCK is in `OpenFile.flags`.
Used by any guest thread; the table's lock orders allocation, the GIL everything else.
"""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from errno import EAGAIN, EBADF, EFAULT, EMFILE, ENOTTY
from typing import TYPE_CHECKING

from enisle.abi.types import Fd
from enisle.errors import LinuxError

if TYPE_CHECKING:
    from enisle.kernel.locks import LockTable
    from enisle.kernel.paths import SyntheticNode
    from enisle.kernel.thread import Thread

POLLIN, POLLOUT = 1, 4
DEFAULT_NOFILE = 1024
CHANGEABLE = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME | os.O_ASYNC
"""Status flags F_SETFL may change (fs/fcntl.c: SETFL_MASK)."""
KEPT_FROM_HOST = os.O_NONBLOCK | os.O_ASYNC
"""Of these, what the host must not learn: waiting and SIGIO are ours."""


class OpenFile:
    """One open file description. Subclasses answer the operations that no host descriptor can.

    `fd` is the host descriptor (owned: closed with the last reference), `flags` the guest's O_* status flags,
    `path` what the guest opened, for /proc and messages.
    """

    kind = "file"
    """What the guest sees: file, directory, pipe, terminal, device, socket, path, …"""
    seekable = True
    stream = True
    """A write goes on until all is written, a read may take what is there piece by piece; False for datagrams."""
    node: "SyntheticNode | None" = None
    """What was opened when that is in a synthetic tree (see `paths`)."""
    owner = owner_signal = 0
    """Who gets SIGIO (F_SETOWN), and which signal instead (F_SETSIG)."""
    foreign = False
    """The caller's, from outside of the island: no way gives more rights to it, and none changes what it is."""
    bounded = False
    """Whether `require_room` must be asked before the file grows."""
    companions: tuple[int, ...] = ()
    """More host descriptors of the description, which end with it (see `epoll`)."""

    def __init__(self, fd: int, flags: int, path: bytes = b"", blocking: bool = False) -> None:
        self.fd, self.flags, self.path = fd, flags, path
        self.waits = blocking
        """True when the host descriptor is non-blocking and `read`/`write` wait on the guest's behalf."""
        self.references = 0

    # ---- life ----------------------------------------------------------------------------------------------------

    def hold(self) -> "OpenFile":
        self.references += 1
        return self

    def drop(self) -> None:
        """Give up one reference; the last one closes."""
        self.references -= 1
        if self.references <= 0:
            self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
            for companion in self.companions:
                os.close(companion)
            self.companions = ()

    # ---- input and output: `buffers` are pinned guest memory -------------------------------------------------------
    # These only try, and raise BlockingIOError when the call would wait: the caller unpins before it `block`s.

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        return os.readv(self.fd, buffers)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        return os.writev(self.fd, buffers)

    def preadv(self, thread: "Thread", buffers: Sequence[memoryview], offset: int) -> int:
        return os.preadv(self.fd, buffers, offset)

    def pwritev(self, thread: "Thread", buffers: Sequence[memoryview], offset: int) -> int:
        return os.pwritev(self.fd, buffers, offset)

    def seek(self, offset: int, whence: int) -> int:
        return os.lseek(self.fd, offset, whence)

    def require_room(self, thread: "Thread", end: int) -> None:
        """Raise ENOSPC when the file may not grow to `end` bytes."""

    def block(self, thread: "Thread", events: int) -> None:
        """Wait until the file may be ready, or raise EAGAIN for a guest that does not want to wait."""
        if not self.waits or self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        self.references += 1  # another thread may close the descriptor meanwhile
        try:
            thread.wait_fd(self.fd, events)
        finally:
            self.drop()

    def ioctl(self, thread: "Thread", request: int, argument: int) -> int:
        """Answer an ioctl(2) that is not about descriptors in general. Raises ENOTTY for what it does not know."""
        raise LinuxError(ENOTTY)

    def set_flags(self, flags: int) -> None:
        """F_SETFL: status flags a guest may change. Raises OSError."""
        passed = CHANGEABLE & ~KEPT_FROM_HOST
        if (self.flags ^ flags) & passed:
            host = fcntl.fcntl(self.fd, fcntl.F_GETFL)
            fcntl.fcntl(self.fd, fcntl.F_SETFL, (host & ~passed) | (flags & passed))
        self.flags = (self.flags & ~CHANGEABLE) | (flags & CHANGEABLE)


def gather(buffers: Sequence[memoryview]) -> bytes:
    """Return what pinned buffers hold, copied by a host call: it notices where Python would die of a signal.

    Raises EFAULT unless all of it can be read.
    """
    size = sum(map(len, buffers))
    fd = os.memfd_create("gather", os.MFD_CLOEXEC)
    try:
        if size and os.writev(fd, buffers) < size:
            raise LinuxError(EFAULT)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


class FdTable:
    """Descriptors of a process: number → (description, close-on-exec)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 1
        self.record_locks: LockTable | None = None
        """Where this table owns POSIX record locks, once it has taken one (Linux: `fl_owner` is the table)."""
        self._files: dict[int, OpenFile] = {}
        self._cloexec: set[int] = set()
        self._lowest = 0

    def get(self, fd: Fd) -> OpenFile:
        """Return the description behind `fd`. Raises EBADF."""
        try:
            return self._files[fd]
        except KeyError:
            raise LinuxError(EBADF) from None

    def hold(self, fd: Fd) -> OpenFile:
        """Return the description behind `fd` with a reference more, so that a close elsewhere does not end it."""
        try:
            file = self._files[fd]
            file.references += 1  # no switch of threads in between: CPython switches at calls and jumps
            return file
        except KeyError:
            raise LinuxError(EBADF) from None

    def find(self, fd: int) -> OpenFile | None:
        return self._files.get(fd)

    def add(self, file: OpenFile, cloexec: bool = False, limit: int = DEFAULT_NOFILE, lowest: int = 0) -> Fd:
        """Install `file` at the lowest free number from `lowest`; takes a reference. Raises EMFILE (file dropped)."""
        with self.lock:
            fd = max(lowest, self._lowest)
            while fd in self._files:
                fd += 1
            if fd < limit:
                if lowest <= self._lowest:
                    self._lowest = fd + 1
                self._put(fd, file, cloexec)
                return Fd(fd)
        if not file.references:
            file.close()
        raise LinuxError(EMFILE)

    def require_room(self, limit: int) -> None:
        """Raise EMFILE when a new descriptor would be beyond `limit`: before a call creates something."""
        fd = self._lowest
        while fd in self._files:
            fd += 1
        if fd >= limit:
            raise LinuxError(EMFILE)

    def set(self, fd: int, file: OpenFile, cloexec: bool = False) -> None:
        """Install `file` at `fd`, closing what was there (dup2)."""
        with self.lock:
            old = self._files.get(fd)
            self._put(fd, file, cloexec)
        if old:
            self._let_go(old)

    def _put(self, fd: int, file: OpenFile, cloexec: bool) -> None:
        self._files[fd] = file.hold()
        if cloexec:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def remove(self, fd: Fd) -> OpenFile:
        """Take `fd` out and return its description, whose reference is the caller's to drop. Raises EBADF."""
        with self.lock:
            file = self._files.pop(fd, None)
            if file is None:
                raise LinuxError(EBADF)
            self._cloexec.discard(fd)
            self._lowest = min(self._lowest, fd)
            return file

    def close(self, fd: Fd) -> None:
        self._let_go(self.remove(fd))

    def _let_go(self, file: OpenFile) -> None:
        """Drop a description; closing any descriptor of a file drops the process's record locks on it (fcntl(2))."""
        if self.record_locks:
            self.record_locks.release_file(self, file)
        file.drop()

    def is_cloexec(self, fd: int) -> bool:
        return fd in self._cloexec

    def set_cloexec(self, fd: int, cloexec: bool) -> None:
        if cloexec:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def items(self) -> Iterator[tuple[int, OpenFile]]:
        """Yield (number, description) in ascending order of a snapshot."""
        yield from sorted(self._files.copy().items(), key=lambda item: item[0])

    def clone(self) -> "FdTable":
        """Return a table with the same descriptions (fork)."""
        copy = FdTable()
        with self.lock:
            copy._files = {fd: file.hold() for fd, file in self._files.items()}
            copy._cloexec = set(self._cloexec)
            copy._lowest = self._lowest
        return copy

    def close_on_exec(self) -> None:
        for fd in sorted(self._cloexec):
            self.close(Fd(fd))

    def release(self) -> None:
        """A user of the table is gone; the last one closes everything."""
        self.users -= 1
        if not self.users:
            for fd, _ in list(self.items()):
                self.close(Fd(fd))


class FsContext:
    """Working directory, root and umask of a process (`struct fs_struct`).

    `cwd` is an O_PATH host descriptor; in a synthetic tree `node` is the directory and `cwd` the last host one.
    """

    def __init__(self, cwd: int, umask: int = 0o022, node: "SyntheticNode | None" = None) -> None:
        self.cwd, self.umask, self.node = cwd, umask, node
        self.users = 1
        self._retired = -1

    def change(self, cwd: int) -> None:
        """Go to the directory behind the host descriptor `cwd`, which is ours from now on."""
        # A thread that shares the context may be using the old one for a call: closed one change later.
        stale, self._retired = self._retired, self.cwd
        self.cwd, self.node = cwd, None
        if stale >= 0:
            os.close(stale)

    def clone(self) -> "FsContext":
        return FsContext(fcntl.fcntl(self.cwd, fcntl.F_DUPFD_CLOEXEC, 3), self.umask, self.node)

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            for fd in {self.cwd, self._retired} - {-1}:
                os.close(fd)
