"""SIGBUS under the emulator: a guest access to a page of a file beyond its end must not kill the island.

The emulator's translated code touches host memory itself. The handler lays a page of zeros over the faulting one, keeps
the real mapping aside and stops the engine; the processor then puts the mapping back and reports a `BusError`.
Runs on the faulting thread, inside the engine's call, where the GIL is free. A signal that is not ours goes on.
"""

import ctypes
import mmap
import os
import signal
from collections.abc import Callable
from ctypes import c_int, c_size_t, c_ubyte, c_uint64, c_void_p
from typing import Any

from enisle.abi.types import PAGE, PAGE_MASK

SA_SIGINFO = 4
SI_ADDR = 16
"""Offset of si_addr in siginfo_t (sigaction(2), 64-bit)."""
SIGACTION_SIZE = 152
SIGACTION_FLAGS = 136
MREMAP_MAYMOVE, MREMAP_FIXED, MAP_FIXED, PROT_NONE = 1, 2, 0x10, 0
FAILED = c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = c_void_p
_libc.mmap.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, ctypes.c_long)
_libc.mremap.argtypes = (c_void_p, c_size_t, c_size_t, c_int, c_void_p)

Claim = Callable[[int], bool]
"""Takes the page of a faulting address; returns whether it has dealt with it."""

_claims: list[Claim] = []
_previous = (c_ubyte * SIGACTION_SIZE)()


def _handle(_signal: int, information: int, _context: int) -> None:
    page = c_uint64.from_address(information + SI_ADDR).value & ~PAGE_MASK
    if not any(claim(page) for claim in _claims):
        _libc.sigaction(int(signal.SIGBUS), _previous, None)  # the access is repeated and meets the old action


_handler: Any = ctypes.CFUNCTYPE(None, c_int, c_void_p, c_void_p)(_handle)


def add_claim(claim: Claim) -> None:
    """Ask `claim` about every SIGBUS of this process from now on."""
    _claims.append(claim)
    if len(_claims) == 1:
        action = (c_ubyte * SIGACTION_SIZE)()
        c_uint64.from_buffer(action).value = ctypes.cast(_handler, c_void_p).value or 0
        c_int.from_buffer(action, SIGACTION_FLAGS).value = SA_SIGINFO
        _libc.sigaction(int(signal.SIGBUS), action, _previous)


def remove_claim(claim: Claim) -> None:
    """Undo `add_claim`, if it was called."""
    if claim not in _claims:
        return
    _claims.remove(claim)
    if not _claims:
        _libc.sigaction(int(signal.SIGBUS), _previous, None)


def _check(result: int | None) -> int:
    if result is None or result == FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def cover(page: int) -> int:
    """Lay a page of zeros over the host's page; return where its mapping is kept."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    aside = _check(_libc.mmap(None, PAGE, PROT_NONE, flags, -1, 0))
    _check(_libc.mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, aside))
    _check(_libc.mmap(page, PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags | MAP_FIXED, -1, 0))
    return aside


def uncover(page: int, aside: int) -> None:
    """Put the mapping back that `cover` has kept."""
    _check(_libc.mremap(aside, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page))
