"""Descriptors without a path: eventfd(2), memfd_create(2), inotify(7); and what an island refuses."""

import os
from errno import EINVAL, ENAMETOOLONG, ENOSYS, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.linux_mman import MFD_ALLOW_SEALING, MFD_CLOEXEC
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel import memory_files
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.paths import SyntheticNode, host_name, resolve
from enisle.kernel.table import Int, Path, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

IN_DONT_FOLLOW = 0x0200_0000


class EventFile(OpenFile):
    """An eventfd or an inotify instance: read and written in whole records."""

    seekable = stream = False

    def __init__(self, fd: int, flags: int, kind: str) -> None:
        access = fs.O_RDWR if kind == "eventfd" else fs.O_RDONLY
        super().__init__(fd, access | flags, b"anon_inode:[%s]" % kind.encode(), blocking=True)
        self.kind = kind


def install(thread: "Thread", file: OpenFile, cloexec: int) -> Fd:
    return thread.files.add(file, bool(cloexec), thread.process.limits.soft(RLIMIT_NOFILE))


# ---- eventfd -------------------------------------------------------------------------------------------------------


def make_eventfd(thread: "Thread", count: int, flags: int) -> Fd:
    if flags & ~(fs.EFD_SEMAPHORE | fs.O_CLOEXEC | fs.O_NONBLOCK):
        raise LinuxError(EINVAL)
    host = os.eventfd(count, (flags & fs.EFD_SEMAPHORE) | os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    return install(thread, EventFile(host, flags & fs.O_NONBLOCK, "eventfd"), flags & fs.O_CLOEXEC)


@syscall(284, Support.FULL)
def sys_eventfd(thread: "Thread", count: Uint) -> int:
    return make_eventfd(thread, count, 0)


@syscall(290, Support.FULL)
def sys_eventfd2(thread: "Thread", count: Uint, flags: Int) -> int:
    return make_eventfd(thread, count, flags)


# ---- memfd ---------------------------------------------------------------------------------------------------------


@syscall(319, Support.PARTIAL, note="no huge pages; sealable ones share a quarter of the memory")
def sys_memfd_create(thread: "Thread", name: Gva, flags: Uint) -> int:
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING):
        raise LinuxError(EINVAL)
    try:
        text = thread.mm.read_string(name, fs.MFD_NAME_MAX + 1)
    except LinuxError as error:
        raise LinuxError(EINVAL if error.errno == ENAMETOOLONG else error.errno) from None
    path = b"/memfd:%s (deleted)" % text
    file = memory_files.make_memfd(text, bool(flags & MFD_ALLOW_SEALING), fs.O_RDWR | fs.O_LARGEFILE, path)
    return install(thread, file, flags & MFD_CLOEXEC)


# ---- inotify -------------------------------------------------------------------------------------------------------


def make_inotify(thread: "Thread", flags: int) -> Fd:
    if flags & ~(fs.IN_CLOEXEC | fs.IN_NONBLOCK):
        raise LinuxError(EINVAL)
    file = EventFile(host_fs.inotify_init1(fs.IN_CLOEXEC | fs.IN_NONBLOCK), flags & fs.IN_NONBLOCK, "inotify")
    return install(thread, file, flags & fs.IN_CLOEXEC)


@syscall(253, Support.FULL)
def sys_inotify_init(thread: "Thread") -> int:
    return make_inotify(thread, 0)


@syscall(294, Support.FULL)
def sys_inotify_init1(thread: "Thread", flags: Int) -> int:
    return make_inotify(thread, flags)


@syscall(254, Support.PARTIAL, note="nothing in /proc can be watched (EOPNOTSUPP)")
def sys_inotify_add_watch(thread: "Thread", fd: Fd, path: Path, mask: Uint) -> int:
    file = thread.files.get(fd)
    if file.kind != "inotify":
        raise LinuxError(EINVAL)

    def watch(directory: int, name: bytes) -> int:
        return host_fs.inotify_add_watch(file.fd, host_name(thread, directory, name), mask)

    def no_watch(_node: SyntheticNode) -> int:
        raise LinuxError(EOPNOTSUPP)

    return resolve(thread, fs.AT_FDCWD, path, watch, no_watch, not mask & IN_DONT_FOLLOW)


@syscall(255, Support.FULL)
def sys_inotify_rm_watch(thread: "Thread", fd: Fd, watch: Int) -> int:
    file = thread.files.get(fd)
    if file.kind != "inotify":
        raise LinuxError(EINVAL)
    return host_fs.inotify_rm_watch(file.fd, watch)


# ---- refused -------------------------------------------------------------------------------------------------------


@syscall(303, Support.ABSENT, note="file handles have no meaning on an island (EOPNOTSUPP)")
def sys_name_to_handle_at(_thread: "Thread") -> None:
    raise LinuxError(EOPNOTSUPP)


@syscall(304, Support.ABSENT, note="file handles have no meaning on an island (EPERM)")
def sys_open_by_handle_at(_thread: "Thread") -> None:
    raise LinuxError(EPERM)


@syscall(300, Support.ABSENT)
def sys_fanotify_init(_thread: "Thread") -> None:
    raise LinuxError(ENOSYS)


@syscall(301, Support.ABSENT)
def sys_fanotify_mark(_thread: "Thread") -> None:
    raise LinuxError(ENOSYS)


@syscall(179, Support.ABSENT)
def sys_quotactl(_thread: "Thread") -> None:
    raise LinuxError(ENOSYS)
