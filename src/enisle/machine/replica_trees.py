"""Whole trees of replicas: grow one for a node, fill one page of a lazy one, drop, move the first copy, repair.

Every function takes an `AddressSpace` on `ReplicatedTables` and requires its lock. A tree may be dropped only when no
processor walks it; its pages are used again only after the hypervisor has forgotten its shadows of them (`Shadows`).
"""

from array import array
from collections.abc import Iterator

from enisle.abi.types import HUGE, HUGE_SHIFT, PAGE_SHIFT, Gpa
from enisle.abi.x86 import PTE_ADDRESS
from enisle.machine.memory import OutOfMemory
from enisle.machine.pagetables import LEVEL_SHIFT, OWNED, AddressSpace
from enisle.machine.replicas import (
    ALL_MARKS,
    ENTRIES,
    HUGE_LEAF,
    MARKS,
    NOT_MARKS,
    PRESENT,
    SUPERVISOR_INDEX,
    ReplicatedTables,
    loses,
    without_marks,
)

FILL_AROUND = 8
"""Pages before and after the one a node asked for that its copy gets with it, within one table."""


def tables_of(space: AddressSpace) -> ReplicatedTables:
    assert isinstance(space.ops, ReplicatedTables), f"{space.ops=}"
    return space.ops


def for_each_table(space: AddressSpace) -> Iterator[tuple[int, int, Gpa]]:
    """Yield (level, key, first copy) of every table, children before their parents."""
    for level, tables in enumerate(space.tables):
        for key, table in tables.items():
            yield level, key, table


def copy_on(ops: ReplicatedTables, table: int, node: int) -> int | None:
    """Return the copy of a table that `node` walks."""
    frames = ops.store.frames
    return next((member for member in frames.ring(table) if frames.node(member) == node), None)


# ---- growing ---------------------------------------------------------------------------------------------------------


def grow(space: AddressSpace, nodes: tuple[int, ...]) -> None:
    """Give each of `nodes` a whole tree. Raises OutOfMemory, with none of them grown. Upgrades only: no flush."""
    ops = tables_of(space)
    assert not ops.lazy, "lazy trees are filled, not grown"
    added = tuple(node for node in nodes if node != ops.home and node not in ops.nodes)
    made: list[int] = []
    for node in added:
        ops.store.reserve(node, space.table_count)
    try:
        for _, _, table in for_each_table(space):
            for node in added:
                made.append(_copy(ops, table, node))
    except OutOfMemory:
        for copy in made:
            ops.store.frames.unlink(copy)
        ops.store.give(*map(Gpa, made))
        raise
    ops.nodes = tuple(sorted((*ops.nodes, *added)))


def _copy(ops: ReplicatedTables, table: int, node: int) -> int:
    """Make the copy of one table for `node`, whose children have theirs already, and put it into the ring."""
    store = ops.store
    level = store.frames.level(table)
    copy = store.take(node, level, ops.owner)
    store.memory.words[copy >> 3 : (copy >> 3) + ENTRIES] = _translated(ops, table, node, level)  # type: ignore[index]
    store.frames.splice(table, copy)
    store.writes += ENTRIES
    return copy


def _translated(ops: ReplicatedTables, table: int, node: int, level: int) -> "array[int]":
    """Return what the copy for `node` must hold, with no accessed or dirty bit."""
    words = ops.store.memory.words
    entries = array("Q", words[table >> 3 : (table >> 3) + ENTRIES].tobytes())
    if level:
        for index, entry in enumerate(entries):
            if entry & PRESENT and not entry & HUGE_LEAF:
                child = entry & PTE_ADDRESS
                if ops.store.frames.is_table(child):
                    entries[index] = (copy_on(ops, child, node) or child) | entry & ~PTE_ADDRESS
    return without_marks(entries)


# ---- filling a lazy tree ---------------------------------------------------------------------------------------------


