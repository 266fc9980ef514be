"""Files in memory without a name: shared anonymous memory and memfds. All of it is bounded by the island's memory.

They lie in the island's tmpfs, whose size is limited, unless they are to be sealed, which Linux allows for its own
memfds alone: these are counted whenever one grows. Used by any guest thread.
"""

import os
import threading
from _weakrefset import WeakSet  # as in `futex`
from collections.abc import Sequence
from errno import ENOSPC
from typing import TYPE_CHECKING

from enisle.abi.linux_mman import MFD_ALLOW_SEALING
from enisle.abi.types import PAGE
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.vma import Backing

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

SHARED_MEMORY = b"/dev/shm"
SHARE = 4
"""Sealable files may take this part of the island's memory, as written files may."""
SECTOR = 512

_directory = _device = -1
_sealable: "WeakSet[OpenFile | Backing]" = WeakSet()
_lock = threading.Lock()


def prepare() -> None:
    """Remember the directory before a guest can put another in its place. Requires: the jail's root is complete."""
    global _directory, _device
    memfd = os.memfd_create("any", os.MFD_CLOEXEC)
    _device = os.fstat(memfd).st_dev
    os.close(memfd)
    try:
        _directory = os.open(SHARED_MEMORY, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        pass  # no jail: a test on a host without one


def open_memory() -> int:
    """Return a host descriptor of a fresh file of the limited kind. Raises OSError."""
    if _directory < 0:
        return os.memfd_create("memory", os.MFD_CLOEXEC)
    return os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o777, dir_fd=_directory)


def make_memfd(name: bytes, sealable: bool, flags: int, path: bytes) -> OpenFile:
    """Return a new file of memfd_create(2)."""
    if not sealable:
        return OpenFile(open_memory(), flags, path)
    return SealableFile(os.memfd_create(os.fsdecode(name), os.MFD_CLOEXEC | MFD_ALLOW_SEALING), flags, path)


class SealableFile(OpenFile):
    """A memfd of the host's."""

    bounded = True

    def __init__(self, fd: int, flags: int, path: bytes) -> None:
        super().__init__(fd, flags, path)
        with _lock:
            _sealable.add(self)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        position = os.lseek(self.fd, 0, os.SEEK_END if self.flags & os.O_APPEND else os.SEEK_CUR)
        self.require_room(thread, position + sum(map(len, buffers)))
        return super().writev(thread, buffers)

    def pwritev(self, thread: "Thread", buffers: Sequence[memoryview], offset: int) -> int:
        self.require_room(thread, offset + sum(map(len, buffers)))
        return super().pwritev(thread, buffers, offset)

    def require_room(self, thread: "Thread", end: int) -> None:
        """Raise ENOSPC when all sealable files together would be too large with this one reaching to `end`."""
        own = _extent(os.fstat(self.fd))
        if end <= own:
            return
        limit = thread.kernel.machine.memory.limit_frames * PAGE // SHARE
        if _total() + end - own > limit:
            raise LinuxError(ENOSPC)


def backing_of(file: OpenFile, status: os.stat_result, writable: bool) -> Backing:
    """Return what a mapping of the open file keeps of it."""
    backing = Backing(os.dup(file.fd), status.st_dev, status.st_ino, file.path, writable)
    if isinstance(file, SealableFile):
        with _lock:
            _sealable.add(backing)
    return backing


def file_of(fd: int, status: os.stat_result, flags: int, path: bytes) -> OpenFile:
    """Return the open file for a regular one that may be a memfd of the host's: opened once more, or the caller's."""
    return (SealableFile if status.st_dev == _device else OpenFile)(fd, flags, path)


def _extent(status: os.stat_result) -> int:
    return max(status.st_size, status.st_blocks * SECTOR)


def _total() -> int:
    with _lock:
        descriptors = [holder.fd for holder in _sealable if holder.fd >= 0]
    extents: dict[int, int] = {}
    for fd in descriptors:
        try:
            status = os.fstat(fd)
        except OSError:  # closed meanwhile
            continue
        extents[status.st_ino] = _extent(status)
    return sum(extents.values())
