"""Sizes and contents on disk: truncate(2), fallocate(2), fsync(2), readahead(2), posix_fadvise(2)."""

import os
import stat
from errno import EINVAL, EISDIR, ESPIPE
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.host import FALLOC_FL_PUNCH_HOLE
from enisle.abi.types import Fd
from enisle.errors import LinuxError
from enisle.kernel.paths import refuse, resolve
from enisle.kernel.table import Int, Long, Path, Size, Support, Uint, syscall
from enisle.kernel.transfer import require_size

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread


def check_length(thread: "Thread", length: int) -> None:
    if length < 0:
        raise LinuxError(EINVAL)
    if length:
        require_size(thread, length - 1)


@syscall(76, Support.FULL)
def sys_truncate(thread: "Thread", path: Path, length: Long) -> None:
    check_length(thread, length)

    def cut(directory: int, name: bytes) -> int:
        kind = os.stat(name, dir_fd=directory).st_mode
        if not stat.S_ISREG(kind):
            raise LinuxError(EISDIR if stat.S_ISDIR(kind) else EINVAL)
        fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.ftruncate(fd, length)
        finally:
            os.close(fd)
        return 0

    resolve(thread, fs.AT_FDCWD, path, cut, refuse)


@syscall(77, Support.FULL)
def sys_ftruncate(thread: "Thread", fd: Fd, length: Long) -> None:
    file = thread.files.get(fd)
    check_length(thread, length)
    file.require_room(thread, length)
    os.ftruncate(file.fd, length)


@syscall(285, Support.FULL)
def sys_fallocate(thread: "Thread", fd: Fd, mode: Int, offset: Long, length: Long) -> int:
    file = thread.files.get(fd)
    if offset < 0 or length <= 0:
        raise LinuxError(EINVAL)
    if not mode:
        require_size(thread, offset + length - 1)
    if file.bounded and not mode & FALLOC_FL_PUNCH_HOLE:
        file.require_room(thread, offset + length)
    return host_fs.fallocate(file.fd, mode, offset, length)


@syscall(74, Support.FULL)
def sys_fsync(thread: "Thread", fd: Fd) -> None:
    os.fsync(thread.files.get(fd).fd)


@syscall(75, Support.FULL)
def sys_fdatasync(thread: "Thread", fd: Fd) -> None:
    os.fdatasync(thread.files.get(fd).fd)


@syscall(162, Support.PARTIAL, note="the island's root file system, not every one of the host")
def sys_sync(_thread: "Thread") -> None:
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        host_fs.syncfs(root)
    finally:
        os.close(root)


@syscall(306, Support.FULL)
def sys_syncfs(thread: "Thread", fd: Fd) -> int:
    return host_fs.syncfs(thread.files.get(fd).fd)


@syscall(277, Support.FULL)
def sys_sync_file_range(thread: "Thread", fd: Fd, offset: Long, size: Long, flags: Uint) -> int:
    return host_fs.sync_file_range(thread.files.get(fd).fd, offset, size, flags)


@syscall(187, Support.FULL)
def sys_readahead(thread: "Thread", fd: Fd, offset: Long, count: Size) -> int:
    return host_fs.readahead(thread.files.get(fd).fd, offset, count)


@syscall(221, Support.FULL)
def sys_fadvise64(thread: "Thread", fd: Fd, offset: Long, size: Long, advice: Int) -> int:
    file = thread.files.get(fd)
    if file.kind == "pipe":
        raise LinuxError(ESPIPE)
    return host_fs.fadvise64(file.fd, offset, size, advice)
