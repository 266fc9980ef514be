"""Whether replicated page tables are what they must be: rings whole, every table on its node, all copies one mapping.

`verify` looks at a whole address space, `CheckedTables` at what each single write has touched. Both raise BrokenTables
that says which table, and how. Requires the lock of the address space; processors may run (they set marks only).
"""

from array import array

from enisle.abi.types import Gpa
from enisle.abi.x86 import PTE_ADDRESS
from enisle.machine.frames import BrokenTables
from enisle.machine.pagetables import AddressSpace
from enisle.machine.replica_trees import copy_on, for_each_table, tables_of
from enisle.machine.replicas import ENTRIES, HUGE_LEAF, NOT_MARKS, PRESENT, ReplicatedTables
from enisle.records import Record


class Checked(Record):
    """What `verify` has found whole."""

    tables: int
    copies: int
    """Tables with all their replicas."""
    displaced: int
    """Copies on another node than the one that walks them, for want of room."""


def verify(space: AddressSpace) -> Checked:
    """Check every table of a space. Raises BrokenTables."""
    ops = tables_of(space)
    seen: set[int] = set()
    count = displaced = 0
    for level, _, table in for_each_table(space):
        ring = check_ring(ops, table, level)
        check_entries(ops, table, ring, level, 0, ENTRIES)
        seen.update(ring)
        displaced += sum(ops.store.displaced(Gpa(copy)) for copy in ring)
        count += 1
    if lost := set(ops.store.frames.owned(ops.owner)) - seen:
        raise BrokenTables("page tables are lost", f"no ring leads to {_some(lost)}: a chain was split")
    return Checked(count, len(seen), displaced)


def check_ring(ops: ReplicatedTables, table: int, level: int) -> list[int]:
    """Return the ring of a table, once it has exactly the members it must have. Raises BrokenTables."""
    frames = ops.store.frames
    ring = frames.ring(table)
    nodes = [frames.node(copy) for copy in ring]
    if len(set(nodes)) < len(nodes):
        raise BrokenTables("a table has two copies for one node", f"{table:#x}, level {level}: nodes {nodes}")
    for copy in ring:
        if frames.owner(copy) != ops.owner or frames.level(copy) != level:
            why = f"{copy:#x} is of level {frames.level(copy)}, space {frames.owner(copy)}; {table:#x} of {level}"
            raise BrokenTables("two rings of page tables have become one", why)
    wanted = {ops.home, *ops.nodes}
    if nodes[0] != ops.home or not wanted.issuperset(nodes) or (not ops.lazy and len(nodes) < len(wanted)):
        why = f"{table:#x}, level {level}: nodes {nodes}, not {sorted(wanted)}"
        raise BrokenTables("a table has not the copies it must have", why)
    return ring


def check_entries(ops: ReplicatedTables, table: int, ring: list[int], level: int, first: int, count: int) -> None:
    """Check that all copies say the same of `count` entries. Raises BrokenTables."""
    words, frames = ops.store.memory.words, ops.store.frames
    source = words[(table >> 3) + first : (table >> 3) + first + count].tolist()
    for copy in ring:
        found = words[(copy >> 3) + first : (copy >> 3) + first + count].tolist()
        if level == 0 and copy == table:
            continue
        wanted = _for_node(ops, source, level, frames.node(copy)) if level else source
        for index, (entry, other) in enumerate(zip(wanted, found, strict=True), first):
            if (entry ^ other) & NOT_MARKS and (other or not _may_miss(ops, copy, table)):
                where = f"level {level}, entry {index} for node {frames.node(copy)}"
                raise BrokenTables("the copies of a page table differ", f"{where}: {other:#x}, not {entry:#x}")


def _may_miss(ops: ReplicatedTables, copy: int, table: int) -> bool:
    """Return whether a copy may lack entries that the first one has."""
    return ops.lazy and copy != table


def _for_node(ops: ReplicatedTables, entries: list[int], level: int, node: int) -> list[int]:
    """Return what a copy of an upper table must hold: links to the children's copies of its own node."""
    frames = ops.store.frames
    wanted = entries[:]
    for index, entry in enumerate(entries):
        if entry & PRESENT and not entry & HUGE_LEAF and frames.is_table(entry & PTE_ADDRESS):
            child = entry & PTE_ADDRESS
            if frames.level(child) != level - 1:
                why = f"level {level}, entry {index} links {child:#x} of level {frames.level(child)}"
                raise BrokenTables("a page table links a table of the wrong level", why)
            wanted[index] = (copy_on(ops, child, node) or child) | entry & ~PTE_ADDRESS
    return wanted


def _some(pages: set[int]) -> str:
    return ", ".join(f"{page:#x}" for page in sorted(pages)[:4])


class CheckedTables(ReplicatedTables):
    """Replicated tables that look at their ring and at what they have just written, after every write."""

    def space(self) -> "CheckedTables":
        return CheckedTables(self.store, self.store.memory.preferred()[0])

    def set(self, table: Gpa, index: int, entry: int) -> None:
        super().set(table, index, entry)
        self._check(table, index, 1)

    def set_run(self, table: Gpa, index: int, entries: "array[int]") -> None:
        super().set_run(table, index, entries)
        self._check(table, index, len(entries))

    def _check(self, table: Gpa, index: int, count: int) -> None:
        level = self.store.frames.level(table)
        check_entries(self, table, check_ring(self, table, level), level, index, count)
