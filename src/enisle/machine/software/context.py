"""What execution in software stands on: the state of a processor, what it answers, and what can come out.

`Context` is a Protocol: a processor and its memory, or plain values in a test. `VectorState` reads and writes vector
registers in a standard-format XSAVE area (SDM 1 13.4), so that their upper halves travel wherever such an area does.
"""

import struct
from collections.abc import Sequence
from typing import Protocol

from enisle.abi.x86 import Vector
from enisle.machine.processor import Registers

MXCSR, XMM, XSTATE_BV, AVX = 24, 160, 512, 576
"""Offsets in an XSAVE area (SDM 1 table 13-1, 13.4.2, 13.5.3); component 2 stands at 576 on every processor."""
AREA_SIZE = 832
SSE_BIT, AVX_BIT, ZMM_HIGH_BIT = 2, 4, 64
LANE = 16
ZERO_LANE = bytes(LANE)


class Fault(Exception):
    """An exception of the guest. `address` and `write` belong to #PF."""

    def __init__(self, vector: int, error_code: int = 0, address: int = 0, write: bool = False) -> None:
        super().__init__(vector, error_code, address)
        self.vector, self.error_code, self.address, self.write = vector, error_code, address, write


class VectorState:
    """Vector registers 0-15 in an XSAVE area. `changed` tells whether it must be loaded again."""

    def __init__(self, area: bytes, zmm_high: int | None = None) -> None:
        """`zmm_high`: where bits 256-511 of the registers stand in the area, when it has them."""
        self.area = bytearray(area.ljust(AREA_SIZE, b"\0"))
        self.zmm_high = zmm_high if zmm_high is not None and zmm_high + 32 * 16 <= len(area) else None
        self.changed = False
        (present,) = struct.unpack_from("<Q", self.area, XSTATE_BV)
        # A component whose bit is clear is in its initial state, whatever stands there (SDM 1 13.6).
        if not present & SSE_BIT:
            self.area[XMM : XMM + 16 * LANE] = bytes(16 * LANE)
        if not present & AVX_BIT:
            self.area[AVX : AVX + 16 * LANE] = bytes(16 * LANE)

    def low(self, number: int) -> bytes:
        at = XMM + LANE * number
        return bytes(self.area[at : at + LANE])

    def high(self, number: int) -> bytes:
        """Return bits 128-255."""
        at = AVX + LANE * number
        return bytes(self.area[at : at + LANE])

    def set_low(self, number: int, value: bytes) -> None:
        """Write bits 0-127 and leave the others, as legacy SSE instructions do."""
        at = XMM + LANE * number
        self.area[at : at + LANE] = value
        self._mark(SSE_BIT)

    def set(self, number: int, value: bytes) -> None:
        """Write a register of 16 or 32 bytes; what is above becomes zero, as VEX has it (SDM 2A 2.3.10.1)."""
        self.set_low(number, value[:LANE])
        high = bytearray(value[LANE:] or ZERO_LANE)
        at = AVX + LANE * number
        if self.area[at : at + LANE] != high:
            self.area[at : at + LANE] = high
            self._mark(AVX_BIT)
        if self.zmm_high is not None:
            at = self.zmm_high + 32 * number
            self.area[at : at + 32] = bytes(32)

    def control(self) -> bytes:
        """Return MXCSR."""
        return bytes(self.area[MXCSR : MXCSR + 4])

    def set_control(self, content: bytes) -> None:
        self.area[MXCSR : MXCSR + 4] = content
        self._mark(SSE_BIT)

    def replace(self, area: bytes | bytearray) -> None:
        """Take over a whole area, as XRSTOR does."""
        self.area[:] = area
        self.changed = True

    def zero_upper(self) -> None:
        """Make the upper halves of all registers initial (VZEROUPPER)."""
        self.area[AVX : AVX + 16 * LANE] = bytes(16 * LANE)
        (present,) = struct.unpack_from("<Q", self.area, XSTATE_BV)
        struct.pack_into("<Q", self.area, XSTATE_BV, present & ~(AVX_BIT | ZMM_HIGH_BIT))
        self.changed = True

    def _mark(self, bit: int) -> None:
        self.area[XSTATE_BV] |= bit
        self.changed = True


class Context(Protocol):
    """The state that an instruction works on. Nothing is changed by it but through these."""

    @property
    def gpr(self) -> Registers: ...

    @property
    def fs_base(self) -> int: ...
    @fs_base.setter
    def fs_base(self, value: int, /) -> None: ...
    @property
    def gs_base(self) -> int: ...
    @gs_base.setter
    def gs_base(self, value: int, /) -> None: ...
    @property
    def vectors(self) -> VectorState: ...

    def read(self, address: int, size: int, /) -> bytes:
        """Return guest memory. Raises Fault."""
        ...

    def store(self, pieces: Sequence[tuple[int, bytes]], /) -> None:
        """Write all pieces of guest memory or none. Raises Fault."""
        ...


class Answers(Protocol):
    """What the instructions that ask the processor are told."""

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Return EAX, EBX, ECX and EDX."""
        ...

    def xgetbv(self, register: int) -> int | None:
        """Return an extended control register, None when there is no such one."""
        ...

    def counter(self) -> int:
        """Return the time-stamp counter."""
        ...

    def processor_id(self) -> int:
        """Return IA32_TSC_AUX."""
        ...

    def random(self, size: int) -> bytes: ...


def general_protection() -> Fault:
    return Fault(Vector.GP, 0)
