"""The host's side of guest memory: mapping over a range in place, and making the host forget its own translations.

A change of a host mapping is what a hypervisor hears of (mmu notifier): it drops its translations of the range.
"""

import ctypes
import mmap
import os

from enisle.errors import HostError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


def place(address: int, size: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> None:
    """Map over `[address, address + size)`, whatever is there. Raises OSError."""
    if _libc.mmap(address, size, prot, flags | MAP_FIXED, fd, offset) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def refresh_private(address: int, size: int) -> None:
    """Drop the translations of private pages, readable and writable, which keep their contents.

    The pages become executable and back: that changes the host's entries, and no access fails in between. Where a
    `noexec` file system or a policy forbids it they become read-only for a moment: a store of ours there would be
    SIGSEGV, so only the last resort.
    """
    for passing in (READ_WRITE | mmap.PROT_EXEC, mmap.PROT_READ):
        if not _libc.mprotect(address, size, passing):
            break
    if _libc.mprotect(address, size, READ_WRITE):
        raise HostError("cannot flush guest memory", os.strerror(ctypes.get_errno()))


def refresh_shared(address: int, size: int) -> None:
    """Drop the translations of shared pages, whose contents live in their file."""
    if _libc.madvise(address, size, mmap.MADV_DONTNEED):
        raise HostError("cannot flush guest memory", os.strerror(ctypes.get_errno()))
