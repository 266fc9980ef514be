"""One atomic operation on the host's own memory: a locked compare-and-exchange of 32 bits (SDM 2A, CMPXCHG).

Python has none, and a futex word is changed by guest processors while the kernel changes it. The call keeps the GIL.
"""

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import cache

CODE = bytes(
    (
        *(0x89, 0xF0),  # mov eax, esi
        *(0xF0, 0x0F, 0xB1, 0x17),  # lock cmpxchg [rdi], edx
        0xC3,  # ret
    )
)


@cache
def _compiled() -> Callable[[int, int, int], int]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    fd = os.memfd_create("atomic", os.MFD_CLOEXEC)
    try:
        os.write(fd, CODE)
        page = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)
    if page == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    kind = ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
    return kind(page)


def prepare() -> None:
    """Make the operation ready, where mapping code may be forbidden later."""
    _compiled()


def compare_exchange_u32(address: int, expected: int, value: int) -> int:
    """Store `value` at the host address if it holds `expected`; return what it held.

    Requires: four aligned bytes that are mapped and writable.
    """
    assert not address & 3, f"{address=:#x}"
    return _compiled()(address, expected, value)
