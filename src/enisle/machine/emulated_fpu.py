"""FPU and vector state of an emulated processor as a standard-format XSAVE area: x87 and SSE (SDM 1 10.5.1, 13.4).

The engine has no YMM registers. Their upper halves, which only software writes, are kept beside it while in use.
"""

import struct
from ctypes import addressof, c_char, c_uint16

from enisle.machine.emulated_engine import Batch, Engine

# unicorn/x86.h
REG_FPSW, REG_FPCW, REG_FPTAG, REG_MXCSR = 31, 246, 247, 249
REG_FIP, REG_FDP, REG_FOP, REG_ST0, REG_XMM0 = 254, 256, 258, 114, 122

PLACES = (
    (REG_FPCW, 0),
    (REG_FPSW, 2),  # before the stack: it says which register ST0 is
    (REG_FOP, 6),
    (REG_FIP, 8),
    (REG_FDP, 16),
    (REG_MXCSR, 24),
    *((REG_ST0 + index, 32 + 16 * index) for index in range(8)),
    *((REG_XMM0 + index, 160 + 16 * index) for index in range(16)),
)
"""Registers and their offsets in the legacy region."""
TAGS, MXCSR, STACK, XMM, XMM_END, XSTATE_BV = 4, 24, 32, 160, 416, 512
LEGACY_SIZE, HEADER_SIZE = 512, 64
AVX_END = 832
"""Where the upper halves of the YMM registers end (SDM 1 13.5.3)."""
XSAVE_SIZE = LEGACY_SIZE + HEADER_SIZE
X87, SSE, AVX = 1, 2, 4
MXCSR_MASK = 0xFFFF
INITIAL = struct.pack("<H22xII", 0x37F, 0x1F80, MXCSR_MASK).ljust(LEGACY_SIZE, b"\0")
"""The legacy region after INIT: everything masked, the stack empty."""


class FpuState:
    """Reads and writes the state of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._legacy = (c_char * LEGACY_SIZE)()
        self._tags = c_uint16()
        self._upper: bytes | None = None
        """Bits 128-255 of the YMM registers, None in their initial state."""
        base = addressof(self._legacy)
        self._batch = Batch(base, [(REG_FPTAG, addressof(self._tags) - base), *PLACES])

    def save(self) -> bytes:
        """Return the area."""
        self._engine.read(self._batch)
        image = bytearray(self._legacy)
        tags = self._tags.value  # two bits a register, 3 is empty; the area has one bit, 1 is in use
        image[TAGS : TAGS + 2] = sum(1 << index for index in range(8) if tags >> 2 * index & 3 != 3), 0
        struct.pack_into("<I", image, MXCSR + 4, MXCSR_MASK)
        if self._upper is None:
            return bytes(image) + struct.pack("<Q56x", X87 | SSE)
        return bytes(image) + struct.pack("<Q56x", X87 | SSE | AVX) + self._upper

    def load(self, image: bytes) -> None:
        """Load an area; parts that it does not have are initial, bits of MXCSR that no processor has are dropped."""
        legacy = bytearray(image[:LEGACY_SIZE].ljust(LEGACY_SIZE, b"\0"))
        present = struct.unpack_from("<Q", image, XSTATE_BV)[0] if len(image) >= XSTATE_BV + 8 else X87 | SSE
        self._upper = bytes(image[XSAVE_SIZE:AVX_END]) if present & AVX and len(image) >= AVX_END else None
        if not present & X87:
            legacy[:MXCSR], legacy[STACK:XMM] = INITIAL[:MXCSR], INITIAL[STACK:XMM]
        if not present & SSE:
            legacy[XMM:XMM_END] = bytes(XMM_END - XMM)
        struct.pack_into("<I", legacy, MXCSR, struct.unpack_from("<I", legacy, MXCSR)[0] & MXCSR_MASK)
        self._legacy[:] = bytes(legacy)
        self._tags.value = sum(3 << 2 * index for index in range(8) if not legacy[TAGS] >> index & 1)
        self._engine.write(self._batch)
