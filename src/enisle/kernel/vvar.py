"""The page of clock parameters that the vDSO reads: where each value lies, and how a change is published.

A sequence lock: odd while the page changes; a reader that saw an odd or another number reads again. A page of zeros
says: ask the kernel. Written by the island process alone, under the clock's lock; read-only in the guest.
"""

import struct
from collections.abc import Callable, Iterable

from enisle.abi.types import PAGE

SIZE = PAGE
SEQUENCE, ONE_PROCESSOR = 0, 4
BASE, VALID = 8, 16
"""Counter at which the clocks below were set, and for how many ticks from there on they may be read."""
CLOCKS, STRIDE = 32, 16
"""Per clockid_t: nanoseconds at BASE, and nanoseconds per tick times 2**SHIFT (0: the vDSO does not serve it)."""
CLOCK_COUNT = 12
SHIFT = 48
"""Serves counters from 16 kHz on, with steps far below 1 ppb for those of today (1 to 6 GHz)."""

_WORD = struct.Struct("<I")
_BODY = struct.Struct(f"<QQ8x{2 * CLOCK_COUNT}Q")
assert BASE + _BODY.size == CLOCKS + CLOCK_COUNT * STRIDE
U64 = (1 << 64) - 1

Store = Callable[[int, bytes], object]
"""Stores bytes at an offset of the page; aligned words at once, and in the order of the calls."""


class Page:
    """The writer's side of the page."""

    def __init__(self, store: Store, processors: int) -> None:
        self._store, self._sequence = store, 0
        store(ONE_PROCESSOR, _WORD.pack(processors == 1))

    def close(self) -> None:
        """Hold readers off: a counter they read from now on may lie behind the next base."""
        self._step()

    def open(self, base: int, valid: int, clocks: Iterable[tuple[int, int]]) -> None:
        """Store (nanoseconds, multiplier) of every clock and let readers in. Requires: closed."""
        words = [word & U64 for clock in clocks for word in clock]
        self._store(BASE, _BODY.pack(base & U64, valid, *words))
        self._step()

    def _step(self) -> None:
        self._sequence = self._sequence + 1 & 0xFFFF_FFFF
        self._store(SEQUENCE, _WORD.pack(self._sequence))
