"""Open file descriptions and descriptor tables: `struct file` and `struct files_struct` of Linux.

Every guest descriptor has exactly one host descriptor behind it. The host descriptor of anything that could block
(pipe, socket, eventfd, terminal) is non-blocking; the guest's own O_NONBLOCK is in `OpenFile.flags`.
Used by any guest thread; the table's lock orders allocation, the GIL everything else.
"""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from errno import EAGAIN, EBADF, EMFILE
from typing import TYPE_CHECKING

from enisle.abi.types import Fd
from enisle.errors import LinuxError

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

POLLIN, POLLOUT = 1, 4
DEFAULT_NOFILE = 1024


class OpenFile:
    """One open file description. Subclasses answer the operations that no host descriptor can.

    `fd` is the host descriptor (owned: closed with the last reference), `flags` the guest's O_* status flags,
    `path` what the guest opened, for /proc and messages.
    """

    kind = "file"
    seekable = True

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
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # ---- input and output: `buffers` are pinned guest memory -------------------------------------------------------

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        while True:
            try:
                return os.readv(self.fd, buffers)
            except BlockingIOError:
                self.block(thread, POLLIN)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        while True:
            try:
                return os.writev(self.fd, buffers)
            except BlockingIOError:
                self.block(thread, POLLOUT)

    def block(self, thread: "Thread", events: int) -> None:
        """Wait until the file may be ready, or raise EAGAIN for a guest that does not want to wait."""
        if not self.waits or self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        thread.wait_fd(self.fd, events)

    def set_flags(self, flags: int) -> None:
        """F_SETFL: status flags a guest may change."""
        changeable = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME
        self.flags = (self.flags & ~changeable) | (flags & changeable)
        host = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        wanted = (host & ~(changeable & ~os.O_NONBLOCK)) | (flags & changeable & ~os.O_NONBLOCK)
        if wanted != host:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, wanted)


class FdTable:
    """Descriptors of a process: number → (description, close-on-exec)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 1
        self._files: dict[int, OpenFile] = {}
        self._cloexec: set[int] = set()
        self._lowest = 0

    def get(self, fd: Fd) -> OpenFile:
        """Return the description behind `fd`. Raises EBADF."""
        try:
            return self._files[fd]
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
            if fd >= limit:
                if not file.references:
                    file.close()
                raise LinuxError(EMFILE)
            if lowest <= self._lowest:
                self._lowest = fd + 1
            self._put(fd, file, cloexec)
            return Fd(fd)

    def set(self, fd: int, file: OpenFile, cloexec: bool = False) -> None:
        """Install `file` at `fd`, closing what was there (dup2)."""
        with self.lock:
            old = self._files.get(fd)
            self._put(fd, file, cloexec)
        if old:
            old.drop()

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
        self.remove(fd).drop()

    def is_cloexec(self, fd: int) -> bool:
        return fd in self._cloexec

    def set_cloexec(self, fd: int, cloexec: bool) -> None:
        if cloexec:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def items(self) -> Iterator[tuple[int, OpenFile]]:
        """Yield (number, description) in ascending order of a snapshot."""
        yield from sorted(self._files.copy().items())

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
    """Working directory, root and umask of a process (`struct fs_struct`); `cwd` is an O_PATH host descriptor."""

    def __init__(self, cwd: int, umask: int = 0o022) -> None:
        self.cwd, self.umask = cwd, umask
        self.users = 1

    def clone(self) -> "FsContext":
        return FsContext(os.dup(self.cwd), self.umask)

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            os.close(self.cwd)
