"""A processor made of plain values: what instructions in software work on in tests."""

import struct
from collections.abc import Sequence

from enisle.abi.x86 import Vector
from enisle.machine.software.context import AREA_SIZE, Fault, VectorState

XMM, YMM = 160, 576


class PlainMemory:
    """One stretch of memory; beyond it is nothing, and what is `readonly` cannot be written."""

    def __init__(self, start: int, content: bytes, readonly: bool = False) -> None:
        self.start, self.content, self.readonly = start, bytearray(content), readonly

    def read(self, address: int, size: int) -> bytes:
        at = self._place(address, size, write=False)
        return bytes(self.content[at : at + size])

    def store(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        places = [self._place(address, len(content), write=True) for address, content in pieces]
        for at, (_, content) in zip(places, pieces, strict=True):
            self.content[at : at + len(content)] = content

    def _place(self, address: int, size: int, write: bool) -> int:
        end = self.start + len(self.content)
        for byte in (address, address + size - 1):
            if not self.start <= byte < end or (write and self.readonly):
                raise Fault(Vector.PF, 4 | 2 * write, byte, write)
        return address - self.start


class PlainProcessor:
    """A `Context`; `vectors` are the sixteen YMM registers, one after the other."""

    def __init__(self, gpr: Sequence[int], vectors: bytes, memory: PlainMemory, mxcsr: int = 0x1F80) -> None:
        self.gpr = list(gpr)
        self.fs_base = self.gs_base = 0
        area = bytearray(AREA_SIZE)
        struct.pack_into("<I", area, 24, mxcsr)
        struct.pack_into("<Q", area, 512, 7)
        for number in range(16):
            value = vectors[32 * number : 32 * number + 32]
            area[XMM + 16 * number : XMM + 16 * number + 16] = value[:16]
            area[YMM + 16 * number : YMM + 16 * number + 16] = value[16:]
        self.vectors = VectorState(bytes(area))
        self._memory = memory
        self.read, self.store = memory.read, memory.store

    def ymm(self) -> bytes:
        return b"".join(self.vectors.low(number) + self.vectors.high(number) for number in range(16))

    def state(self) -> tuple[object, ...]:
        """Return everything there is, to compare."""
        return (tuple(self.gpr), self.fs_base, self.gs_base, bytes(self.vectors.area), bytes(self._memory.content))


class NoAnswers:
    """Answers for instructions that ask nothing."""

    def _asked(self) -> AssertionError:
        return AssertionError("asked the processor")

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        raise self._asked()

    def xgetbv(self, register: int) -> int | None:
        raise self._asked()

    def counter(self) -> int:
        raise self._asked()

    def processor_id(self) -> int:
        raise self._asked()

    def random(self, size: int) -> bytes:
        raise self._asked()
