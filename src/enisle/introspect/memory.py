"""What introspection looks at: a guest's physical memory and the state of its processors.

Two protocols that any backend satisfies by its shape, and the errors of looking. Nothing here writes.
Promises: a read gives exactly the bytes asked for, or raises `Unmapped`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from enisle.errors import StateError
from enisle.records import Record

LSTAR, CSTAR, STAR, FMASK, KERNEL_GS_BASE = 0xC000_0082, 0xC000_0083, 0xC000_0081, 0xC000_0084, 0xC000_0102
CR0_PG, CR0_PE = 1 << 31, 1
CR4_LA57, CR4_FRED = 1 << 12, 1 << 32
EFER_LMA = 1 << 10


class Unmapped(LookupError):
    """No memory stands behind an address. Caught inside this room, never shown."""

    def __init__(self, address: int) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"nothing is mapped at {self.address:#x}"


class Unsupported(StateError):
    """The guest is none that can be looked into; the reason says why."""


class ProcessorState(Record):
    """One processor, as it stands. `registers` holds rax … r15, rip, rsp, rflags by name."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    idt_base: int
    idt_limit: int
    gs_base: int
    cpl: int
    registers: Mapping[str, int] = {}
    msrs: Mapping[int, int] = {}
    gdt_base: int = 0
    tr_base: int = 0
    number: int = 0

    @property
    def rip(self) -> int:
        return self.registers.get("rip", 0)


class PhysicalMemory(Protocol):
    """A guest's RAM by guest-physical address."""

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes. Raises Unmapped when any of them is not RAM."""
        ...

    def ranges(self) -> Sequence[tuple[int, int]]:
        """Return (first address, size) of each piece of RAM, ascending."""
        ...


class Guest(Protocol):
    """A guest that can be looked into: what a backend offers."""

    name: str

    @property
    def memory(self) -> PhysicalMemory: ...

    def processors(self) -> Sequence[ProcessorState]:
        """Return the state of every processor; they stand still if `pause` was called."""
        ...

    def pause(self) -> None:
        """Stop the processors; calls nest. A saved guest stands still already."""
        ...

    def resume(self) -> None:
        """Undo one `pause`."""
        ...


class Segments:
    """Guest-physical memory made of pieces of one buffer: (gpa, size, offset) each."""

    def __init__(self, buffer: memoryview, pieces: Sequence[tuple[int, int, int]]) -> None:
        self._buffer = buffer
        present = [(gpa, min(size, len(buffer) - offset), offset) for gpa, size, offset in pieces]
        self._pieces = sorted((gpa, gpa + size, offset - gpa) for gpa, size, offset in present if size > 0)

    def ranges(self) -> Sequence[tuple[int, int]]:
        return [(start, end - start) for start, end, _ in self._pieces]

    def read(self, gpa: int, size: int) -> bytes:
        for start, end, shift in self._pieces:
            if start <= gpa < end:
                if gpa + size <= end:
                    return bytes(self._buffer[gpa + shift : gpa + shift + size])
                return bytes(self._buffer[gpa + shift : end + shift]) + self.read(end, gpa + size - end)
        raise Unmapped(gpa)


class Overlay:
    """Memory with some bytes changed in a copy: what tests and what-if questions look at."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._pages: dict[int, bytearray] = {}

    def ranges(self) -> Sequence[tuple[int, int]]:
        return self._memory.ranges()

    def read(self, gpa: int, size: int) -> bytes:
        content = self._memory.read(gpa, size)
        touched = [page for page in range(gpa >> 12, (gpa + size - 1 >> 12) + 1) if page in self._pages]
        if not touched:
            return content
        changed = bytearray(content)
        for page in touched:
            first, last = max(gpa, page << 12), min(gpa + size, page + 1 << 12)
            changed[first - gpa : last - gpa] = self._pages[page][first - (page << 12) : last - (page << 12)]
        return bytes(changed)

    def write(self, gpa: int, content: bytes) -> None:
        """Change bytes of the copy. Raises Unmapped."""
        for at, byte in enumerate(content, gpa):
            page = at >> 12
            if page not in self._pages:
                self._pages[page] = bytearray(self._memory.read(page << 12, 4096))
            self._pages[page][at & 0xFFF] = byte
