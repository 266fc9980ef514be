"""Changing what a file is: chmod(2), chown(2), utimensat(2), umask(2)."""

import os
import stat
from errno import EBADF, EINVAL, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.paths import host_proc, refuse, resolve
from enisle.kernel.table import Int, Path, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

MICROSECOND_NS = 1000


def own_file(thread: "Thread", fd: int, by_path: bool = False) -> OpenFile:
    """Return an open file whose attributes may be changed; `by_path`: one of O_PATH will do.

    Raises EBADF, and EPERM for synthetic files and for the caller's, whose mode, owner and times are the host's.
    """
    file = thread.files.get(Fd(fd))
    if file.kind == "path" and not by_path:
        raise LinuxError(EBADF)
    if file.node or file.foreign:
        raise LinuxError(EPERM)
    return file


# ---- mode ----------------------------------------------------------------------------------------------------------


def change_mode(thread: "Thread", dirfd: int, path: bytes, mode: int) -> None:
    resolve(thread, dirfd, path, lambda directory, name: host_fs.fchmodat(directory, name, mode & 0o7777), refuse)


@syscall(90, Support.FULL)
def sys_chmod(thread: "Thread", path: Path, mode: Uint) -> None:
    change_mode(thread, fs.AT_FDCWD, path, mode)


@syscall(91, Support.FULL)
def sys_fchmod(thread: "Thread", fd: Fd, mode: Uint) -> None:
    os.fchmod(own_file(thread, fd).fd, mode & 0o7777)


@syscall(268, Support.FULL)
def sys_fchmodat(thread: "Thread", dirfd: Fd, path: Path, mode: Uint) -> None:
    change_mode(thread, dirfd, path, mode)


