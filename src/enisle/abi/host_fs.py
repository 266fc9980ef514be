"""Thin typed host calls on files that Python's `os` lacks or answers with objects: structures come back as bytes.

Arguments in, an integer or bytes out, OSError on failure. Any thread may call; the GIL is released.
"""

from collections.abc import Callable
from ctypes import (
    CDLL,
    Array,
    addressof,
    c_char,
    c_char_p,
    c_int,
    c_long,
    c_size_t,
    c_uint,
    c_void_p,
    create_string_buffer,
)
from ctypes import get_errno as _get_errno
from errno import EINTR
from mmap import PAGESIZE, mmap
from os import strerror
from typing import Any

from enisle.abi import linux_fs as fs

_LIBC = CDLL(None, use_errno=True)


def _prototype(*arguments: Any) -> Any:
    """Return libc's syscall(2) with these argument types."""
    function: Any = _LIBC["syscall"]
    function.argtypes = (c_long, *arguments)
    function.restype = c_long
    return function


def _declare(number: int, *arguments: Any) -> Callable[..., int]:
    function = _prototype(*arguments)

    def call(*values: Any) -> int:
        while True:
            value = function(number, *values)
            if value != -1:
                return value
            errno = _get_errno()
            if errno != EINTR:  # as PEP 475: a signal of ours to the host thread is no business of the call
                raise OSError(errno, strerror(errno))

    return call


# The most frequent two go without the wrapper; they are never interrupted.
_newfstatat = _prototype(c_int, c_char_p, c_void_p, c_int)
_fstat = _prototype(c_int, c_void_p)
_Stat = c_char * fs.STAT_SIZE
_statx = _declare(fs.NR_STATX, c_int, c_char_p, c_int, c_uint, c_void_p)
_fstatfs = _declare(fs.NR_FSTATFS, c_int, c_void_p)
_getdents64 = _declare(fs.NR_GETDENTS64, c_int, c_void_p, c_uint)
_getdents = _declare(fs.NR_GETDENTS, c_int, c_void_p, c_uint)
_openat2 = _declare(fs.NR_OPENAT2, c_int, c_char_p, c_char_p, c_size_t)

renameat2 = _declare(fs.NR_RENAMEAT2, c_int, c_char_p, c_int, c_char_p, c_uint)
linkat = _declare(fs.NR_LINKAT, c_int, c_char_p, c_int, c_char_p, c_int)
fallocate = _declare(fs.NR_FALLOCATE, c_int, c_int, c_long, c_long)
fadvise64 = _declare(fs.NR_FADVISE64, c_int, c_long, c_long, c_int)
readahead = _declare(fs.NR_READAHEAD, c_int, c_long, c_size_t)
sync_file_range = _declare(fs.NR_SYNC_FILE_RANGE, c_int, c_long, c_long, c_uint)
syncfs = _declare(fs.NR_SYNCFS, c_int)
utimensat = _declare(fs.NR_UTIMENSAT, c_int, c_char_p, c_char_p, c_int)
faccessat2 = _declare(fs.NR_FACCESSAT2, c_int, c_char_p, c_int, c_int)
fchmodat = _declare(fs.NR_FCHMODAT, c_int, c_char_p, c_uint)
fchownat = _declare(fs.NR_FCHOWNAT, c_int, c_char_p, c_uint, c_uint, c_int)
splice = _declare(fs.NR_SPLICE, c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint)
tee = _declare(fs.NR_TEE, c_int, c_int, c_size_t, c_uint)
copy_file_range = _declare(fs.NR_COPY_FILE_RANGE, c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint)
sendfile = _declare(fs.NR_SENDFILE, c_int, c_int, c_void_p, c_size_t)
lseek = _declare(fs.NR_LSEEK, c_int, c_long, c_int)
inotify_init1 = _declare(fs.NR_INOTIFY_INIT1, c_int)
inotify_add_watch = _declare(fs.NR_INOTIFY_ADD_WATCH, c_int, c_char_p, c_uint)
inotify_rm_watch = _declare(fs.NR_INOTIFY_RM_WATCH, c_int, c_int)
setxattr = _declare(fs.NR_SETXATTR, c_char_p, c_char_p, c_char_p, c_size_t, c_int)
lsetxattr = _declare(fs.NR_LSETXATTR, c_char_p, c_char_p, c_char_p, c_size_t, c_int)
fsetxattr = _declare(fs.NR_FSETXATTR, c_int, c_char_p, c_char_p, c_size_t, c_int)
removexattr = _declare(fs.NR_REMOVEXATTR, c_char_p, c_char_p)
lremovexattr = _declare(fs.NR_LREMOVEXATTR, c_char_p, c_char_p)
fremovexattr = _declare(fs.NR_FREMOVEXATTR, c_int, c_char_p)
getxattr = _declare(fs.NR_GETXATTR, c_char_p, c_char_p, c_void_p, c_size_t)
lgetxattr = _declare(fs.NR_LGETXATTR, c_char_p, c_char_p, c_void_p, c_size_t)
fgetxattr = _declare(fs.NR_FGETXATTR, c_int, c_char_p, c_void_p, c_size_t)
listxattr = _declare(fs.NR_LISTXATTR, c_char_p, c_void_p, c_size_t)
llistxattr = _declare(fs.NR_LLISTXATTR, c_char_p, c_void_p, c_size_t)
flistxattr = _declare(fs.NR_FLISTXATTR, c_int, c_void_p, c_size_t)


def untouchable_page() -> memoryview:
    """Return a writable view of a page that faults when touched: a host call on it answers EFAULT."""
    page = mmap(-1, PAGESIZE)
    address = addressof(c_char.from_buffer(page))
    protect: Any = _LIBC.mprotect
    protect.argtypes = (c_void_p, c_size_t, c_int)
    if protect(address, PAGESIZE, 0):
        raise OSError(_get_errno(), strerror(_get_errno()), "mprotect")
    return memoryview(page)


def buffer(size: int) -> "Array[c_char]":
    """Return zeroed memory for a call to fill; `.raw` is its contents."""
    return create_string_buffer(size)


def stat_at(directory: int, path: bytes, flags: int) -> bytes:
    """Return `struct stat` as bytes: newfstatat(2)."""
    found = _Stat()
    if _newfstatat(fs.NR_NEWFSTATAT, directory, path, found, flags):
        raise OSError(_get_errno(), "newfstatat")
    return found.raw


def stat_fd(fd: int) -> bytes:
    found = _Stat()
    if _fstat(fs.NR_FSTAT, fd, found):
        raise OSError(_get_errno(), "fstat")
    return found.raw


def statx(directory: int, path: bytes, flags: int, mask: int) -> bytes:
    """Return `struct statx` as bytes."""
    found = create_string_buffer(fs.STATX_SIZE)
    _statx(directory, path, flags, mask, found)
    return found.raw


def statfs_fd(fd: int) -> bytes:
    """Return `struct statfs` as bytes."""
    found = create_string_buffer(fs.STATFS_SIZE)
    _fstatfs(fd, found)
    return found.raw


def getdents(fd: int, size: int, wide: bool) -> bytes:
    """Return directory entries as the kernel packs them: `struct linux_dirent64`, or the old one."""
    found = create_string_buffer(size)
    length = (_getdents64 if wide else _getdents)(fd, found, size)
    return found.raw[:length]


def openat2(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = fs.OPEN_HOW.pack(flags, mode, resolve)
    return _openat2(directory, path, how, len(how))
