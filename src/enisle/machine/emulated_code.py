"""What the emulator must forget: it caches translations of addresses and of code, and no hardware tells it of changes.

`CodeWatch` is told of every stale translation (`GuestMemory.flush`, freed frames), of every frame that becomes
executable (`WatchedPageTables`) and of the host's writes to such frames. It keeps a log of frames whose code changed;
every processor reads on from where it was. The kernel's lock of the address space and the GIL order the callers.
"""

from array import array
from collections.abc import Callable

from enisle.abi.types import FRAMES_PER_HUGE, HUGE_MASK, PAGE, PAGE_SHIFT, Gpa
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine.memory import EXTENT_OF_FRAME, FRAME_IN_EXTENT, FRAMES_PER_EXTENT, GuestMemory
from enisle.machine.pagetables import PlainPageTables

PRESENT, WRITABLE, HUGE_LEAF = Pte.PRESENT, Pte.WRITABLE, Pte.HUGE
KIND = 1 << 63 | WRITABLE | PRESENT
CODE, TOUCHED = 1, 2
"""Marks of a frame: was executable; may have been written since it became so."""
LOG_LIMIT = 1 << 16
SUPERVISOR_INDEX = 256

Run = tuple[int, int]
"""First frame and number of frames."""


class CodeWatch:
    """Marks of frames and the log of changed code. `shoot_down` stops whoever computes with an old translation."""

    def __init__(self, shoot_down: Callable[[], None]) -> None:
        self._shoot_down = shoot_down
        self.generation = 0
        """Counts stale translations of addresses."""
        self.log: list[Run] = []
        self.log_start = 0
        """Position of the log's first entry; what was before is lost."""
        self.volatile: set[int] = set()
        """Frames writable and executable at once: another processor may change code there without a notice."""
        self._marks: dict[int, bytearray] = {}

    @property
    def position(self) -> int:
        return self.log_start + len(self.log)

    def stale(self) -> None:
        """Let no processor use a translation of an address that it has now."""
        self.generation += 1
        self._shoot_down()

    def mapped(self, frame: int, count: int, writable: bool, executable: bool) -> None:
        """Take notice of entries for a run of frames."""
        if not executable and not (writable and self._marks):
            return
        for start, marks, first, end in self._pieces(frame, count, executable):
            if executable:
                if TOUCHED | CODE in marks[first:end]:
                    self._append((start, end - first))
                marks[first:end] = bytes((CODE | TOUCHED if writable else CODE,)) * (end - first)
            elif any(marks[first:end]):
                marks[first:end] = bytes(mark and CODE | TOUCHED for mark in marks[first:end])
        if executable and writable:
            self.volatile.update(range(frame, frame + count))

    def written(self, frame: int, count: int) -> None:
        """Take notice of the host's writes."""
        for start, marks, first, end in self._pieces(frame, count):
            if any(marks[first:end]):
                self._append((start, end - first))

    def freed(self, frame: int, count: int) -> None:
        """Take notice that frames get a new content."""
        for start, marks, first, end in self._pieces(frame, count):
            if any(marks[first:end]):
                self._append((start, end - first))
                marks[first:end] = bytes(end - first)
                self.volatile.difference_update(range(start, start + end - first))

    def since(self, position: int) -> list[Run] | None:
        """Return what was logged after `position`, or None when some of it is lost."""
        return None if position < self.log_start else self.log[position - self.log_start :]

    def _append(self, run: Run) -> None:
        if len(self.log) >= LOG_LIMIT:
            self.log_start += len(self.log)
            self.log.clear()
        self.log.append(run)

    def _pieces(self, frame: int, count: int, make: bool = False) -> list[tuple[int, bytearray, int, int]]:
        """Return (first frame, marks, first index, end index) for each extent of the run that has marks."""
        pieces: list[tuple[int, bytearray, int, int]] = []
        while count:
            extent, first = frame >> EXTENT_OF_FRAME, frame & FRAME_IN_EXTENT
            end = min(first + count, FRAMES_PER_EXTENT)
            if make and extent not in self._marks:
                self._marks[extent] = bytearray(FRAMES_PER_EXTENT)
            if extent in self._marks:
                pieces.append((frame, self._marks[extent], first, end))
            frame, count = frame + end - first, count - (end - first)
        return pieces


class WatchedPageTables(PlainPageTables):
    """Page tables that tell a `CodeWatch` what becomes executable or writable."""

    def __init__(self, memory: GuestMemory, watch: CodeWatch) -> None:
        super().__init__(memory)
        self.watch = self._watch = watch
        self._levels: dict[Gpa, int] = {}

    def alloc(self, level: int) -> Gpa:
        table = super().alloc(level)
        self._levels[table] = level
        return table

    def free(self, table: Gpa) -> None:
        del self._levels[table]
        super().free(table)

    def set(self, table: Gpa, index: int, entry: int) -> None:
        level = self._levels[table]
        if level == 3 and index >= SUPERVISOR_INDEX:
            # Unicorn's far calls push with the supervisor's rights: ring 3 must not get at the GDT that way.
            entry &= ~WRITABLE
        super().set(table, index, entry)
        if entry & PRESENT:
            rights = bool(entry & WRITABLE), not entry >> 63
            if level == 0:
                self._watch.mapped((entry & PTE_ADDRESS) >> PAGE_SHIFT, 1, *rights)
            elif level == 1 and entry & HUGE_LEAF:
                self._watch.mapped((entry & PTE_ADDRESS & ~HUGE_MASK) >> PAGE_SHIFT, FRAMES_PER_HUGE, *rights)

    def set_run(self, table: Gpa, index: int, entries: "array[int]") -> None:
        super().set_run(table, index, entries)
        for frame, count, writable, executable in _runs_with_rights(entries):
            self._watch.mapped(frame, count, writable, executable)


def notice_of(watch: CodeWatch) -> "Callable[[int, int, array[int]], None]":
    """Return what replicated page tables tell of the entries they write: level, index, entries."""

    def notice(level: int, _index: int, entries: "array[int]") -> None:
        if level == 0:
            for frame, count, writable, executable in _runs_with_rights(entries):
                watch.mapped(frame, count, writable, executable)
            return
        for entry in entries:
            if level == 1 and entry & PRESENT and entry & HUGE_LEAF:
                frame = (entry & PTE_ADDRESS & ~HUGE_MASK) >> PAGE_SHIFT
                watch.mapped(frame, FRAMES_PER_HUGE, bool(entry & WRITABLE), not entry >> 63)

    return notice


def _runs_with_rights(entries: "array[int]") -> list[tuple[int, int, bool, bool]]:
    """Return (first frame, count, writable, executable) of the present entries, neighbours joined."""
    runs: list[tuple[int, int, bool, bool]] = []
    start = count = rights = 0
    first = entries[0]
    if not any(entries):
        return runs
    if entries == array("Q", range(first, first + (len(entries) << PAGE_SHIFT), PAGE)):
        entries, count = entries[:0], len(entries)
        start, rights = (first & PTE_ADDRESS) >> PAGE_SHIFT, first & KIND
    for entry in entries:
        frame, kind = (entry & PTE_ADDRESS) >> PAGE_SHIFT, entry & KIND
        if count and kind == rights and frame == start + count:
            count += 1
            continue
        if count and rights & PRESENT:
            runs.append((start, count, bool(rights & WRITABLE), not rights >> 63))
        start, count, rights = frame, 1, kind
    if count and rights & PRESENT:
        runs.append((start, count, bool(rights & WRITABLE), not rights >> 63))
    return runs
