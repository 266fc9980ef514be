"""Opening, closing and duplicating descriptors: open(2), openat2(2), close(2), close_range(2), dup(2)."""

import os
import stat
from collections.abc import Sequence
from errno import E2BIG, EBADF, EEXIST, EINVAL, EISDIR, ELOOP, ENOTDIR, ENXIO
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.types import PAGE, Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel import memory_files, paths
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.paths import SyntheticNode
from enisle.kernel.table import Int, Path, Size, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

O_PATH_FLAGS = fs.O_DIRECTORY | fs.O_NOFOLLOW | fs.O_PATH | fs.O_CLOEXEC
NOT_FOR_HOST = fs.FASYNC | fs.O_CLOEXEC
MEMORY_DEVICES = 1
"""Major number of null, zero, full, random and urandom, which never wait."""


class Directory(OpenFile):
    """An open directory of the host."""

    kind = "directory"


class SyntheticFile(OpenFile):
    """A node opened for its name alone (O_PATH), or a directory of a synthetic tree; its host descriptor is a place."""

    kind = "path"

    def __init__(self, node: SyntheticNode, flags: int) -> None:
        super().__init__(os.open("/", os.O_PATH | os.O_CLOEXEC), flags)
        self.node, self.position = node, 0
        if stat.S_ISDIR(node.mode) and not flags & fs.O_PATH:
            self.kind = "directory"

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        raise LinuxError(EBADF if self.kind == "path" else EISDIR)

    def preadv(self, thread: "Thread", buffers: Sequence[memoryview], offset: int) -> int:
        return self.readv(thread, buffers)

    def seek(self, offset: int, whence: int) -> int:
        if self.kind == "path":
            raise LinuxError(EBADF)
        if whence not in (fs.SEEK_SET, fs.SEEK_CUR) or offset + (self.position if whence else 0) < 0:
            raise LinuxError(EINVAL)
        self.position = offset + (self.position if whence else 0)
        return self.position


# ---- open ----------------------------------------------------------------------------------------------------------


