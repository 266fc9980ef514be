"""The list of a process's mappings: which ranges of addresses exist, with which rights, over what.

Pure bookkeeping: nothing here touches page tables or memory. Ranges are half open, page-aligned, and never overlap.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from enisle.abi.linux_mman import MAP_GROWSDOWN, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE
from enisle.abi.types import PAGE

if TYPE_CHECKING:
    from enisle.kernel.nodes import MemoryPolicy

SHARED_ANONYMOUS = b"/dev/zero (deleted)"
"""What /proc/PID/maps calls shared memory without a file."""


class Vma:
    """One mapping. `fd` is a host descriptor kept for the mapping's file (owned through `Backing`), or None."""

    __slots__ = ("backing", "dont_fork", "end", "flags", "name", "offset", "policy", "prot", "start", "wipe_on_fork")

    def __init__(self, start: int, end: int, prot: int, flags: int, name: bytes = b"", offset: int = 0) -> None:
        self.start, self.end, self.prot, self.flags = start, end, prot, flags
        self.name, self.offset = name, offset
        self.backing: Backing | None = None
        self.dont_fork = self.wipe_on_fork = False
        self.policy: MemoryPolicy | None = None
        """Of which nodes its memory is to be (mbind(2))."""

    def __repr__(self) -> str:
        return f"Vma({self.start:#x}-{self.end:#x} {self.rights} {self.name.decode(errors='replace')})"

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE

    @property
    def shared(self) -> bool:
        return bool(self.flags & MAP_SHARED)

    @property
    def grows_down(self) -> bool:
        return bool(self.flags & MAP_GROWSDOWN)

    @property
    def rights(self) -> str:
        """The rights as /proc/PID/maps prints them."""
        prot = self.prot
        return (
            ("r" if prot & PROT_READ else "-")
            + ("w" if prot & PROT_WRITE else "-")
            + ("x" if prot & PROT_EXEC else "-")
            + ("s" if self.shared else "p")
        )

    def part(self, start: int, end: int) -> "Vma":
        """Return a new mapping that is this one between `start` and `end`."""
        piece = Vma(start, end, self.prot, self.flags, self.name, self.offset + (start - self.start))
        piece.backing, piece.policy = self.backing, self.policy
        piece.dont_fork, piece.wipe_on_fork = self.dont_fork, self.wipe_on_fork
        return piece

    def joins(self, after: "Vma") -> bool:
        """Return whether `after` continues this mapping, so that the two can be one."""
        return (
            self.end == after.start
            and (self.prot, self.flags, self.name) == (after.prot, after.flags, after.name)
            and (self.dont_fork, self.wipe_on_fork) == (after.dont_fork, after.wipe_on_fork)
            and self.backing is after.backing
            and self.policy == after.policy
            and (self.backing is None or self.offset + (self.end - self.start) == after.offset)
        )


class Backing:
    """The host file under a mapping: a descriptor of its own, its identity for /proc, and whether it may be written."""

    __slots__ = ("__weakref__", "device", "fd", "inode", "path", "writable")

    def __init__(self, fd: int, device: int, inode: int, path: bytes, writable: bool) -> None:
        self.fd, self.device, self.inode, self.path, self.writable = fd, device, inode, path, writable

    def __del__(self) -> None:
        import os

        os.close(self.fd)


class VmaList:
    """Mappings in ascending order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._vmas: list[Vma] = []
        self.pages = 0
        self._dense = (0, 0, 0)
        """(size, from, to): no free range of that size between the two addresses. A search need not look there."""

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def __len__(self) -> int:
        return len(self._vmas)

    def find(self, address: int) -> Vma | None:
        """Return the mapping that holds `address`."""
        position = bisect_right(self._starts, address) - 1
        if position >= 0 and address < self._vmas[position].end:
            return self._vmas[position]
        return None

    def next_after(self, address: int) -> Vma | None:
        """Return the first mapping that ends after `address`."""
        position = max(bisect_right(self._starts, address) - 1, 0)
        while position < len(self._vmas):
            if self._vmas[position].end > address:
                return self._vmas[position]
            position += 1
        return None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        position = max(bisect_right(self._starts, start) - 1, 0)
        last = bisect_left(self._starts, end)
        return [vma for vma in self._vmas[position:last] if vma.end > start]

    def add(self, vma: Vma) -> None:
        """Insert a mapping into a free range, joining it with its neighbours where it continues them."""
        position = bisect_left(self._starts, vma.start)
        self.pages += vma.pages
        if position and self._vmas[position - 1].joins(vma):
            position -= 1
            before = self._vmas[position]
            before.end = vma.end
            vma = before
        else:
            self._starts.insert(position, vma.start)
            self._vmas.insert(position, vma)
        if position + 1 < len(self._vmas) and vma.joins(self._vmas[position + 1]):
            vma.end = self._vmas[position + 1].end
            del self._starts[position + 1], self._vmas[position + 1]

    def remove(self, start: int, end: int) -> list[Vma]:
        """Cut `[start, end)` out; return the pieces that were there."""
        removed: list[Vma] = []
        if end > self._dense[1]:
            self._dense = (0, 0, 0)
        for vma in self.overlapping(start, end):
            position = bisect_left(self._starts, vma.start)
            del self._starts[position], self._vmas[position]
            piece = vma.part(max(vma.start, start), min(vma.end, end))
            removed.append(piece)
            self.pages -= piece.pages
            for left in (vma.part(vma.start, piece.start), vma.part(piece.end, vma.end)):
                if left.start < left.end:
                    at = bisect_left(self._starts, left.start)
                    self._starts.insert(at, left.start)
                    self._vmas.insert(at, left)
        return removed

    def covers(self, start: int, end: int) -> bool:
        """Return whether every page of the range is mapped."""
        for vma in self.overlapping(start, end):
            if vma.start > start:
                return False
            start = vma.end
        return start >= end

    def find_gap(self, size: int, low: int, high: int, align: int = PAGE) -> int | None:
        """Return the highest aligned start of a free range of `size` bytes within `[low, high)`."""
        known, ceiling, top = self._dense
        if top != high or size < known:
            ceiling = high
        for position in range(bisect_left(self._starts, ceiling) - 1, -1, -1):
            vma = self._vmas[position]
            if vma.end <= ceiling:
                start = (ceiling - size) & -align
                if start >= max(vma.end, low):
                    if align == PAGE and (top != high or size <= known):
                        self._dense = (size, ceiling, high)
                    return start
            ceiling = min(ceiling, vma.start)
        start = (ceiling - size) & -align
        return start if start >= low else None
