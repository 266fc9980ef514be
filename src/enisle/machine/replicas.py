"""Replicated page tables: the backend of `PageTableOps` that keeps a copy of every table for each node that walks it.

A write goes round the ring of its table (`frames`): N steps and N stores for N copies, no tree is walked. Leaf entries
are equal in all copies; an entry that links a table leads to the copy of the copy's own node. A processor sets accessed
and dirty in the copy it walked: they are read as a union, kept in the first copy when an entry is written again, and
cleared in all. Lazily made copies hold only what their node has asked for; what they do not hold stays empty.
Callers hold the lock of the address space; `TableStore` has one of its own below it.
"""

import threading
from array import array
from collections.abc import Callable
from itertools import pairwise

from enisle.abi.types import PAGE, Gpa
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import InvalidRequest
from enisle.machine.frames import FrameTable
from enisle.machine.memory import OutOfMemory
from enisle.machine.nodes import NodeMemory
from enisle.machine.pagetables import AddressSpace, frame_runs

ENTRIES = 512
PRESENT, WRITABLE, HUGE_LEAF, NX = Pte.PRESENT, Pte.WRITABLE, Pte.HUGE, Pte.NX
OWNED = PRESENT | Pte.HELD
MARKS = Pte.ACCESSED | Pte.DIRTY
NOT_MARKS = ((1 << 64) - 1) & ~MARKS
ONE_EACH = sum(1 << 64 * index for index in range(ENTRIES))
"""A number with 1 in each of 512 words: what a whole table's words are multiplied or masked with at once."""
ALL_MARKS = ONE_EACH * MARKS
SUPERVISOR_INDEX = 256
MOST_READY = 32
"""Tables kept ready per node, in a large machine."""

Notice = Callable[[int, int, "array[int]"], None]
"""Told of level, index and entries that were written: the emulator watches what becomes executable."""


