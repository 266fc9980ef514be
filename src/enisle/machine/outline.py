"""What the page tables of an address space look like: each table with its copies, as plain values to show outside.

Reads tables that others change: a row may be a moment older than the next. Requires the lock of the address space for
`outline` only; `count` takes what it finds.
"""

from enisle.abi.types import Gpa
from enisle.abi.x86 import Pte
from enisle.machine.frames import LONGEST_RING
from enisle.machine.memory import GuestMemory
from enisle.machine.nodes import NodeMemory
from enisle.machine.pagetables import ENTRIES, LEVEL_SHIFT, OWNED, AddressSpace
from enisle.machine.replicas import ReplicatedTables
from enisle.records import Record

PRESENT, HUGE_LEAF = int(Pte.PRESENT), int(Pte.HUGE)


class Copy(Record):
    """One page of a table: for the processors of `node`, lying on node `lies_on`."""

    frame: int
    node: int
    lies_on: int
    entries: int = 0
    """In use, of 512."""
    leaves: int = 0
    """Of these, those that map memory."""


class Table(Record):
    """One table: level 3 is the root, 0 the lowest; `address` is the first it translates."""

    level: int
    address: int
    copies: tuple[Copy, ...]
    """In ring order, the one that is written first in front."""


class Outline(Record):
    """A tree: the nodes there are, which of them have a tree of their own, and its tables from the root down."""

    nodes: int
    replicas: tuple[int, ...]
    lazy: bool
    total: int
    """Tables, each counted once; `tables` has the first of them."""
    pages: int
    """Tables with their copies."""
    tables: tuple[Table, ...]


def outline(space: AddressSpace, limit: int) -> Outline:
    """Return the tree with about `limit` pages, upper levels first, without counts. Requires: the space's lock."""
    ops, memory = space.ops, space.memory
    found: list[Table] = []
    total = pages = 0
    for level in range(3, -1, -1):
        shift = LEVEL_SHIFT[level] + 9
        for key in sorted(space.tables[level]):
            table = space.tables[level][key]
            total += 1
            if pages < limit or not found:
                found.append(Table(level, key << shift, _copies(ops, memory, table)))
                pages += len(found[-1].copies)
            else:
                pages += _number_of_copies(ops, table)
    if not isinstance(ops, ReplicatedTables):
        return Outline(1, (0,), False, total, pages, tuple(found))
    return Outline(ops.store.nodes, (ops.home, *ops.nodes), ops.lazy, total, pages, tuple(found))


def _copies(ops: object, memory: GuestMemory, table: Gpa) -> tuple[Copy, ...]:
    if not isinstance(ops, ReplicatedTables) or not isinstance(memory, NodeMemory):
        return (Copy(table, 0, 0),)
    frames = ops.store.frames
    return tuple(Copy(page, frames.node(page), memory.node_of(page)) for page in _ring(ops, table))


def _ring(ops: object, table: Gpa) -> list[Gpa]:
    """Return the copies of a table in ring order, without being counted as somebody who writes round the ring."""
    pages = [table]
    if isinstance(ops, ReplicatedTables):
        frames = ops.store.frames
        while (page := Gpa(frames.successor(pages[-1]))) != table and len(pages) < LONGEST_RING:
            pages.append(page)
    return pages


def _number_of_copies(ops: object, table: Gpa) -> int:
    if not isinstance(ops, ReplicatedTables):
        return 1
    return len(_ring(ops, table)) if ops.lazy else 1 + len(ops.nodes)


def count(memory: GuestMemory, tree: Outline) -> Outline:
    """Return the tree with what is in use of each copy."""
    tables = (
        table._replace(copies=tuple(_counted(memory, table.level, copy) for copy in table.copies))
        for table in tree.tables
    )
    return tree._replace(tables=tuple(tables))


def _counted(memory: GuestMemory, level: int, copy: Copy) -> Copy:
    first = copy.frame >> 3
    used = [entry for entry in memory.words[first : first + ENTRIES].tolist() if entry & OWNED]
    leaves = len(used) if level == 0 else sum(1 for entry in used if entry & HUGE_LEAF)
    return copy._replace(entries=len(used), leaves=leaves)
