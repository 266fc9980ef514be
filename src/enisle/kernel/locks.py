"""POSIX record locks (fcntl(2)) among guest processes, which to the host are one process.

Pure ranges in `put`, `find_conflict` and `cover`; `LockTable` keeps them by inode, lets threads wait and finds
deadlocks, and holds the union of an inode's locks on the host as locks of an open file description of its own, so that
programs outside are excluded too. A lock's owner is a descriptor table, as in Linux. `LockTable.lock` is a leaf.
"""

import fcntl
import os
import threading
from collections.abc import Iterable
from errno import EAGAIN, EDEADLK
from itertools import pairwise
from typing import TYPE_CHECKING

from enisle.abi.linux_fs import F_OFD_GETLK, F_OFD_SETLK, F_RDLCK, F_UNLCK, F_WRLCK, FLOCK, OFFSET_MAX
from enisle.errors import LinuxError
from enisle.kernel.paths import host_proc
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.files import FdTable, OpenFile
    from enisle.kernel.thread import Thread

HOST_RETRY_SECONDS = 0.01
"""How often a lock that somebody outside holds is asked for again."""


class RecordLock(Record):
    """A lock on bytes start..end (inclusive) of a file; `owner` is whatever identifies who holds it."""

    owner: object
    pid: int
    kind: int
    start: int
    end: int

    def overlaps(self, other: "RecordLock") -> bool:
        return self.start <= other.end and other.start <= self.end


def find_conflict(locks: Iterable[RecordLock], wanted: RecordLock) -> RecordLock | None:
    """Return a lock of somebody else that excludes `wanted`."""
    for lock in locks:
        if lock.owner is not wanted.owner and lock.overlaps(wanted) and F_WRLCK in (lock.kind, wanted.kind):
            return lock
    return None


def put(locks: Iterable[RecordLock], new: RecordLock) -> list[RecordLock]:
    """Return the locks with the owner's range changed to `new` (F_UNLCK removes), split and joined as needed."""
    kept: list[RecordLock] = []
    for lock in locks:
        if lock.owner is not new.owner:
            kept.append(lock)
            continue
        if lock.kind == new.kind and lock.start <= new.end + 1 and new.start <= lock.end + 1:
            new = new._replace(start=min(lock.start, new.start), end=max(lock.end, new.end))
            continue
        if not lock.overlaps(new):
            kept.append(lock)
            continue
        if lock.start < new.start:
            kept.append(lock._replace(end=new.start - 1))
        if lock.end > new.end:
            kept.append(lock._replace(start=new.end + 1))
    if new.kind != F_UNLCK:
        kept.append(new)
    return kept


def cover(locks: Iterable[RecordLock], start: int, end: int) -> list[tuple[int, int, int]]:
    """Return (kind, first, last) pieces of start..end with the strongest lock anybody holds there."""
    inside = [lock for lock in locks if lock.start <= end and start <= lock.end]
    edges = {start, end + 1}
    for lock in inside:
        edges |= {max(lock.start, start), min(lock.end, end) + 1}
    pieces: list[tuple[int, int, int]] = []
    bounds = sorted(edges)
    for first, after in pairwise(bounds):
        kinds = {lock.kind for lock in inside if lock.start <= first and after - 1 <= lock.end}
        kind = F_WRLCK if F_WRLCK in kinds else F_RDLCK if kinds else F_UNLCK
        if pieces and pieces[-1][0] == kind:
            pieces[-1] = (kind, pieces[-1][1], after - 1)
        else:
            pieces.append((kind, first, after - 1))
    return pieces


def pack(kind: int, start: int, end: int) -> bytes:
    """Return `struct flock` for a range, as OFD locks want it (l_pid 0)."""
    return FLOCK.pack(kind, os.SEEK_SET, start, 0 if end == OFFSET_MAX else end - start + 1, 0)


class InodeLocks:
    """The locks of one inode, who waits for them, and our description of the file on the host."""

    def __init__(self, host: int) -> None:
        self.locks: list[RecordLock] = []
        self.waiting: dict[Thread, tuple[object, object]] = {}
        """Waiting thread → (owner it acts for, owner it waits for)."""
        self.host = host

    def set_host(self, start: int, end: int, locks: list[RecordLock]) -> bool:
        """Make the host's locks on a range what `locks` say; False when somebody outside is in the way."""
        if self.host < 0:
            return True
        try:
            for kind, first, last in cover(locks, start, end):
                fcntl.fcntl(self.host, F_OFD_SETLK, pack(kind, first, last))
        except BlockingIOError:
            return False
        except OSError:
            return True  # the file system knows no locks, or our description may not have this one: guests still do
        return True


