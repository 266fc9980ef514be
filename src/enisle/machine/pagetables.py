"""Page tables: the guest's translations, written through one narrow interface.

`PageTableOps` is the only code that writes guest page-table memory (replicas per node come behind it); `AddressSpace`
is one guest's tree on top of it: map, unmap, protect, clone for fork, split, copy on write. It decides nothing.
An entry owns one reference of its frame. Callers hold the lock of the address space (SDM 3A 4.5, APM 2 5.3).
"""

import threading
from array import array
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Protocol

from enisle.abi.types import FRAMES_PER_HUGE, HUGE, HUGE_MASK, HUGE_SHIFT, PAGE, PAGE_SHIFT, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine.layout import SYSCALL_STUB
from enisle.machine.memory import GuestMemory, Run

ENTRIES = 512
PRESENT, WRITABLE, USER = Pte.PRESENT, Pte.WRITABLE, Pte.USER
ACCESSED, DIRTY, HUGE_LEAF = Pte.ACCESSED, Pte.DIRTY, Pte.HUGE
COW, HELD, NX = Pte.COW, Pte.HELD, Pte.NX
TABLE = PRESENT | WRITABLE | USER
OWNED = PRESENT | HELD
LEVEL_SHIFT = (PAGE_SHIFT, HUGE_SHIFT, 30, 39)
"""Address bits below the index of a level; level 0 is the page table, level 3 the PML4."""


class PageTableOps(Protocol):
    """All writes to page-table memory. `index` is 0…511, entries are 64-bit words."""

    def alloc(self, level: int) -> Gpa: ...
    def free(self, table: Gpa) -> None: ...
    def set(self, table: Gpa, index: int, entry: int) -> None: ...
    def set_run(self, table: Gpa, index: int, entries: "array[int]") -> None: ...
    def get(self, table: Gpa, index: int) -> int: ...
    def get_run(self, table: Gpa, index: int, count: int) -> list[int]: ...
    def root(self, table: Gpa) -> Gpa: ...
    def space(self) -> "PageTableOps": ...
    def publish(self, space: "AddressSpace", gva: int) -> None: ...
    def used_by_several(self, table: Gpa, index: int) -> bool: ...

    @property
    def tables(self) -> int: ...


class PlainPageTables:
    """One copy of every table."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._words = memory.words
        self.tables = 0

    def alloc(self, level: int) -> Gpa:
        """Return an empty table. Raises OutOfMemory."""
        table = self._memory.allocate_frame()
        self.tables += 1
        return table

    def free(self, table: Gpa) -> None:
        self.tables -= 1
        self._memory.release(table, 1)

    def set(self, table: Gpa, index: int, entry: int) -> None:
        self._words[(table >> 3) + index] = entry

    def set_run(self, table: Gpa, index: int, entries: "array[int]") -> None:
        first = (table >> 3) + index
        self._words[first : first + len(entries)] = entries  # type: ignore[index]  # same format: 'Q'

    def get(self, table: Gpa, index: int) -> int:
        return self._words[(table >> 3) + index]

    def get_run(self, table: Gpa, index: int, count: int) -> list[int]:
        first = (table >> 3) + index
        return self._words[first : first + count].tolist()

    def root(self, table: Gpa) -> Gpa:
        """Return the root a processor loads for the tree at `table`."""
        return table

    def space(self) -> "PageTableOps":
        """Return the tables of one more address space: the same for all."""
        return self

    def publish(self, space: "AddressSpace", gva: int) -> None:
        """Let every processor find the kernel's own page at `gva` without a fault; there is nothing to do."""

    def used_by_several(self, table: Gpa, index: int) -> bool:
        """Return whether a processor's fault may leave an older translation with another tree; there is none."""
        return False


def leaf_flags(read: bool, write: bool, execute: bool) -> int:
    """Return entry bits for a user page; a page without any right keeps its frame but is not present."""
    if not (read or write or execute):
        return HELD | USER | NX
    return PRESENT | USER | (WRITABLE if write else 0) | (0 if execute else NX)


