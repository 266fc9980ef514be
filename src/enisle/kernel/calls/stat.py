"""What a file is: stat(2), statx(2), access(2), statfs(2), readlink(2)."""

import os
from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.paths import PROC_DEVICE, SyntheticNode, base_of, resolve
from enisle.kernel.table import Int, Path, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

STAT_FLAGS = fs.AT_SYMLINK_NOFOLLOW | fs.AT_NO_AUTOMOUNT | fs.AT_EMPTY_PATH | fs.AT_STATX_SYNC_TYPE
ACCESS_FLAGS = fs.AT_EACCESS | fs.AT_SYMLINK_NOFOLLOW | fs.AT_EMPTY_PATH


# ---- stat ----------------------------------------------------------------------------------------------------------


def status_of(file: OpenFile) -> bytes:
    """Return `struct stat` of an open file."""
    return file.node.status() if file.node else host_fs.stat_fd(file.fd)


def status_at(thread: "Thread", dirfd: int, path: bytes, flags: int) -> bytes:
    """Return `struct stat` of what a path names (newfstatat(2))."""
    if flags & ~STAT_FLAGS:
        raise LinuxError(EINVAL)
    if not path and flags & fs.AT_EMPTY_PATH:
        if dirfd != fs.AT_FDCWD:
            return status_of(thread.files.get(Fd(dirfd)))
        path = b"."
    kept = flags & ~fs.AT_EMPTY_PATH
    return resolve(
        thread,
        dirfd,
        path,
        lambda directory, name: host_fs.stat_at(directory, name, kept),
        SyntheticNode.status,
        not flags & fs.AT_SYMLINK_NOFOLLOW,
    )


@syscall(4, Support.FULL)
def sys_stat(thread: "Thread", path: Path, place: Gva) -> None:
    thread.mm.write(place, status_at(thread, fs.AT_FDCWD, path, 0))


@syscall(5, Support.FULL)
def sys_fstat(thread: "Thread", fd: Fd, place: Gva) -> None:
    thread.mm.write(place, status_of(thread.files.get(fd)))


@syscall(6, Support.FULL)
def sys_lstat(thread: "Thread", path: Path, place: Gva) -> None:
    thread.mm.write(place, status_at(thread, fs.AT_FDCWD, path, fs.AT_SYMLINK_NOFOLLOW))


@syscall(262, Support.FULL)
def sys_newfstatat(thread: "Thread", dirfd: Fd, path: Path, place: Gva, flags: Int) -> None:
    thread.mm.write(place, status_at(thread, dirfd, path, flags))


def statx_of_node(node: SyntheticNode) -> bytes:
    """Return `struct statx` of a synthetic node, made of its `struct stat`."""
    status = fs.STAT.unpack(node.status())
    device, inode, links, mode, uid, gid, _, rdev, size, block, blocks = status[:11]
    access, modified, changed = (status[at] for at in (11, 13, 15))
    times = (access, 0, 0, 0, 0, 0, changed, 0, 0, modified, 0, 0)
    numbers = (os.major(rdev), os.minor(rdev), os.major(device), os.minor(device), 0, 0, 0)
    head = (fs.STATX_BASIC_STATS, block, 0, links, uid, gid, mode, 0, inode, size, blocks, 0)
    return fs.STATX.pack(*head, *times, *numbers).ljust(fs.STATX_SIZE, b"\0")


@syscall(332, Support.FULL)
def sys_statx(thread: "Thread", dirfd: Fd, path: Path, flags: Uint, mask: Uint, place: Gva) -> None:
    if mask & fs.STATX_RESERVED or flags & ~STAT_FLAGS or flags & fs.AT_STATX_SYNC_TYPE == fs.AT_STATX_SYNC_TYPE:
        raise LinuxError(EINVAL)
    if not path and flags & fs.AT_EMPTY_PATH:
        if dirfd != fs.AT_FDCWD:
            file = thread.files.get(dirfd)
            found = statx_of_node(file.node) if file.node else host_fs.statx(file.fd, b"", flags, mask)
            thread.mm.write(place, found)
            return
        path = Path(b".")
    kept = flags & ~fs.AT_EMPTY_PATH
    found = resolve(
        thread,
        dirfd,
        path,
        lambda directory, name: host_fs.statx(directory, name, kept, mask),
        statx_of_node,
        not flags & fs.AT_SYMLINK_NOFOLLOW,
    )
    thread.mm.write(place, found)