class LockTable:
    """All record locks of an island."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inodes: dict[tuple[int, int], InodeLocks] = {}

    def set(self, thread: "Thread", file: "OpenFile", kind: int, span: tuple[int, int], wait: bool) -> None:
        """Change the calling process's locks on a range. Raises EAGAIN, EDEADLK, ERESTARTSYS."""
        wanted = RecordLock(thread.files, thread.process.pid, kind, *span)
        key = key_of(file)
        while True:
            with self.lock:
                inode = self.inodes.get(key)
                if inode is None:
                    if kind == F_UNLCK:
                        return
                    inode = self.inodes[key] = InodeLocks(open_again(thread, file))
                conflict = self._try(inode, wanted)
                if conflict is None:
                    thread.files.record_locks = self
                    self._forget_empty(key, inode)
                    return
                self._forget_empty(key, inode)
                if not wait:
                    raise LinuxError(EAGAIN)
                if self._deadlocks(wanted.owner, conflict.owner):
                    raise LinuxError(EDEADLK)
                self.inodes[key] = inode
                inode.waiting[thread] = (wanted.owner, conflict.owner)
            try:
                thread.sleep(HOST_RETRY_SECONDS if conflict.owner is None else None)
            finally:
                with self.lock:
                    del inode.waiting[thread]
                    self._forget_empty(key, inode)

    def _try(self, inode: InodeLocks, wanted: RecordLock) -> RecordLock | None:
        """Take a lock, or return what is in the way (owner None: somebody outside)."""
        conflict = None if wanted.kind == F_UNLCK else find_conflict(inode.locks, wanted)
        if conflict:
            return conflict
        changed = put(inode.locks, wanted)
        if not inode.set_host(wanted.start, wanted.end, changed):
            inode.set_host(wanted.start, wanted.end, inode.locks)
            return wanted._replace(owner=None, pid=-1)
        inode.locks = changed
        for waiter in inode.waiting:
            waiter.waiter.wake()
        return None

    def _forget_empty(self, key: tuple[int, int], inode: InodeLocks) -> None:
        if not inode.locks and not inode.waiting and self.inodes.get(key) is inode:
            del self.inodes[key]
            if inode.host >= 0:
                os.close(inode.host)

    def _deadlocks(self, owner: object, holder: object) -> bool:
        """Return whether whom we would wait for waits, in the end, for us (posix_locks_deadlock)."""
        waits = dict(pair for inode in self.inodes.values() for pair in inode.waiting.values())
        seen: set[int] = set()
        while holder is not None and id(holder) not in seen:
            if holder is owner:
                return True
            seen.add(id(holder))
            holder = waits.get(holder)
        return False

    def find(self, thread: "Thread", file: "OpenFile", kind: int, span: tuple[int, int]) -> RecordLock | None:
        """Return a lock that would be in the way of the calling process (F_GETLK)."""
        wanted = RecordLock(thread.files, 0, kind, *span)
        with self.lock:
            inode = self.inodes.get(key_of(file))
            conflict = find_conflict(inode.locks, wanted) if inode else None
            if conflict:
                return conflict
            host = inode.host if inode and inode.host >= 0 else file.fd
            answer = FLOCK.unpack(fcntl.fcntl(host, F_OFD_GETLK, pack(kind, *span)))
        found, _, start, length, pid = answer
        end = start + length - 1 if length else OFFSET_MAX
        return None if found == F_UNLCK else RecordLock(None, pid, found, start, end)

    def release_file(self, owner: "FdTable", file: "OpenFile") -> None:
        """Drop all locks of `owner` on a file: it closed a descriptor of it."""
        if file.fd < 0:
            return
        key = key_of(file)
        with self.lock:
            inode = self.inodes.get(key)
            if inode and any(lock.owner is owner for lock in inode.locks):
                self._try(inode, RecordLock(owner, 0, F_UNLCK, 0, OFFSET_MAX))
                self._forget_empty(key, inode)


LOCKS = LockTable()


def key_of(file: "OpenFile") -> tuple[int, int]:
    status = os.fstat(file.fd)
    return status.st_dev, status.st_ino


def open_again(thread: "Thread", file: "OpenFile") -> int:
    """Return a description of the file that only we know, with as many rights as can be had; -1 for none."""
    for access in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY):
        try:
            flags = access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(b"fd/%d" % file.fd, flags, dir_fd=host_proc(thread.kernel))
        except OSError:
            continue
    return -1