def fill(space: AddressSpace, node: int, address: int, around: int = FILL_AROUND) -> int:
    """Give the lazy tree of `node` the entry of `address` and its neighbours; return how many it had not.

    Raises OutOfMemory.
    """
    ops = tables_of(space)
    if node == ops.home:
        return 0
    level = 1 if address >> HUGE_SHIFT in space.huge else 0
    if space.find_table(address, level) is None:
        return 0
    copy = _path(space, ops, node, address, level)
    source = space.find_table(address, level) or 0
    words, index = ops.store.memory.words, address >> LEVEL_SHIFT[level] & 511
    low, high = (index, index + 1) if level else (max(0, index - around), min(ENTRIES, index + around + 1))
    filled = 0
    for at in range(low, high):
        entry = words[(source >> 3) + at]
        if entry & OWNED and not words[(copy >> 3) + at]:
            words[(copy >> 3) + at] = entry & NOT_MARKS
            filled += 1
    ops.store.fills += filled
    ops.store.writes += filled
    return filled


def _path(space: AddressSpace, ops: ReplicatedTables, node: int, address: int, level: int) -> int:
    """Return the copy for `node` of the table that translates `address` at `level`, made with all above it."""
    store = ops.store
    table = space.find_table(address, level)
    assert table is not None, f"{address=:#x} {level=}"
    if (copy := copy_on(ops, table, node)) is not None:
        return copy
    parent = _path(space, ops, node, address, level + 1) if level < 3 else 0
    copy = store.take(node, level, ops.owner)
    store.frames.splice(table, copy)
    if level == 3:
        _share_supervisor(ops, table, copy, node)
        ops.nodes = tuple(sorted((*ops.nodes, node)))
    else:
        index = address >> LEVEL_SHIFT[level + 1] & 511
        above = space.find_table(address, level + 1) or 0
        flags = store.memory.words[(above >> 3) + index] & ~PTE_ADDRESS & NOT_MARKS
        store.memory.words[(parent >> 3) + index] = copy | flags
        store.writes += 1
    return copy


def _share_supervisor(ops: ReplicatedTables, root: int, copy: int, node: int) -> None:
    """Link the supervisor's half into a lazy root: it must be there before the first exception."""
    words = ops.store.memory.words
    for index in range(SUPERVISOR_INDEX, ENTRIES):
        entry = words[(root >> 3) + index]
        if entry & PRESENT:
            child = entry & PTE_ADDRESS
            words[(copy >> 3) + index] = (copy_on(ops, child, node) or child) | entry & ~PTE_ADDRESS & NOT_MARKS


def open_root(space: AddressSpace, node: int, address: int) -> None:
    """Make the lazy root of `node` with what no fault may miss: all of the tables from `address` on."""
    ops = tables_of(space)
    assert ops.lazy, "only lazy trees begin with a root"
    if node != ops.home and node not in ops.nodes:
        _path(space, ops, node, address, 3)
        publish(space, address)


