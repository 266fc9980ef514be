"""A made-up machine: page tables and memory built by hand, for tests that need no guest."""

import struct

from enisle.introspect import ProcessorState, Segments
from enisle.introspect.dump import SavedGuest
from enisle.introspect.image import Image
from enisle.introspect.paging import AddressSpace

START = 0xFFFF_FFFF_8100_0000
PRESENT, WRITABLE, LARGE, NX = 1, 2, 1 << 7, 1 << 63
TEXT, READ_ONLY, DATA = PRESENT, PRESENT | NX, PRESENT | WRITABLE | NX


class Builder:
    """Physical memory that grows, with a page-table root."""

    def __init__(self, levels: int = 4) -> None:
        self.levels = levels
        self.memory = bytearray(4096)  # page 0 stays empty
        self.root = self.take()

    def take(self, pages: int = 1) -> int:
        """Return the address of fresh zeroed pages."""
        at = len(self.memory)
        self.memory += bytes(4096 * pages)
        return at

    def map(self, address: int, gpa: int, flags: int, shift: int = 12) -> None:
        """Map one page of size 2**shift."""
        table = self.root
        for level in range(12 + 9 * (self.levels - 1), shift, -9):
            at = table + (address >> level & 511) * 8
            entry = struct.unpack_from("<Q", self.memory, at)[0]
            if not entry & PRESENT:
                entry = self.take() | PRESENT | WRITABLE
                struct.pack_into("<Q", self.memory, at, entry)
            table = entry & 0x000F_FFFF_FFFF_F000
        large = LARGE if shift > 12 else 0
        struct.pack_into("<Q", self.memory, table + (address >> shift & 511) * 8, gpa | flags | large)

    def place(self, address: int, content: bytes, flags: int) -> int:
        """Map content at a page-aligned address; return where it lies."""
        pages = (len(content) + 4095) // 4096
        gpa = self.take(pages)
        self.memory[gpa : gpa + len(content)] = content
        for page in range(pages):
            self.map(address + 4096 * page, gpa + 4096 * page, flags)
        return gpa

    def physical(self) -> Segments:
        return Segments(memoryview(bytes(self.memory)), [(0, len(self.memory), 0)])

    def space(self) -> AddressSpace:
        return AddressSpace(self.physical(), self.root, self.levels)

    def image(self, start: int, end: int) -> Image:
        """Return what is mapped in a range as an image."""
        return Image(list(self.space().regions(start, end)), self.physical())

    def guest(self, **registers: int) -> SavedGuest:
        return SavedGuest("synthetic", self.physical(), [processor(cr3=self.root, **registers)])


def processor(**registers: int) -> ProcessorState:
    """Return the state of a processor in 64-bit kernel mode but for what is given."""
    told: dict[str, int] = {
        "cr0": 0x8005_0033,
        "cr3": 0x1000,
        "cr4": 0x20,
        "efer": 0xD01,
        "idt_base": 0xFFFF_FE00_0000_0000,
        "idt_limit": 0xFFF,
        "gs_base": 0xFFFF_8880_0000_0000,
        "cpl": 0,
    }
    return ProcessorState(**told | registers)


def ksymtab(at: int, names_at: int, symbols: dict[bytes, int], stride: int = 12) -> tuple[bytes, bytes]:
    """Return (table, names) of an export table at `at` with its names at `names_at`."""
    names, places = b"\0", {}
    for name in symbols:
        places[name] = len(names)
        names += name + b"\0"
    table = b""
    for index, name in enumerate(sorted(symbols)):
        entry = at + index * stride
        words = [symbols[name] - entry, names_at + places[name] - entry - 4, 0]
        table += b"".join((word & 0xFFFF_FFFF).to_bytes(4, "little") for word in words[: stride // 4])
    return table, names
