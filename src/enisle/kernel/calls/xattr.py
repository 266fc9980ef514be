"""Extended attributes (xattr(7)): the host's, by path and by descriptor; a synthetic tree has none."""

import os
from collections.abc import Callable
from errno import E2BIG, EBADF, ENAMETOOLONG, EOPNOTSUPP, EPERM, ERANGE
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.paths import SyntheticNode, host_name, host_proc, resolve
from enisle.kernel.table import Int, Path, Size, Support, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

PathCall = Callable[..., int]


def on_path(thread: "Thread", path: bytes, calls: tuple[PathCall, PathCall], follow: bool, *arguments: object) -> int:
    """Do `calls[0](path, …)`, or `calls[1](fd, …)` where only a descriptor can name the file."""

    def host(directory: int, name: bytes) -> int:
        if directory == host_proc(thread.kernel):  # a magic link: open what it leads to
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
            try:
                return calls[1](fd, *arguments)
            finally:
                os.close(fd)
        return calls[0](host_name(thread, directory, name), *arguments)

    def node(_node: SyntheticNode) -> int:
        raise LinuxError(EOPNOTSUPP)

    return resolve(thread, fs.AT_FDCWD, path, host, node, follow)


def host_fd(thread: "Thread", fd: Fd, change: bool = False) -> int:
    file = thread.files.get(fd)
    if file.kind == "path":
        raise LinuxError(EBADF)
    if file.node:
        raise LinuxError(EOPNOTSUPP)
    if change and file.foreign:
        raise LinuxError(EPERM)
    return file.fd


def read_name(thread: "Thread", address: int) -> bytes:
    """Return an attribute's name. Raises ERANGE for one too long or empty."""
    try:
        name = thread.mm.read_string(address, fs.XATTR_NAME_MAX + 1)
    except LinuxError as error:
        raise LinuxError(error.errno if error.errno != ENAMETOOLONG else ERANGE) from None
    if not name:
        raise LinuxError(ERANGE)
    return name


# ---- set -----------------------------------------------------------------------------------------------------------


def read_value(thread: "Thread", address: int, size: int) -> bytes:
    if size > fs.XATTR_SIZE_MAX:
        raise LinuxError(E2BIG)
    return thread.mm.read(address, size)


@syscall(188, Support.FULL)
def sys_setxattr(thread: "Thread", path: Path, name: Gva, value: Gva, size: Size, flags: Int) -> int:
    content = read_value(thread, value, size)
    calls = (host_fs.setxattr, host_fs.fsetxattr)
    return on_path(thread, path, calls, True, read_name(thread, name), content, size, flags)


@syscall(189, Support.FULL)
def sys_lsetxattr(thread: "Thread", path: Path, name: Gva, value: Gva, size: Size, flags: Int) -> int:
    content = read_value(thread, value, size)
    calls = (host_fs.lsetxattr, host_fs.fsetxattr)
    return on_path(thread, path, calls, False, read_name(thread, name), content, size, flags)


@syscall(190, Support.FULL)
def sys_fsetxattr(thread: "Thread", fd: Fd, name: Gva, value: Gva, size: Size, flags: Int) -> int:
    content = read_value(thread, value, size)
    return host_fs.fsetxattr(host_fd(thread, fd, change=True), read_name(thread, name), content, size, flags)


# ---- get and list: `call(buffer, size)` fills the buffer -------------------------------------------------------------


def fetch(thread: "Thread", place: int, size: int, most: int, call: Callable[[object, int], int]) -> int:
    """Let the host fill a buffer of at most `most` bytes and copy it out; size 0 only asks for the length."""
    if not size:
        return call(None, 0)
    found = host_fs.buffer(min(size, most))
    length = call(found, len(found))
    thread.mm.write(place, found.raw[:length])
    return length


@syscall(191, Support.FULL)
def sys_getxattr(thread: "Thread", path: Path, name: Gva, value: Gva, size: Size) -> int:
    key, calls = read_name(thread, name), (host_fs.getxattr, host_fs.fgetxattr)
    return fetch(thread, value, size, fs.XATTR_SIZE_MAX, lambda to, n: on_path(thread, path, calls, True, key, to, n))


@syscall(192, Support.FULL)
def sys_lgetxattr(thread: "Thread", path: Path, name: Gva, value: Gva, size: Size) -> int:
    key, calls = read_name(thread, name), (host_fs.lgetxattr, host_fs.fgetxattr)
    return fetch(thread, value, size, fs.XATTR_SIZE_MAX, lambda to, n: on_path(thread, path, calls, False, key, to, n))


@syscall(193, Support.FULL)
def sys_fgetxattr(thread: "Thread", fd: Fd, name: Gva, value: Gva, size: Size) -> int:
    key, host = read_name(thread, name), host_fd(thread, fd)
    return fetch(thread, value, size, fs.XATTR_SIZE_MAX, lambda to, n: host_fs.fgetxattr(host, key, to, n))


@syscall(194, Support.FULL)
def sys_listxattr(thread: "Thread", path: Path, place: Gva, size: Size) -> int:
    calls = (host_fs.listxattr, host_fs.flistxattr)
    return fetch(thread, place, size, fs.XATTR_LIST_MAX, lambda to, n: on_path(thread, path, calls, True, to, n))


@syscall(195, Support.FULL)
def sys_llistxattr(thread: "Thread", path: Path, place: Gva, size: Size) -> int:
    calls = (host_fs.llistxattr, host_fs.flistxattr)
    return fetch(thread, place, size, fs.XATTR_LIST_MAX, lambda to, n: on_path(thread, path, calls, False, to, n))


@syscall(196, Support.FULL)
def sys_flistxattr(thread: "Thread", fd: Fd, place: Gva, size: Size) -> int:
    host = host_fd(thread, fd)
    return fetch(thread, place, size, fs.XATTR_LIST_MAX, lambda to, n: host_fs.flistxattr(host, to, n))


# ---- remove --------------------------------------------------------------------------------------------------------


@syscall(197, Support.FULL)
def sys_removexattr(thread: "Thread", path: Path, name: Gva) -> int:
    calls = (host_fs.removexattr, host_fs.fremovexattr)
    return on_path(thread, path, calls, True, read_name(thread, name))


@syscall(198, Support.FULL)
def sys_lremovexattr(thread: "Thread", path: Path, name: Gva) -> int:
    calls = (host_fs.lremovexattr, host_fs.fremovexattr)
    return on_path(thread, path, calls, False, read_name(thread, name))


@syscall(199, Support.FULL)
def sys_fremovexattr(thread: "Thread", fd: Fd, name: Gva) -> int:
    return host_fs.fremovexattr(host_fd(thread, fd, change=True), read_name(thread, name))