def publish(space: AddressSpace, address: int) -> None:
    """Give every lazy tree all entries of the tables from `address` on: pages of the kernel's own, never faulted in."""
    ops = tables_of(space)
    keys = [key for key in space.tables[0] if key >= address >> HUGE_SHIFT]
    for node in ops.nodes:
        for key in keys:
            fill(space, node, (key << HUGE_SHIFT) + HUGE // 2, ENTRIES)


# ---- dropping and moving ---------------------------------------------------------------------------------------------


def shrink(space: AddressSpace, nodes: tuple[int, ...], limbo: list[Gpa] | None = None) -> None:
    """Drop the trees of `nodes`, which no processor walks any more; their accessed and dirty bits are kept.

    The pages go to `limbo`, for whoever lets the hypervisor forget them later; without one that is done here.
    """
    ops = tables_of(space)
    assert ops.home not in nodes, "the first copy stays"
    dropped: list[Gpa] = []
    frames = ops.store.frames
    for _, _, table in for_each_table(space):
        for copy in frames.ring(table)[1:]:
            if frames.node(copy) in nodes:
                keep_marks(ops, copy, table)
                frames.unlink(copy)
                dropped.append(Gpa(copy))
    ops.nodes = tuple(node for node in ops.nodes if node not in nodes)
    if limbo is not None:
        limbo += dropped
        return
    if dropped:
        space.shadows.forget()  # or a later user of these pages would be walked by their old shadows
    ops.store.give(*dropped)


def keep_marks(ops: ReplicatedTables, copy: int, table: int) -> None:
    """Add the accessed and dirty bits of a copy to those of another."""
    words = ops.store.memory.words
    entries = words[copy >> 3 : (copy >> 3) + ENTRIES]
    if not int.from_bytes(entries.tobytes(), "little") & ALL_MARKS:
        return
    for index, entry in enumerate(entries.tolist()):
        if entry & MARKS:
            at = (table >> 3) + index
            if words[at] & OWNED and entry & MARKS & ~words[at]:
                words[at] |= entry & MARKS


def move_home(space: AddressSpace, node: int) -> None:
    """Let the complete tree of `node` be the first copy: writes begin there, and the others may be dropped."""
    ops = tables_of(space)
    if node == ops.home:
        return
    assert node in ops.nodes, f"{node=} has no tree"
    assert not ops.lazy, f"the tree of {node=} is not whole"
    for tables in space.tables:
        for key, table in tables.items():
            copy = copy_on(ops, table, node)
            assert copy is not None, f"{table=:#x} has no copy on {node=}"
            tables[key] = Gpa(copy)
    space.table = space.tables[3][0]
    ops.nodes = tuple(sorted((*(other for other in ops.nodes if other != node), ops.home)))
    ops.home = node


# ---- repair ----------------------------------------------------------------------------------------------------------


def repair(space: AddressSpace) -> list[tuple[Gpa, Gpa]]:
    """Move tables that lie on a foreign node to their own, as far as it has room again.

    Returns old and new pages. The old ones are to be given back (`retire`) when no processor walks them any more.
    """
    ops = tables_of(space)
    moved: list[tuple[Gpa, Gpa]] = []
    for level, key, table in list(for_each_table(space)):
        for copy in ops.store.frames.ring(table):
            if ops.store.displaced(Gpa(copy)) and (new := _take_home(ops, copy, level)):
                _replace(space, ops, (level, key, table), copy, new)
                moved.append((Gpa(copy), new))
    ops.store.repairs += len(moved)
    return moved


def retire(space: AddressSpace, moved: list[tuple[Gpa, Gpa]]) -> None:
    """Give back the pages that `repair` has replaced. Requires: no processor walks them."""
    ops = tables_of(space)
    if moved:
        space.shadows.forget()
    for old, new in moved:
        keep_marks(ops, old, new)
        ops.store.give(old)


def _take_home(ops: ReplicatedTables, copy: int, level: int) -> Gpa | None:
    """Return a page on the node of `copy`, or None while there is none."""
    store, node = ops.store, ops.store.frames.node(copy)
    with store.lock:
        if not store.ready[node]:
            store.ready[node] += store.memory.take_on(node, 1)
        if not store.ready[node]:
            return None
    return store.take(node, level, ops.owner)


def _replace(space: AddressSpace, ops: ReplicatedTables, where: tuple[int, int, Gpa], copy: int, new: Gpa) -> None:
    """Let `new` take the place of `copy` in its ring, its parent and the space's own list."""
    level, key, table = where
    store, words = ops.store, ops.store.memory.words
    node = store.frames.node(copy)
    words[new >> 3 : (new >> 3) + ENTRIES] = words[copy >> 3 : (copy >> 3) + ENTRIES]
    store.frames.splice(copy, new)
    store.frames.unlink(copy)
    if level < 3:
        above = space.table if level == 2 else space.tables[level + 1][key >> 9]
        parent = copy_on(ops, above, node) or above
        entry = words[(parent >> 3) + (key & 511)]
        words[(parent >> 3) + (key & 511)] = new | entry & ~PTE_ADDRESS
        store.writes += 1
    if copy == table:
        space.tables[level][key] = new
        if level == 3:
            space.table = new


def resync(space: AddressSpace) -> int:
    """Write again what differs from the first copy, after a write was cut short; return how many entries were wrong."""
    ops = tables_of(space)
    store, words, wrong = ops.store, ops.store.memory.words, 0
    stale: list[tuple[Gpa, int]] = []
    for level, _, table in for_each_table(space):
        for copy in store.frames.ring(table)[1:]:
            wanted = _translated(ops, table, store.frames.node(copy), level)
            found = words[copy >> 3 : (copy >> 3) + ENTRIES].tolist()
            for index, (new, old) in enumerate(zip(wanted, found, strict=True)):
                if (old & NOT_MARKS) != new and (old or not ops.lazy):
                    words[(copy >> 3) + index] = new
                    wrong += 1
                    if loses(old, new) and (level == 0 or old & HUGE_LEAF):
                        stale.append((Gpa(old & PTE_ADDRESS), HUGE >> PAGE_SHIFT if level else 1))
    for frame, count in stale:
        store.memory.flush(frame, count)
    return wrong
