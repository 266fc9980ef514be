"""What an address space maps, whoever runs it: rights, code that can be written, and hashes of code.

Serves guests of QEMU, saved ones, and our own machine (`MachineMemory`), by their page tables alone. Only reads.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from enisle.introspect.memory import Unmapped
from enisle.introspect.paging import MOST_TABLES, AddressSpace
from enisle.records import Record

USER_END = 1 << 56
"""The lower half, of five levels too."""


class Mapped(Record):
    """A run of pages with the same rights."""

    start: int
    size: int
    writable: bool
    executable: bool
    user: bool

    @property
    def rights(self) -> str:
        return f"r{'w' if self.writable else '-'}{'x' if self.executable else '-'}{'u' if self.user else 's'}"


class Maps(Record):
    """The runs of an address space, and whether there were too many tables to read all."""

    runs: tuple[Mapped, ...]
    truncated: bool


class CodeHash(Record):
    """The content of one run of code. `missing` counts pages without memory behind them."""

    start: int
    size: int
    sha256: str
    missing: int


class OwnMemory(Protocol):
    """The memory of our own machine (`machine.GuestMemory`)."""

    @property
    def size(self) -> int: ...
    def read(self, gpa: int, size: int, /) -> bytes: ...


class MachineMemory:
    """The memory of our own machine as introspection reads it."""

    def __init__(self, memory: OwnMemory) -> None:
        self._memory = memory

    def ranges(self) -> Sequence[tuple[int, int]]:
        return [(0, self._memory.size)]

    def read(self, gpa: int, size: int) -> bytes:
        """Return bytes. Raises Unmapped beyond the machine's memory, and where a mapped file has been cut short."""
        if not 0 <= gpa <= self._memory.size - size:
            raise Unmapped(gpa)
        try:
            return self._memory.read(gpa, size)
        except OSError:
            raise Unmapped(gpa) from None


def mappings(space: AddressSpace, start: int = 0, end: int = USER_END, budget: int = MOST_TABLES) -> Maps:
    """Return what is mapped in [start, end), neighbours of equal rights together."""
    runs: list[Mapped] = []
    regions = space.regions(start, end, budget)
    for region in regions:
        rights = (region.writable, region.executable, region.user)
        last = runs[-1] if runs else None
        if last is not None and last.start + last.size == region.start and tuple(last)[2:] == rights:
            runs[-1] = last._replace(size=last.size + region.size)
        else:
            runs.append(Mapped(region.start, region.size, *rights))
    return Maps(tuple(runs), regions.truncated)


def writable_code(space: AddressSpace, start: int = 0, end: int = USER_END) -> list[Mapped]:
    """Return the runs that can be both written and executed."""
    return [run for run in mappings(space, start, end).runs if run.writable and run.executable]


def code_hashes(space: AddressSpace, start: int = 0, end: int = USER_END) -> Iterator[CodeHash]:
    """Yield a hash of every run of code that cannot be written."""
    for run in mappings(space, start, end).runs:
        if not run.executable or run.writable:
            continue
        digest, missing = hashlib.sha256(), 0
        for page in range(run.start, run.start + run.size, 4096):
            try:
                digest.update(space.read(page, 4096))
            except Unmapped:
                missing += 1
        yield CodeHash(run.start, run.size, digest.hexdigest(), missing)