class TableStore:
    """The table pages of a machine: where they come from, by node, and what is counted of them."""

    def __init__(self, memory: NodeMemory, notice: Notice | None = None) -> None:
        self.memory, self.notice = memory, notice
        self.frames = FrameTable()
        self.nodes = memory.nodes
        self.lock = threading.Lock()
        self.ready: list[list[Gpa]] = [[] for _ in range(self.nodes)]
        self.high = max(1, min(MOST_READY, memory.part_frames // 16))
        """Tables kept ready per node: filled up to `high` when few are left, while the node has room."""
        self.away: set[Gpa] = set()
        """Tables that lie on another node than their own."""
        self.tables = 0
        """Tables in use, copies included."""
        self.first_copies = 0
        self.per_node = [0] * self.nodes
        """Tables in use by the node that walks them."""
        self.writes = self.fallbacks = self.fills = self.repairs = 0
        self.shootdowns = self.spared = 0
        """Nodes that had to forget a translation; nodes that had never had it."""
        self.several_machines = False
        """Each node has a virtual machine of its own, with its own shadows."""
        self._owners = 0

    def new_owner(self) -> int:
        with self.lock:
            self._owners += 1
            return self._owners

    def take(self, node: int, level: int, owner: int) -> Gpa:
        """Return an empty table for `node`: on it, or on another while it is full (counted). Raises OutOfMemory."""
        with self.lock:
            ready = self.ready[node]
            if len(ready) <= self.high // 4:
                ready += self.memory.take_on(node, self.high - len(ready))
            if ready:
                table = ready.pop()
            else:
                table = self._take_elsewhere(node)
                if self.memory.node_of(table) != node:
                    self.away.add(table)
                    self.fallbacks += 1
            self.frames.add(table, node, level, owner)
            self.tables += 1
            self.per_node[node] += 1
            return table

    def _take_elsewhere(self, node: int) -> Gpa:
        for other in sorted(range(self.nodes), key=lambda other: -len(self.ready[other])):
            if other != node and self.ready[other]:
                return self.ready[other].pop()
        return self.memory.allocate_frame()

    def reserve(self, node: int, count: int) -> None:
        """Make ready what `node` is going to take, as far as it has room."""
        with self.lock:
            ready = self.ready[node]
            ready += self.memory.take_on(node, count - len(ready))

    def give(self, *tables: Gpa) -> None:
        """Take back tables that no ring, tree or shadow leads to any more."""
        surplus: list[int] = []
        with self.lock:
            for table in tables:
                self.per_node[self.frames.node(table)] -= 1
                self.frames.remove(table)
                self.away.discard(table)
                where = self.memory.node_of(table)
                if len(self.ready[where]) < self.high:
                    self.memory.words[table >> 3 : (table >> 3) + ENTRIES] = EMPTY  # type: ignore[index]  # 'Q' too
                    self.ready[where].append(table)
                else:
                    surplus.append(table | PRESENT)
            self.tables -= len(tables)
        for run in frame_runs(sorted(surplus)):
            self.memory.release(*run)

    def may_go_home(self) -> bool:
        """Return whether a table that lies on a foreign node could be moved to its own now."""
        with self.lock:
            homes = {self.frames.node(table) for table in self.away}
        return any(self.ready[node] or self.memory.room(node) > 0 for node in homes)

    def displaced(self, table: Gpa) -> bool:
        """Return whether the table lies on another node than the one that walks it."""
        return self.memory.node_of(table) != self.frames.node(table)

    def drain(self) -> None:
        """Give the pages kept ready back."""
        with self.lock:
            for ready in self.ready:
                while ready:
                    self.memory.release(ready.pop(), 1)


EMPTY = array("Q", bytes(PAGE))


class ReplicatedTables:
    """The tables of one address space. `home` is the node of the first copy; `nodes` those with a copy of each table.

    `lazy`: copies are made and filled when their node asks (`replica_trees.fill`); `nodes` then are those with a root.
    """

    def __init__(self, store: TableStore, home: int = 0) -> None:
        self.store, self.home = store, home
        self.owner = store.new_owner()
        self.nodes: tuple[int, ...] = ()
        """Besides home."""
        self.lazy = False
        self.changes = self.calls = 0
        """Entries written for this space, each counted once, and in how many runs: its churn."""
        self._frames, self._words = store.frames, store.memory.words

    @property
    def tables(self) -> int:
        """Tables in use in the whole machine, copies included."""
        return self.store.tables

    def space(self) -> "ReplicatedTables":
        """Return the tables of one more address space, at home where the calling thread's memory is."""
        return ReplicatedTables(self.store, self.store.memory.preferred()[0])

    # ---- tables --------------------------------------------------------------------------------------------------

    def alloc(self, level: int) -> Gpa:
        """Return an empty table with all its copies. Raises OutOfMemory, with nothing taken."""
        if not 0 <= level <= 3:
            raise InvalidRequest("no such level of page tables", f"level {level}", "4-level tables have levels 0 to 3")
        taken: list[Gpa] = []
        try:
            for node in (self.home, *(() if self.lazy else self.nodes)):
                taken.append(self.store.take(node, level, self.owner))
        except OutOfMemory:
            for table in taken:
                self.store.give(table)
            raise
        for before, table in pairwise(taken):
            self._frames.splice(before, table)
        self.store.first_copies += 1
        return taken[0]

    def free(self, table: Gpa) -> None:
        """Free a table and its copies. The hypervisor must have forgotten them (`Shadows`)."""
        self.store.first_copies -= 1
        for member in self._frames.ring(table):
            self._frames.unlink(member)
            self.store.give(Gpa(member))

    def publish(self, space: AddressSpace, gva: int) -> None:
        """Give lazy trees the kernel's page at `gva`: where SYSCALL leads, no fault may come. Raises OutOfMemory."""
        if self.lazy and self.nodes:
            from enisle.machine.replica_trees import publish

            publish(space, gva)

    def root(self, table: Gpa) -> Gpa:
        return table

    def root_on(self, table: Gpa, node: int) -> Gpa:
        """Return the copy that `node` walks, else the first one."""
        if node == self.home:
            return table
        frames = self._frames
        return Gpa(next((member for member in frames.ring(table) if frames.node(member) == node), table))

    # ---- entries -------------------------------------------------------------------------------------------------

    def set(self, table: Gpa, index: int, entry: int) -> None:
        level = self._frames.level(table)
        if level and entry & PRESENT:
            if not entry & HUGE_LEAF:
                self._link(table, index, entry, level)
                return
            if level > 1:
                hint = "map it by 2 MiB pages"
                raise InvalidRequest("no 1 GiB pages", f"a leaf at level {level}, index {index}", hint)
        ring = self._frames.ring(table)
        words = self._words
        if self.lazy:
            self._count_shootdown(ring, index, array("Q", (entry,)))
        words[(table >> 3) + index] = entry
        if len(ring) > 1:
            clean = entry & NOT_MARKS
            for copy in ring[1:]:
                at = (copy >> 3) + index
                if not self.lazy or words[at]:
                    words[at] = clean
        self.changes += 1
        self.calls += 1
        self.store.writes += len(ring)
        if self.store.notice:
            self.store.notice(level, index, array("Q", (entry,)))

    def _link(self, table: Gpa, index: int, entry: int, level: int) -> None:
        """Link a table: in every copy to the child's copy of the same node."""
        frames, words = self._frames, self._words
        child, flags = entry & PTE_ADDRESS, entry & ~PTE_ADDRESS
        if level == 3 and index >= SUPERVISOR_INDEX and self.store.notice:
            # The emulator's far calls push with the supervisor's rights: ring 3 must not get at the GDT that way.
            flags &= ~WRITABLE
        children = {frames.node(member): member for member in frames.ring(child)}
        missing = 0 if self.lazy and index < SUPERVISOR_INDEX else child
        ring = frames.ring(table)
        for copy in ring:
            other = children.get(frames.node(copy), child if copy == table else missing)
            words[(copy >> 3) + index] = other | flags if other else 0
        self.changes += 1
        self.calls += 1
        self.store.writes += len(ring)

    def set_run(self, table: Gpa, index: int, entries: "array[int]") -> None:
        level = self._frames.level(table)
        assert level == 0, f"{table=:#x} {level=}"
        ring = self._frames.ring(table)
        words, count = self._words, len(entries)
        first = (table >> 3) + index
        if self.lazy:
            self._count_shootdown(ring, index, entries)
        words[first : first + count] = entries  # type: ignore[index]  # same format: 'Q'
        if len(ring) > 1:
            clean = without_marks(entries)
            for copy in ring[1:]:
                first = (copy >> 3) + index
                if self.lazy:
                    held = words[first : first + count].tolist()
                    if not any(held):
                        continue
                    kept = (new if old else 0 for old, new in zip(held, clean, strict=True))
                    words[first : first + count] = array("Q", kept)  # type: ignore[index]
                else:
                    words[first : first + count] = clean  # type: ignore[index]
        self.changes += count
        self.calls += 1
        self.store.writes += len(ring) * count
        if self.store.notice:
            self.store.notice(level, index, entries)

    def _count_shootdown(self, ring: list[int], index: int, entries: "array[int]") -> None:
        """Count, for entries that lose something, the nodes that may have a translation and those that cannot."""
        words, count = self._words, len(entries)
        first = (ring[0] >> 3) + index
        before = words[first : first + count].tolist()
        if not any(map(loses, before, entries)):
            return
        holders = sum(any(words[(copy >> 3) + index : (copy >> 3) + index + count].tolist()) for copy in ring)
        self.store.shootdowns += holders
        self.store.spared += len(self.nodes) + 1 - holders

    def get(self, table: Gpa, index: int) -> int:
        """Return the entry, with the accessed and dirty bits of all copies."""
        words = self._words
        entry = words[(table >> 3) + index]
        if self.nodes and entry & OWNED:
            for copy in self._frames.ring(table)[1:]:
                entry |= words[(copy >> 3) + index] & MARKS
        return entry

    def used_by_several(self, table: Gpa, index: int) -> bool:
        """Return whether processors of several nodes may know the entry: the copies they walked are accessed."""
        if not self.nodes:
            return self.store.several_machines
        copies = self._frames.ring(table)
        return sum(bool(self._words[(copy >> 3) + index] & Pte.ACCESSED) for copy in copies) > 1

    def get_run(self, table: Gpa, index: int, count: int) -> list[int]:
        """Return entries, with the accessed and dirty bits of all copies."""
        first = (table >> 3) + index
        entries = self._words[first : first + count]
        if not self.nodes or len(ring := self._frames.ring(table)) == 1:
            return entries.tolist()
        marks = self._marks(ring[1:], index, count)
        if not marks:
            return entries.tolist()
        union = int.from_bytes(entries.tobytes(), "little") | marks
        return array("Q", union.to_bytes(8 * count, "little")).tolist()

    def _marks(self, copies: list[int], index: int, count: int) -> int:
        """Return the accessed and dirty bits of the copies' entries as one number, a word an entry."""
        marks = 0
        for copy in copies:
            first = (copy >> 3) + index
            marks |= int.from_bytes(self._words[first : first + count].tobytes(), "little")
        return marks & ALL_MARKS

    def clear_ad(self, table: Gpa, index: int, count: int, bits: int = MARKS) -> list[int]:
        """Clear accessed and dirty bits in every copy; return the entries as they were, all bits in union.

        The caller flushes the frames: until then accesses leave no mark. Only entries that have a bit are written: a
        processor that sets one meanwhile keeps it (with `bits` = dirty; an entry found accessed and clean could lose
        a dirty bit that comes in this very moment).
        """
        before = self.get_run(table, index, count)
        words = self._words
        for copy in self._frames.ring(table):
            first = (copy >> 3) + index
            for at, entry in enumerate(words[first : first + count].tolist(), first):
                if entry & bits:
                    words[at] = entry & ~bits
        return before


def loses(old: int, new: int) -> bool:
    """Return whether a processor that knows `old` must forget it when it becomes `new`."""
    if not old & PRESENT:
        return False
    return bool((old ^ new) & PTE_ADDRESS or old & ~new & (PRESENT | WRITABLE) or new & ~old & NX)


def without_marks(entries: "array[int]") -> "array[int]":
    """Return entries as a copy starts with them: not accessed, not dirty."""
    number = int.from_bytes(entries.tobytes(), "little")
    if not number & (ALL_MARKS & (1 << 64 * len(entries)) - 1):
        return entries
    return array("Q", (number & ~ALL_MARKS).to_bytes(8 * len(entries), "little"))
