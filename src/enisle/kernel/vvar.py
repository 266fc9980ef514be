"""The page of clock parameters that the vDSO reads: where each value lies, and how a change is published.

A sequence lock: odd while the page is being changed; a reader that saw an odd or a changed number reads again.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

SEQUENCE, MODE, PROCESSORS = 0, 4, 8
BASE_TSC, MULTIPLIER, BASES = 16, 24, 64
CLOCK_COUNT = 8
SHIFT = 32
"""Nanoseconds = base + ((counter - base_tsc) * multiplier >> SHIFT)."""


class Parameters(NamedTuple):
    """What turns a time-stamp counter into the time of a clock; all at the moment `base_tsc`, nanoseconds."""

    base_tsc: int
    multiplier: int
    monotonic: int
    realtime: int
    boottime: int

    def elapsed(self, tsc: int) -> int:
        """Return nanoseconds since the base; a counter behind it gives 0, as in the vDSO."""
        return max(tsc - self.base_tsc, 0) * self.multiplier >> SHIFT

    def bases(self) -> tuple[int, ...]:
        """Bases indexed by clockid_t; unused ones are 0."""
        monotonic, realtime = self.monotonic, self.realtime
        return (realtime, monotonic, 0, 0, monotonic, realtime, monotonic, self.boottime)

    def read(self, clock_id: int, tsc: int) -> int:
        """Return the time of a clock, exactly as the vDSO computes it."""
        return self.bases()[clock_id] + self.elapsed(tsc)


class Page:
    """The writer's side of the page: `write(offset, bytes)` stores into it."""

    def __init__(self, write: Callable[[int, bytes], None], processors: int) -> None:
        self._write, self._sequence = write, 0
        write(PROCESSORS, struct.pack("<I", processors))

    def close(self) -> None:
        """Hold readers off: what they would compute from now on may be ahead of the new parameters."""
        self._sequence += 1
        self._write(SEQUENCE, struct.pack("<I", self._sequence))

    def open(self, parameters: Parameters | None) -> None:
        """Store new parameters (None: no usable counter) and let readers in."""
        self._write(MODE, struct.pack("<I", int(parameters is not None)))
        if parameters:
            self._write(BASE_TSC, struct.pack("<QQ", parameters.base_tsc, parameters.multiplier))
            self._write(BASES, struct.pack(f"<{CLOCK_COUNT}Q", *parameters.bases()))
        self._sequence += 1
        self._write(SEQUENCE, struct.pack("<I", self._sequence))