def frame_runs(entries: Iterable[int]) -> Iterator[Run]:
    """Yield the runs of frames owned by 4 KiB `entries`, in their order."""
    start, count = 0, 0
    for entry in entries:
        if entry & OWNED:
            frame = entry & PTE_ADDRESS
            if count and frame == start + (count << PAGE_SHIFT):
                count += 1
                continue
            if count:
                yield Gpa(start), count
            start, count = frame, 1
        elif count:
            yield Gpa(start), count
            count = 0
    if count:
        yield Gpa(start), count


class Shadows:
    """What a shadow-paging hypervisor remembers of the links above leaf entries. `drop` makes it forget everything."""

    def __init__(self, drop: Callable[[], None] = lambda: None) -> None:
        self._drop = drop
        self._lock = threading.Lock()
        self.generation = 0

    def forget(self) -> None:
        with self._lock:
            self._drop()
            self.generation += 1


class AddressSpace:
    """One tree of translations.

    A table, once linked into the tree, keeps its place as long as the tree lives: a shadow-paging hypervisor does not
    see a link change, and would go on using its shadow of the old table for whoever gets the frame next. A slot that
    held a 2 MiB leaf may have such a shadow too (of the frames under it), so it takes nothing else before `Shadows`
    has forgotten.
    """

    def __init__(
        self,
        memory: GuestMemory,
        ops: PageTableOps,
        supervisor: tuple[int, int] | None = None,
        shadows: Shadows | None = None,
    ) -> None:
        self.memory, self.ops = memory, ops
        self.shadows = shadows or Shadows()
        self.table = ops.alloc(3)
        self.supervisor_index = -1
        if supervisor:  # every space shares the supervisor's half
            self.supervisor_index = supervisor[0]
            ops.set(self.table, *supervisor)
        self._tables: tuple[dict[int, Gpa], ...] = ({}, {}, {}, {0: self.table})
        self._huge: dict[int, int] = {}  # gva >> 21 -> nothing but "is a 2 MiB leaf"
        self._was_huge: dict[int, tuple[int, int]] = {}  # gva >> 21 -> frame of its last leaf, generation of shadows

    @property
    def root(self) -> Gpa:
        return self.ops.root(self.table)

    # ---- tables --------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> tuple[dict[int, Gpa], ...]:
        """First copies of the tables by level and by address over what they span. For code that keeps copies."""
        return self._tables

    @property
    def huge(self) -> Container[int]:
        """The 2 MiB leaves, by address / 2 MiB."""
        return self._huge

    def find_table(self, gva: int, level: int) -> Gpa | None:
        """Return the first copy of the table of `level` that translates `gva`."""
        return self.table if level == 3 else self._tables[level].get(gva >> (LEVEL_SHIFT[level] + 9))

    def _table(self, gva: int, level: int) -> Gpa:
        """Return the table of `level` that translates `gva`, made when missing."""
        key = gva >> (LEVEL_SHIFT[level] + 9)
        table = self._tables[level].get(key) if level < 3 else self.table
        if table is None:
            parent = self._table(gva, level + 1)
            table = self.ops.alloc(level)
            if level:
                self.ops.set(parent, key & 511, table | TABLE)
            else:
                self._link(key, table | TABLE)
            self._tables[level][key] = table
        return table

    def _link(self, key: int, entry: int) -> None:
        """Put a table or a 2 MiB leaf into an empty slot of its page directory."""
        frame, generation = self._was_huge.pop(key, (0, -1))
        if generation == self.shadows.generation and not (entry & HUGE_LEAF and entry & PTE_ADDRESS == frame):
            self.shadows.forget()
        self.ops.set(self._table(key << HUGE_SHIFT, 1), key & 511, entry)

    def _leaf_table(self, gva: int) -> Gpa:
        """Return the page table of `gva`, splitting a 2 MiB leaf."""
        key = gva >> HUGE_SHIFT
        if key in self._huge:
            self._split([key])
        return self._table(gva, 0)

    def _split(self, keys: list[int]) -> None:
        """Turn 2 MiB leaves into tables. Until the hypervisor has forgotten them, guests that touch them fault."""
        taken: list[tuple[int, int]] = []
        for key in keys:
            directory = self._table(key << HUGE_SHIFT, 1)
            taken.append((key, self.ops.get(directory, key & 511)))
            self.ops.set(directory, key & 511, 0)
            del self._huge[key]
        self.shadows.forget()
        for key, entry in taken:
            first = entry & ~HUGE_LEAF
            self.ops.set_run(self._table(key << HUGE_SHIFT, 0), 0, array("Q", range(first, first + HUGE, PAGE)))

    def _pieces(self, gva: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield (address, first index, entries) for each page-table span touched by the range."""
        end = gva + (count << PAGE_SHIFT)
        while gva < end:
            first = (gva >> PAGE_SHIFT) & 511
            here = min(ENTRIES - first, (end - gva) >> PAGE_SHIFT)
            yield gva, first, here
            gva += here << PAGE_SHIFT

    def _held_pieces(self, gva: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield the `_pieces` that have a table or a 2 MiB leaf, without a look at each of a huge empty range."""
        end = gva + (count << PAGE_SHIFT)
        if (end - gva) >> HUGE_SHIFT <= len(self._tables[0]) + len(self._huge):
            yield from (piece for piece in self._pieces(gva, count) if self._holds(piece[0] >> HUGE_SHIFT))
            return
        for key in sorted({*self._tables[0], *self._huge}):
            start = max(gva, key << HUGE_SHIFT)
            if start < (stop := min(end, (key + 1) << HUGE_SHIFT)):
                yield from self._pieces(start, (stop - start) >> PAGE_SHIFT)

    def _holds(self, key: int) -> bool:
        return key in self._tables[0] or key in self._huge

    # ---- changes -------------------------------------------------------------------------------------------------

    def map(self, gva: Gva, gpa: Gpa, count: int, flags: int) -> None:
        """Map `count` pages; the range must be unmapped. 2 MiB leaves are used where both addresses are aligned.

        Takes over one reference per frame. Raises OutOfMemory (nothing is mapped by half: what is, is in the tables).
        """
        offset = gpa - gva
        for address, first, here in self._pieces(gva, count):
            frame = address + offset
            key = address >> HUGE_SHIFT
            if here == ENTRIES and not frame & HUGE_MASK and key not in self._tables[0] and flags & PRESENT:
                self._huge[key] = 1
                self._link(key, frame | flags | HUGE_LEAF)
                continue
            entries = array("Q", range(frame | flags, (frame | flags) + (here << PAGE_SHIFT), PAGE))
            self.ops.set_run(self._leaf_table(address), first, entries)
        if gva >= SYSCALL_STUB:
            self.ops.publish(self, gva)

    def unmap(self, gva: Gva, count: int) -> None:
        """Remove the range's translations and drop their references (which flushes what nobody else uses)."""
        release: list[Run] = []
        for address, first, here in self._held_pieces(gva, count):
            key = address >> HUGE_SHIFT
            if key in self._huge and here == ENTRIES:
                directory = self._table(address, 1)
                frame = Gpa(self.ops.get(directory, key & 511) & PTE_ADDRESS & ~HUGE_MASK)
                release.append((frame, FRAMES_PER_HUGE))
                self.ops.set(directory, key & 511, 0)
                del self._huge[key]
                self._was_huge[key] = frame, self.shadows.generation
                continue
            table = self._leaf_table(address)
            release.extend(frame_runs(self.ops.get_run(table, first, here)))
            self.ops.set_run(table, first, array("Q", bytes(8 * here)))
        for gpa, frames in release:
            for run in self.memory.shared(gpa, frames):
                self.memory.flush(*run)
        for gpa, frames in release:
            self.memory.release(gpa, frames)

    def protect(self, gva: Gva, count: int, flags: int) -> None:
        """Give mapped pages of the range new rights, keeping copy-on-write; downgrades are flushed."""
        downgraded: list[Run] = []
        for address, first, here in self._held_pieces(gva, count):
            key = address >> HUGE_SHIFT
            if key in self._huge and here == ENTRIES and flags & PRESENT:
                directory = self._table(address, 1)
                old = self.ops.get(directory, key & 511)
                new = _reprotect(old, flags) | HUGE_LEAF
                self.ops.set(directory, key & 511, new)
                if _is_downgrade(old, new):
                    downgraded.append((Gpa(old & PTE_ADDRESS & ~HUGE_MASK), FRAMES_PER_HUGE))
                continue
            table = self._leaf_table(address)
            old_entries = self.ops.get_run(table, first, here)
            new_entries = [_reprotect(entry, flags) if entry & OWNED else 0 for entry in old_entries]
            self.ops.set_run(table, first, array("Q", new_entries))
            pairs = zip(old_entries, new_entries, strict=True)
            downgraded.extend(frame_runs(old if _is_downgrade(old, new) else 0 for old, new in pairs))
        for run in downgraded:
            self.memory.flush(*run)

    def clone_range(self, child: "AddressSpace", gva: Gva, count: int, private: bool) -> list[Run]:
        """Give `child` the range's translations for fork; private writable pages become copy-on-write in both.

        Returns the runs that lost write access here and must be flushed before the child runs.
        """
        downgraded: list[Run] = []
        end = (gva >> PAGE_SHIFT) + count
        if private and (split := [key for key in self._huge if gva >> HUGE_SHIFT <= key <= end * PAGE >> HUGE_SHIFT]):
            self._split(split)
        for address, first, here in self._held_pieces(gva, count):
            key = address >> HUGE_SHIFT
            whole = key in self._huge and here == ENTRIES and key not in child._tables[0]
            if whole and not private:
                directory = self._table(address, 1)
                entry = self.ops.get(directory, key & 511)
                child._link(key, entry)
                child._huge[key] = 1
                self.memory.share(Gpa(entry & PTE_ADDRESS & ~HUGE_MASK), FRAMES_PER_HUGE)
                continue
            table = self._leaf_table(address)
            entries = self.ops.get_run(table, first, here)
            if private:
                # Read-only pages too: mprotect may make them writable later.
                cloned = [(entry & ~WRITABLE) | COW if entry & OWNED else 0 for entry in entries]
                downgraded.extend(frame_runs(entry if entry & WRITABLE else 0 for entry in entries))
                self.ops.set_run(table, first, array("Q", cloned))
                entries = cloned
            child.ops.set_run(child._table(address, 0), first, array("Q", entries))
            for gpa, frames in frame_runs(entries):
                self.memory.share(gpa, frames)
        return downgraded

    def break_cow(self, gva: Gva, flush: bool) -> None:
        """Give the copy-on-write page at `gva` a frame of its own. Raises OutOfMemory, OSError.

        No flush is needed when the only processor in this space has just faulted on the page: #PF drops its own
        translation (SDM 3A 4.10.4.1), and a shadowing hypervisor replaces the entry when the write is retried.
        """
        table, index = self._leaf_table(gva), (gva >> PAGE_SHIFT) & 511
        entry = self.ops.get(table, index)
        assert entry & COW, f"{gva=:#x} {entry=:#x}"
        old = Gpa(entry & PTE_ADDRESS)
        flags = (entry & ~PTE_ADDRESS & ~COW) | WRITABLE
        if self.memory.references(old) == 1:
            self.ops.set(table, index, old | flags)  # an upgrade: needs no flush
            return
        new = self.memory.allocate_frame()
        self.memory.write(new, self.memory.read(old, PAGE))
        flush = flush or self.ops.used_by_several(table, index)
        self.ops.set(table, index, new | flags)
        if flush:
            self.memory.flush(old, 1)
        self.memory.release(old, 1)

    def replace(self, gva: Gva, gpa: Gpa, flags: int) -> None:
        """Map one page where none is, keeping whatever table stands there."""
        self.ops.set(self._leaf_table(gva), (gva >> PAGE_SHIFT) & 511, gpa | flags)

    def relocate(self, gva: Gva, gpa: Gpa) -> None:
        """Move a page that nobody else refers to into the zeroed frame `gpa`, contents and all; flushes."""
        entry = self.entry(gva)
        old = Gpa(entry & PTE_ADDRESS)
        self.replace(gva, old, entry & ~PTE_ADDRESS & ~WRITABLE)
        self.memory.flush(old, 1)  # nobody writes to it any more
        self.memory.write(gpa, self.memory.read(old, PAGE))
        self.replace(gva, gpa, entry & ~PTE_ADDRESS)
        self.memory.flush(old, 1)
        self.memory.release(old, 1)

    def entry(self, gva: int) -> int:
        """Return the leaf entry of `gva` as if it were a 4 KiB one, or 0."""
        key = gva >> HUGE_SHIFT
        table = self._tables[0].get(key)
        if table is not None:
            return self.ops.get(table, (gva >> PAGE_SHIFT) & 511)
        if key in self._huge:
            entry = self.ops.get(self._tables[1][key >> 9], key & 511)
            return (entry & ~HUGE_LEAF) + (gva & HUGE_MASK & ~(PAGE - 1))
        return 0

    def entries(self, gva: Gva, count: int) -> Iterator[tuple[int, int]]:
        """Yield (address, entry) for every owned page of the range."""
        for address, first, here in self._held_pieces(gva, count):
            key = address >> HUGE_SHIFT
            if key in self._tables[0]:
                for index, entry in enumerate(self.ops.get_run(self._tables[0][key], first, here)):
                    if entry & OWNED:
                        yield address + (index << PAGE_SHIFT), entry
            elif key in self._huge:
                for index in range(here):
                    page = address + (index << PAGE_SHIFT)
                    yield page, self.entry(page)

    def move(self, source: Gva, target: Gva, count: int) -> None:
        """Move translations to an unmapped range (mremap); flushes the old place."""
        moved = list(self.entries(source, count))
        for address, _ in moved:
            self.ops.set(self._leaf_table(address), (address >> PAGE_SHIFT) & 511, 0)
        for gpa, frames in frame_runs(entry for _, entry in moved):
            self.memory.flush(gpa, frames)
        for address, entry in moved:
            place = address - source + target
            self.ops.set(self._leaf_table(place), (place >> PAGE_SHIFT) & 511, entry)

    @property
    def table_count(self) -> int:
        return sum(len(tables) for tables in self._tables)

    def clear(self, keep: Gva | None = None) -> None:
        """Unmap everything but the 2 MiB around `keep`; the empty tables stay linked. No processor may be in it."""
        for key in (*self._huge, *self._tables[0]):
            if keep is None or key != keep >> HUGE_SHIFT:
                self.unmap(Gva(key << HUGE_SHIFT), FRAMES_PER_HUGE)

    def close(self) -> None:
        """Free every frame and table of the space, for good."""
        self.clear()
        for tables in self._tables:
            for table in tables.values():
                self.ops.free(table)


def _reprotect(entry: int, flags: int) -> int:
    new = (entry & (PTE_ADDRESS | COW | ACCESSED | DIRTY)) | flags
    return new & ~WRITABLE if entry & COW else new


def _is_downgrade(old: int, new: int) -> bool:
    lost = old & ~new & (PRESENT | WRITABLE)
    return bool(old & PRESENT and (lost or new & ~old & NX))