@syscall(452, Support.FULL)
def sys_fchmodat2(thread: "Thread", dirfd: Fd, path: Path, mode: Uint, flags: Uint) -> None:
    if flags & ~(fs.AT_SYMLINK_NOFOLLOW | fs.AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    if not flags:
        change_mode(thread, dirfd, path, mode)
        return
    proc = host_proc(thread.kernel)

    def change(directory: int, name: bytes) -> int:
        link = os.O_NOFOLLOW if flags & fs.AT_SYMLINK_NOFOLLOW else 0
        fd = os.open(name, os.O_PATH | os.O_CLOEXEC | link, dir_fd=directory)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise LinuxError(EOPNOTSUPP)
            return host_fs.fchmodat(proc, b"fd/%d" % fd, mode & 0o7777)
        finally:
            os.close(fd)

    if not path and flags & fs.AT_EMPTY_PATH:
        if dirfd == fs.AT_FDCWD:
            change(thread.fs.cwd, b".")
        else:
            host_fs.fchmodat(proc, b"fd/%d" % own_file(thread, dirfd, by_path=True).fd, mode & 0o7777)
        return
    resolve(thread, dirfd, path, change, refuse, not flags & fs.AT_SYMLINK_NOFOLLOW)


@syscall(95, Support.FULL)
def sys_umask(thread: "Thread", mask: Uint) -> int:
    old, thread.fs.umask = thread.fs.umask, mask & 0o777
    return old


# ---- owner ---------------------------------------------------------------------------------------------------------


def change_owner(thread: "Thread", dirfd: int, path: bytes, owner: tuple[int, int], flags: int) -> None:
    if flags & ~(fs.AT_SYMLINK_NOFOLLOW | fs.AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    if not path and flags & fs.AT_EMPTY_PATH and dirfd != fs.AT_FDCWD:
        host_fs.fchownat(own_file(thread, dirfd, by_path=True).fd, b"", *owner, fs.AT_EMPTY_PATH)
        return
    kept = flags & fs.AT_SYMLINK_NOFOLLOW
    if not path and flags & fs.AT_EMPTY_PATH:
        path = b"."
    resolve(
        thread,
        dirfd,
        path,
        lambda directory, name: host_fs.fchownat(directory, name, *owner, kept),
        refuse,
        not kept,
    )


@syscall(92, Support.FULL)
def sys_chown(thread: "Thread", path: Path, uid: Uint, gid: Uint) -> None:
    change_owner(thread, fs.AT_FDCWD, path, (uid, gid), 0)


@syscall(93, Support.FULL)
def sys_fchown(thread: "Thread", fd: Fd, uid: Uint, gid: Uint) -> None:
    host_fs.fchownat(own_file(thread, fd).fd, b"", uid, gid, fs.AT_EMPTY_PATH)


@syscall(94, Support.FULL)
def sys_lchown(thread: "Thread", path: Path, uid: Uint, gid: Uint) -> None:
    change_owner(thread, fs.AT_FDCWD, path, (uid, gid), fs.AT_SYMLINK_NOFOLLOW)


@syscall(260, Support.FULL)
def sys_fchownat(thread: "Thread", dirfd: Fd, path: Path, uid: Uint, gid: Uint, flags: Int) -> None:
    change_owner(thread, dirfd, path, (uid, gid), flags)


# ---- times ---------------------------------------------------------------------------------------------------------


def change_times(thread: "Thread", dirfd: int, path: bytes | None, times: bytes | None, flags: int) -> None:
    """Set access and modification time from two packed timespecs, or to now. utimensat(2)."""
    if flags & ~(fs.AT_SYMLINK_NOFOLLOW | fs.AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    if path is None or (not path and flags & fs.AT_EMPTY_PATH and dirfd != fs.AT_FDCWD):
        if path is None and flags:
            raise LinuxError(EINVAL)
        file = own_file(thread, dirfd, by_path=path is not None)
        host_fs.utimensat(host_proc(thread.kernel), b"fd/%d" % file.fd, times, 0)
        return
    kept = flags & fs.AT_SYMLINK_NOFOLLOW
    if not path and flags & fs.AT_EMPTY_PATH:
        path = b"."
    resolve(
        thread, dirfd, path, lambda directory, name: host_fs.utimensat(directory, name, times, kept), refuse, not kept
    )


def read_timevals(thread: "Thread", address: int) -> bytes | None:
    """Return two timevals as timespecs. Raises EINVAL, EFAULT."""
    if not address:
        return None
    packed = b""
    for seconds, microseconds in fs.TIMESPEC.iter_unpack(thread.mm.read(address, 2 * fs.TIMESPEC.size)):
        if not 0 <= microseconds < 1_000_000:
            raise LinuxError(EINVAL)
        packed += fs.TIMESPEC.pack(seconds, microseconds * MICROSECOND_NS)
    return packed


@syscall(132, Support.FULL)
def sys_utime(thread: "Thread", path: Path, times: Gva) -> None:
    packed = None
    if times:
        access, modified = fs.TIMESPEC.unpack(thread.mm.read(times, fs.TIMESPEC.size))
        packed = fs.TIMESPEC.pack(access, 0) + fs.TIMESPEC.pack(modified, 0)
    change_times(thread, fs.AT_FDCWD, path, packed, 0)


@syscall(235, Support.FULL)
def sys_utimes(thread: "Thread", path: Path, times: Gva) -> None:
    change_times(thread, fs.AT_FDCWD, path, read_timevals(thread, times), 0)


@syscall(261, Support.FULL)
def sys_futimesat(thread: "Thread", dirfd: Fd, path: Gva, times: Gva) -> None:
    name = thread.mm.read_path(path) if path else None
    change_times(thread, dirfd, name, read_timevals(thread, times), 0)


@syscall(280, Support.FULL)
def sys_utimensat(thread: "Thread", dirfd: Fd, path: Gva, times: Gva, flags: Int) -> None:
    packed = thread.mm.read(times, 2 * fs.TIMESPEC.size) if times else None
    if packed and all(int.from_bytes(packed[at : at + 8], "little") == fs.UTIME_OMIT for at in (8, 24)):
        return
    change_times(thread, dirfd, thread.mm.read_path(path) if path else None, packed, flags)