# ---- access --------------------------------------------------------------------------------------------------------


def access_at(thread: "Thread", dirfd: int, path: bytes, mode: int, flags: int) -> None:
    if mode & ~(fs.R_OK | fs.W_OK | fs.X_OK) or flags & ~ACCESS_FLAGS:
        raise LinuxError(EINVAL)
    if not path and flags & fs.AT_EMPTY_PATH:
        file = None if dirfd == fs.AT_FDCWD else thread.files.get(Fd(dirfd))
        if file:
            if file.node:
                file.node.access(thread, mode)
            else:
                host_fs.faccessat2(file.fd, b"", mode, fs.AT_EMPTY_PATH)
            return
        path = b"."
    kept = flags & fs.AT_SYMLINK_NOFOLLOW
    resolve(
        thread,
        dirfd,
        path,
        lambda directory, name: host_fs.faccessat2(directory, name, mode, kept),
        lambda node: node.access(thread, mode),
        not kept,
    )


@syscall(21, Support.FULL)
def sys_access(thread: "Thread", path: Path, mode: Int) -> None:
    access_at(thread, fs.AT_FDCWD, path, mode, 0)


@syscall(269, Support.FULL)
def sys_faccessat(thread: "Thread", dirfd: Fd, path: Path, mode: Int) -> None:
    access_at(thread, dirfd, path, mode, 0)


@syscall(439, Support.FULL)
def sys_faccessat2(thread: "Thread", dirfd: Fd, path: Path, mode: Int, flags: Int) -> None:
    access_at(thread, dirfd, path, mode, flags)


# ---- statfs --------------------------------------------------------------------------------------------------------

PROC_STATFS = fs.STATFS.pack(fs.PROC_SUPER_MAGIC, 4096, 0, 0, 0, 0, 0, PROC_DEVICE, 0, 255, 4096, 0x20)


def statfs_at(directory: int, path: bytes) -> bytes:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    try:
        return host_fs.statfs_fd(fd)
    finally:
        os.close(fd)


@syscall(137, Support.FULL)
def sys_statfs(thread: "Thread", path: Path, place: Gva) -> None:
    thread.mm.write(place, resolve(thread, fs.AT_FDCWD, path, statfs_at, lambda _node: PROC_STATFS))


@syscall(138, Support.FULL)
def sys_fstatfs(thread: "Thread", fd: Fd, place: Gva) -> None:
    file = thread.files.get(fd)
    thread.mm.write(place, PROC_STATFS if file.node else host_fs.statfs_fd(file.fd))


# ---- readlink ------------------------------------------------------------------------------------------------------


def readlink_at(thread: "Thread", dirfd: int, path: bytes, place: int, size: int) -> int:
    if size <= 0:
        raise LinuxError(EINVAL)
    if path:
        target = resolve(
            thread,
            dirfd,
            path,
            lambda directory, name: os.readlink(name, dir_fd=directory),
            lambda node: node.readlink(thread),
            follow=False,
        )
    else:
        base = base_of(thread, dirfd, b"")
        if dirfd == fs.AT_FDCWD:
            raise LinuxError(ENOENT)
        target = os.readlink(b"", dir_fd=base) if isinstance(base, int) else base.readlink(thread)
    thread.mm.write(place, target[:size])
    return min(len(target), size)


@syscall(89, Support.FULL)
def sys_readlink(thread: "Thread", path: Path, place: Gva, size: Int) -> int:
    return readlink_at(thread, fs.AT_FDCWD, path, place, size)


@syscall(267, Support.FULL)
def sys_readlinkat(thread: "Thread", dirfd: Fd, path: Path, place: Gva, size: Int) -> int:
    return readlink_at(thread, dirfd, path, place, size)
