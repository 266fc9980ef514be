"""The host's time-stamp counter, read by RDTSC in a page of our own (SDM 2B, RDTSC)."""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

# lfence; rdtsc; shl rdx, 32; or rax, rdx; ret
_CODE = bytes.fromhex("0faee8 0f31 48c1e220 4809d0 c3")
_page: list[mmap.mmap] = []


def reader() -> Callable[[], int] | None:
    """Return a function that reads the counter, or None where the host forbids executable anonymous memory."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_CODE)
    _page.append(page)  # lives as long as the process: the function points into it
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_uint64)(address)


@cache
def is_invariant() -> bool:
    """Return whether the kernel trusts the counter to tick at one rate on all cores. Asked once, of /proc/cpuinfo."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("flags"):
                flags = line.split()
                return "constant_tsc" in flags and "nonstop_tsc" in flags
    return False
