"""Replicated page tables as values: counters for statistics, trees for pictures."""

from typing import TYPE_CHECKING

from enisle.abi.types import PAGE
from enisle.abi.x86 import PTE_ADDRESS
from enisle.machine import replica_trees
from enisle.machine.pagetables import AddressSpace
from enisle.machine.replicas import ENTRIES, HUGE_LEAF, PRESENT, TableStore
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.machine.replication import Replication


class ReplicationStatistics(Record):
    """Counters of a machine's page tables. Sizes in bytes; tuples are indexed by node."""

    mode: str
    nodes: int
    spaces: int
    tables: int
    """First copies."""
    replicas: int
    """Further copies."""
    node_tables: tuple[int, ...]
    """Tables that each node's processors walk."""
    node_table_bytes: tuple[int, ...]
    node_memory_bytes: tuple[int, ...]
    """Memory taken from each node, tables included."""
    ring_hops: int
    writes: int
    """Entries written, in all copies."""
    flushes: int
    fallbacks: int
    """Tables that were put on a foreign node because their own was full."""
    repairs: int
    """Tables that have been brought home since."""
    refused: int
    """Copies that were wanted and not made, for want of memory."""
    fills: int
    """Entries that lazy copies have got by faults."""
    shootdowns: int
    """Of lazy copies: nodes that had to forget a translation."""
    spared: int
    """Nodes that had never had it."""
    toggles: int
    """Changes of an address space between one tree and several."""
    migrations: int
    """First copies that have moved to another node."""
    machines: int
    """Virtual machines of the hypervisor, each with its own nested or shadow tables."""
    bound_nodes: int
    """Nodes whose memory is bound to a node of the host, as a mask."""
    remote_walks: float | None
    """In mode auto: walks per second in tables on a foreign node, estimated from accessed bits; else nobody looks."""


class TableView(Record):
    """One copy of one table, with what it links."""

    gpa: int
    level: int
    node: int
    """Whose processors walk it."""
    memory_node: int
    """Where it lies."""
    successor: int
    """The next copy in its ring; itself when there is one copy."""
    present: int
    """Entries in use."""
    leaves: int
    """Of those, pages (of 4 KiB or 2 MiB)."""
    children: "tuple[TableView, ...]"


class TreesView(Record):
    """The trees of one address space."""

    home: int
    lazy: bool
    trees: "dict[int, TableView]"
    """By node."""


def statistics(replication: "Replication", spaces: int) -> ReplicationStatistics:
    """Return what there is and what was done since the machine began. Requires: the lock of `replication`."""
    store, memory, nodes = replication.store, replication.memory, range(replication.nodes)
    first = store.first_copies
    return ReplicationStatistics(
        replication.mode,
        replication.nodes,
        spaces,
        first,
        store.tables - first,
        tuple(store.per_node),
        tuple(count * PAGE for count in store.per_node),
        tuple((memory.part_frames - memory.room(node)) * PAGE for node in nodes),
        store.frames.hops,
        store.writes,
        memory.flushes,
        store.fallbacks,
        store.repairs,
        replication.refused,
        store.fills,
        store.shootdowns,
        store.spared,
        replication.toggles,
        replication.migrations,
        replication.machines,
        memory.bound,
        replication.pilot.remote_walks() if replication.pilot else None,
    )


def describe(space: AddressSpace) -> TreesView:
    """Return the trees of a space. Requires: its lock."""
    ops = replica_trees.tables_of(space)
    roots = {node: ops.root_on(space.table, node) for node in (ops.home, *ops.nodes)}
    return TreesView(ops.home, ops.lazy, {node: _view(ops.store, root) for node, root in sorted(roots.items())})


def _view(store: TableStore, table: int) -> TableView:
    frames, level = store.frames, store.frames.level(table)
    present = leaves = 0
    children: list[TableView] = []
    for entry in store.memory.words[table >> 3 : (table >> 3) + ENTRIES].tolist():
        if entry & PRESENT:
            present += 1
            child = entry & PTE_ADDRESS
            if level and not entry & HUGE_LEAF and frames.is_table(child):
                children.append(_view(store, child))
            else:
                leaves += 1
    where = store.memory.node_of(table)
    return TableView(table, level, frames.node(table), where, frames.successor(table), present, leaves, tuple(children))
