"""Page tables of a guest, read: 4 and 5 levels, large pages, bounded and safe against tables that lead in circles.

A walk takes at most five reads; `regions` takes at most as many tables as its budget allows and says when it stopped.
SDM 3A 4.5; the two page-table roots of page-table isolation: Documentation/arch/x86/pti.rst.
"""

import struct
from collections.abc import Iterator

from enisle.introspect.memory import PhysicalMemory, Unmapped
from enisle.records import Record

PRESENT, WRITABLE, USER, LARGE, NX = 1, 2, 4, 1 << 7, 1 << 63
ADDRESS = 0x000F_FFFF_FFFF_F000
CANONICAL = (1 << 64) - 1
PTI_USER_ROOT = 1 << 12
"""Under page-table isolation the user's root lies one page above the kernel's (pti.rst)."""
MOST_TABLES = 4096
"""Tables one enumeration may read: 16 MiB of page tables, far more than a kernel image needs."""

_TABLE = struct.Struct("<512Q")
_U64, _U32 = struct.Struct("<Q"), struct.Struct("<I")


class Region(Record):
    """One mapping: a page of any size, with the rights its whole path gives."""

    start: int
    size: int
    gpa: int
    writable: bool
    executable: bool
    user: bool


class AddressSpace:
    """The virtual memory behind one root. Translations are remembered until `forget`."""

    def __init__(self, memory: PhysicalMemory, root: int, levels: int) -> None:
        assert levels in (4, 5), f"{levels=}"
        self.memory = memory
        self.root = root & ADDRESS
        self.levels = levels
        self._read = memory.read
        self._pages: dict[int, int] = {}

    def forget(self) -> None:
        """Drop remembered translations: the guest has run since."""
        self._pages.clear()

    def translate(self, address: int) -> int:
        """Return the guest-physical address. Raises Unmapped."""
        page = address >> 12
        base = self._pages.get(page)
        if base is None:
            base = self._pages[page] = self._walk(address)
        if base < 0:
            raise Unmapped(address)
        return base | address & 0xFFF

    def _walk(self, address: int) -> int:
        """Return the page an address is in, or -1."""
        bits = 57 if self.levels == 5 else 48
        if (address >> bits - 1) not in (0, (1 << 65 - bits) - 1):
            return -1  # not canonical
        table = self.root
        try:
            for shift in range(12 + 9 * (self.levels - 1), 11, -9):
                entry = _U64.unpack(self._read(table + (address >> shift & 511) * 8, 8))[0]
                if not entry & PRESENT:
                    return -1
                if entry & LARGE and shift in (30, 21):
                    inside = (1 << shift) - 1
                    return (entry & ADDRESS & ~inside | address & inside) & ~0xFFF
                table = entry & ADDRESS
        except Unmapped:
            return -1
        return table

    def read(self, address: int, size: int) -> bytes:
        """Return bytes across pages. Raises Unmapped."""
        offset = address & 0xFFF
        if offset + size <= 4096:
            return self._read(self.translate(address), size)
        parts: list[bytes] = []
        while size > 0:
            count = min(size, 4096 - (address & 0xFFF))
            parts.append(self._read(self.translate(address), count))
            address, size = address + count, size - count
        return b"".join(parts)

    def u64(self, address: int) -> int:
        """Return an eight-byte word. Raises Unmapped."""
        return _U64.unpack(self.read(address, 8))[0]

    def u32(self, address: int) -> int:
        """Return a four-byte word. Raises Unmapped."""
        return _U32.unpack(self.read(address, 4))[0]

    def string(self, address: int, most: int = 256) -> bytes:
        """Return the bytes before the next NUL, at most `most`. Raises Unmapped."""
        first = self.read(address, min(most, 4096 - (address & 0xFFF)))
        end = first.find(b"\0")
        if end < 0 and len(first) < most:
            try:
                first += self.read(address + len(first), most - len(first))
            except Unmapped:
                return first
            end = first.find(b"\0")
        return first if end < 0 else first[:end]

    def regions(self, start: int, end: int, budget: int = MOST_TABLES) -> "Regions":
        """Return an enumeration of the mappings in [start, end), ascending."""
        return Regions(self, start, end, budget)


class Regions:
    """An enumeration of mappings. After it, `truncated` says whether the budget ended it."""

    def __init__(self, space: AddressSpace, start: int, end: int, budget: int) -> None:
        self._space, self._start, self._end = space, start, end
        self._left = budget
        self.truncated = False

    def __iter__(self) -> Iterator[Region]:
        top = 12 + 9 * (self._space.levels - 1)
        return self._table(self._space.root, top, 0, WRITABLE | USER, False)

    def _table(self, table: int, shift: int, base: int, rights: int, sealed: bool) -> Iterator[Region]:
        """Yield the mappings below one table; `rights` and `sealed` (no execution) come down the path."""
        if self._left <= 0:
            self.truncated = True
            return
        self._left -= 1
        try:
            entries = _TABLE.unpack(self._space.memory.read(table, 4096))
        except Unmapped:
            return
        size = 1 << shift
        top = shift == 12 + 9 * (self._space.levels - 1)
        for index, entry in enumerate(entries):
            if not entry & PRESENT:
                continue
            address = base + (index << shift)
            if top and index >= 256:
                address |= CANONICAL << shift + 9 & CANONICAL
            if address + size <= self._start or address >= self._end:
                continue
            allowed, no_execution = rights & entry, sealed or bool(entry & NX)
            if shift == 12 or (shift in (21, 30) and entry & LARGE):
                gpa = entry & ADDRESS & ~(size - 1)
                yield Region(address, size, gpa, bool(allowed & WRITABLE), not no_execution, bool(allowed & USER))
            else:
                yield from self._table(entry & ADDRESS, shift - 9, address, allowed, no_execution)
