"""The host's time-stamp counter and its clocks, read together by a few instructions of our own (SDM 2B, RDTSC).

A clock read from Python lies a microsecond from a counter read from Python; read here, some 30 ns. The calls keep the
GIL. Any thread may call.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from functools import cache

CPUID = bytes.fromhex(
    "53"  # push rbx
    "49 89 f0"  # mov r8, rsi
    "89 f8"  # mov eax, edi
    "31 c9"  # xor ecx, ecx
    "0f a2"  # cpuid
    "41 89 00"  # mov dword ptr [r8], eax
    "41 89 50 04"  # mov dword ptr [r8 + 4], edx
    "5b"  # pop rbx
    "c3"  # ret
)
READ = bytes.fromhex(
    "0f ae f0"  # mfence: stores before this are seen by every processor that reads a later counter
    "0f ae e8"  # lfence
    "0f 31"  # rdtsc
    "48 c1 e2 20"  # shl rdx, 0x20
    "48 09 d0"  # or rax, rdx
    "c3"  # ret
)
# void sample(clock_gettime, clock_ids, count, out): (counter, seconds, nanoseconds) of each clock, a last counter.
SAMPLE = bytes.fromhex(
    "53"  # push rbx
    "55"  # push rbp
    "41 54"  # push r12
    "41 55"  # push r13
    "41 56"  # push r14: the stack is aligned for a call
    "48 89 fb"  # mov rbx, rdi
    "48 89 f5"  # mov rbp, rsi
    "41 89 d4"  # mov r12d, edx
    "49 89 cd"  # mov r13, rcx
    "0f ae e8"  # lfence
    "0f 31"  # rdtsc
    "41 89 45 00"  # mov dword ptr [r13], eax
    "41 89 55 04"  # mov dword ptr [r13 + 4], edx
    "8b 7d 00"  # mov edi, dword ptr [rbp]
    "49 8d 75 08"  # lea rsi, [r13 + 8]
    "ff d3"  # call rbx
    "48 83 c5 04"  # add rbp, 4
    "49 83 c5 18"  # add r13, 0x18
    "41 ff cc"  # dec r12d
    "75 dd"  # jne to the first lfence
    "0f ae e8"  # lfence
    "0f 31"  # rdtsc
    "41 89 45 00"  # mov dword ptr [r13], eax
    "41 89 55 04"  # mov dword ptr [r13 + 4], edx
    "41 5e"  # pop r14
    "41 5d"  # pop r13
    "41 5c"  # pop r12
    "5d"  # pop rbp
    "5b"  # pop rbx
    "c3"  # ret
)
CODES = (CPUID, READ, SAMPLE)
ALIGNMENT = 16

CPUID_HIGHEST_EXTENDED, CPUID_POWER = 0x8000_0000, 0x8000_0007
INVARIANT_TSC = 1 << 8
"""EDX of CPUID_POWER: one rate in all power states (SDM 3B 18.17.1, APM 3 E.4.6)."""
CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
NS = 1_000_000_000


@cache
def _page() -> int:
    return map_code("tsc", b"".join(code + bytes(-len(code) % ALIGNMENT) for code in CODES))


def map_code(name: str, code: bytes) -> int:
    """Map machine code and return its address. Raises OSError where the host forbids executable memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.write(fd, code)
        page = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)
    if page == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return page


def _address(code: bytes) -> int:
    before = CODES[: CODES.index(code)]
    return _page() + sum(len(other) + -len(other) % ALIGNMENT for other in before)


def _cpuid(leaf: int) -> tuple[int, int]:
    """Return EAX and EDX."""
    out = (ctypes.c_uint32 * 2)()
    ctypes.PYFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(_address(CPUID))(leaf, ctypes.addressof(out))
    return out[0], out[1]


@cache
def is_invariant() -> bool:
    """Return whether the counter ticks at one rate on all processors, as far as processor and Linux know. Asked once.

    Linux watches it and takes another clock source when it finds it wanting. Requires: the host's /sys is in sight at
    the first call, else the processor alone is asked.
    """
    if os.uname().machine != "x86_64":
        return False
    try:
        if _cpuid(CPUID_HIGHEST_EXTENDED)[0] < CPUID_POWER or not _cpuid(CPUID_POWER)[1] & INVARIANT_TSC:
            return False
        with open(CLOCK_SOURCE, encoding="ascii") as source:
            return source.read().strip() == "tsc"
    except FileNotFoundError:
        return True
    except OSError:
        return False


@cache
def reader() -> Callable[[], int]:
    """Return a function that reads the counter. Raises OSError as `_page`."""
    return ctypes.PYFUNCTYPE(ctypes.c_uint64)(_address(READ))


def sampler(clock_ids: Sequence[int]) -> Callable[[], tuple[list[int], list[int]]]:
    """Return a function that reads the clocks in turn: counters before each and after the last, nanoseconds.

    Raises OSError as `_page`.
    """
    count = len(clock_ids)
    out = (ctypes.c_uint64 * (3 * count + 1))()
    ids = (ctypes.c_int32 * count)(*clock_ids)
    clock_gettime = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
    kind = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
    call = kind(_address(SAMPLE))

    def sample() -> tuple[list[int], list[int]]:
        call(clock_gettime, ids, count, out)
        words = out[:]
        return words[::3], [s * NS + ns for s, ns in zip(words[1::3], words[2::3], strict=True)]

    return sample