def open_at(thread: "Thread", dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> Fd:
    limit = thread.process.limits.soft(RLIMIT_NOFILE)
    thread.files.require_room(limit)
    if flags & fs.O_PATH:
        flags &= O_PATH_FLAGS
    if flags & fs.O_SYNC & ~fs.O_DSYNC:
        flags |= fs.O_DSYNC
    mode = mode & 0o7777 & ~thread.fs.umask if flags & (fs.O_CREAT | fs.O_TMPFILE & ~fs.O_DIRECTORY) else 0
    file = open_file(thread, dirfd, path, flags, mode, resolve)
    return thread.files.add(file, bool(flags & fs.O_CLOEXEC), limit)


def open_file(thread: "Thread", dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> OpenFile:
    """Open what a path names; return the description without a descriptor."""
    if resolve and not (resolve == fs.RESOLVE_NO_MAGICLINKS and paths.is_suspect(thread, path, True)):
        base = paths.base_of(thread, dirfd, path)
        if not isinstance(base, int):
            raise LinuxError(ELOOP)
        host_flags = flags | fs.O_CLOEXEC | (0 if flags & fs.O_PATH else fs.O_NONBLOCK | fs.O_NOCTTY)
        return make_file(thread, host_fs.openat2(base, path, host_flags & ~fs.FASYNC, mode, resolve), flags, path)
    follow = not flags & fs.O_NOFOLLOW and flags & (fs.O_CREAT | fs.O_EXCL) != fs.O_CREAT | fs.O_EXCL

    def open_host(directory: int, name: bytes) -> OpenFile:
        return make_file(thread, host_open(directory, name, flags, mode), flags, path)

    return paths.resolve(thread, dirfd, path, open_host, lambda node: open_node(thread, node, flags), follow)


def host_open(directory: int, name: bytes, flags: int, mode: int) -> int:
    """Open without waiting and without a controlling terminal; the guest's own wishes are kept in `OpenFile.flags`."""
    host_flags = (flags & ~NOT_FOR_HOST) | os.O_CLOEXEC
    if not flags & fs.O_PATH:
        host_flags |= os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(name, host_flags, mode, dir_fd=directory)
    except OSError as error:
        if error.errno != ENXIO or flags & fs.O_NONBLOCK or flags & fs.O_ACCMODE != fs.O_WRONLY:
            raise
        from enisle.kernel import pipes

        return pipes.open_fifo_for_writing(directory, name, host_flags)


def make_file(thread: "Thread", fd: int, flags: int, path: bytes) -> OpenFile:
    """Return the description for a host descriptor just opened, by its file type."""
    kept = flags & ~fs.OPENED_ONCE | fs.O_LARGEFILE
    if flags & fs.O_PATH:
        file = OpenFile(fd, flags & ~fs.O_CLOEXEC, path)
        file.kind = "path"
        return file
    status = os.fstat(fd)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        return memory_files.file_of(fd, status, kept, path)
    if kind == stat.S_IFDIR:
        return Directory(fd, kept, path)
    if kind == stat.S_IFIFO:
        from enisle.kernel import pipes

        return pipes.open_fifo(thread, fd, kept, path)
    if kind == stat.S_IFCHR and os.major(status.st_rdev) != MEMORY_DEVICES:
        from enisle.kernel import terminal_file

        if terminal_file.is_terminal(fd, status.st_rdev):
            return terminal_file.TerminalFile.opened(thread, fd, kept, path, acquire=not flags & fs.O_NOCTTY)
    file = OpenFile(fd, kept, path, blocking=os.major(status.st_rdev) != MEMORY_DEVICES)
    file.kind = "device"
    return file


def open_node(thread: "Thread", node: SyntheticNode, flags: int) -> OpenFile:
    """Open a node of a synthetic tree."""
    directory = stat.S_ISDIR(node.mode)
    if flags & fs.O_CREAT and flags & fs.O_EXCL:
        raise LinuxError(EEXIST)
    if stat.S_ISLNK(node.mode) and not flags & fs.O_PATH:
        raise LinuxError(ELOOP)
    if flags & fs.O_DIRECTORY and not directory:
        raise LinuxError(ENOTDIR)
    if directory and (flags & (fs.O_CREAT | fs.O_ACCMODE)):
        raise LinuxError(EISDIR)
    if directory or flags & fs.O_PATH:
        return SyntheticFile(node, flags & ~fs.OPENED_ONCE)
    file = node.open(thread, flags & ~fs.OPENED_ONCE)
    if not file.foreign:
        file.node = file.node or node
    return file


@syscall(2, Support.FULL)
def sys_open(thread: "Thread", path: Path, flags: Int, mode: Uint) -> int:
    return open_at(thread, fs.AT_FDCWD, path, flags & fs.VALID_OPEN_FLAGS, mode)


@syscall(85, Support.FULL)
def sys_creat(thread: "Thread", path: Path, mode: Uint) -> int:
    return open_at(thread, fs.AT_FDCWD, path, fs.O_CREAT | fs.O_WRONLY | fs.O_TRUNC, mode)


@syscall(257, Support.FULL)
def sys_openat(thread: "Thread", dirfd: Fd, path: Path, flags: Int, mode: Uint) -> int:
    return open_at(thread, dirfd, path, flags & fs.VALID_OPEN_FLAGS, mode)


@syscall(437, Support.PARTIAL, note="RESOLVE_* beneath /proc: only RESOLVE_NO_MAGICLINKS")
def sys_openat2(thread: "Thread", dirfd: Fd, path: Path, how: Gva, size: Size) -> int:
    if size < fs.OPEN_HOW.size:
        raise LinuxError(EINVAL)
    if size > PAGE:
        raise LinuxError(E2BIG)
    raw = thread.mm.read(how, size)
    if any(raw[fs.OPEN_HOW.size :]):
        raise LinuxError(E2BIG)
    flags, mode, resolve = fs.OPEN_HOW.unpack_from(raw)
    creates = flags & (fs.O_CREAT | fs.O_TMPFILE & ~fs.O_DIRECTORY)
    if flags & ~fs.VALID_OPEN_FLAGS or resolve & ~fs.VALID_RESOLVE or mode & ~0o7777 or (mode and not creates):
        raise LinuxError(EINVAL)
    if flags & fs.O_PATH and flags & ~O_PATH_FLAGS:
        raise LinuxError(EINVAL)
    return open_at(thread, dirfd, path, flags, mode, resolve)


# ---- close and dup -------------------------------------------------------------------------------------------------


@syscall(3, Support.FULL)
def sys_close(thread: "Thread", fd: Fd) -> None:
    thread.files.close(fd)


@syscall(436, Support.FULL)
def sys_close_range(thread: "Thread", first: Uint, last: Uint, flags: Uint) -> None:
    if flags & ~(fs.CLOSE_RANGE_UNSHARE | fs.CLOSE_RANGE_CLOEXEC) or first > last:
        raise LinuxError(EINVAL)
    files = thread.files
    if flags & fs.CLOSE_RANGE_UNSHARE and files.users > 1:
        thread.files = files.clone()
        files.release()
        files = thread.files
    for fd, _ in files.items():
        if first <= fd <= last:
            if flags & fs.CLOSE_RANGE_CLOEXEC:
                files.set_cloexec(fd, True)
            else:
                files.close(Fd(fd))


def duplicate(thread: "Thread", fd: Fd, lowest: int, cloexec: bool) -> Fd:
    """Install another descriptor of the same description. Raises EBADF, EMFILE."""
    file = thread.files.hold(fd)
    try:
        return thread.files.add(file, cloexec, thread.process.limits.soft(RLIMIT_NOFILE), lowest)
    finally:
        file.drop()


def duplicate_to(thread: "Thread", fd: Fd, target: int, cloexec: bool) -> int:
    if not 0 <= target < thread.process.limits.soft(RLIMIT_NOFILE):
        raise LinuxError(EBADF)
    file = thread.files.hold(fd)
    try:
        thread.files.set(target, file, cloexec)
    finally:
        file.drop()
    return target


@syscall(32, Support.FULL)
def sys_dup(thread: "Thread", fd: Fd) -> int:
    return duplicate(thread, fd, 0, False)


@syscall(33, Support.FULL)
def sys_dup2(thread: "Thread", fd: Fd, target: Int) -> int:
    if fd == target:
        thread.files.get(fd)
        return target
    return duplicate_to(thread, fd, target, False)


@syscall(292, Support.FULL)
def sys_dup3(thread: "Thread", fd: Fd, target: Int, flags: Int) -> int:
    if flags & ~fs.O_CLOEXEC or fd == target:
        raise LinuxError(EINVAL)
    return duplicate_to(thread, fd, target, bool(flags & fs.O_CLOEXEC))
