"""Replicated page tables against the flat dictionary of the plain ones, and copy by copy."""

import random
import subprocess
import sys
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from enisle.abi.types import FRAMES_PER_HUGE, HUGE, PAGE, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import InvalidRequest
from enisle.machine import replica_trees as trees
from enisle.machine.frames import BrokenTables
from enisle.machine.layout import SLOTS, SYSCALL_STUB
from enisle.machine.memory import OutOfMemory
from enisle.machine.nodes import NodeMemory
from enisle.machine.pagetables import AddressSpace, leaf_flags
from enisle.machine.replica_check import CheckedTables, verify
from enisle.machine.replicas import ReplicatedTables, TableStore
from unit.machine.test_pagetables import BASE, LIMIT, PAGES, STATE, SpacesMachine, walk

ACCESSED, DIRTY, WRITABLE, PRESENT = Pte.ACCESSED, Pte.DIRTY, Pte.WRITABLE, Pte.PRESENT
READ_WRITE = leaf_flags(True, True, False)
NODES = 4


class ReplicatedSpacesMachine(SpacesMachine):
    """The same rules over four nodes; the trees come and go between them, and processors leave their marks."""

    @initialize(kind=st.sampled_from(["anonymous", "shared"]))
    def start(self, kind: str) -> None:
        self.memory = NodeMemory(LIMIT, kind, nodes=NODES)
        self.store = TableStore(self.memory)
        self.ops = CheckedTables(self.store)
        self.spaces = [AddressSpace(self.memory, CheckedTables(self.store)) for _ in range(2)]
        self.models = [{}, {}]

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            for space in self.spaces:
                space.close()
            assert self.store.tables == 0, "tables leak"
            self.store.drain()
            assert self.memory.used_frames == 0, "frames leak"
            self.spaces = []
            self.memory.close()
            del self.memory

    def _whole(self, space: AddressSpace) -> ReplicatedTables:
        ops = trees.tables_of(space)
        if ops.lazy:
            trees.shrink(space, ops.nodes)
            ops.lazy = False
        return ops

    @rule(which=st.integers(0, 1), mask=st.integers(0, 2**NODES - 1))
    def replicate(self, which: int, mask: int) -> None:
        """Grow and drop trees until exactly the nodes of the mask (and home) have one."""
        space = self.spaces[which]
        ops = self._whole(space)
        wanted = {node for node in range(NODES) if mask >> node & 1} - {ops.home}
        trees.shrink(space, tuple(set(ops.nodes) - wanted))
        try:
            trees.grow(space, tuple(sorted(wanted)))
        except OutOfMemory:
            return
        assert set(ops.nodes) == wanted

    @rule(which=st.integers(0, 1), to=st.integers(0, NODES - 1))
    def migrate(self, which: int, to: int) -> None:
        space = self.spaces[which]
        ops = self._whole(space)
        try:
            trees.grow(space, (to,))
        except OutOfMemory:
            return
        trees.move_home(space, to)
        assert ops.home == to

    @rule(which=st.integers(0, 1))
    def begin_lazily(self, which: int) -> None:
        ops = self._whole(self.spaces[which])
        trees.shrink(self.spaces[which], ops.nodes)
        ops.lazy = True

    @rule(which=st.integers(0, 1), node=st.integers(0, NODES - 1), page=st.integers(0, PAGES - 1))
    def touch(self, which: int, node: int, page: int) -> None:
        """Let a processor of the node find the page, as hardware does: with a fault first where the tree is lazy."""
        space, gva = self.spaces[which], self._gva(page)
        ops = trees.tables_of(space)
        if not ops.lazy or page not in self.models[which]:
            return
        try:
            trees.open_root(space, node, SYSCALL_STUB)
            trees.fill(space, node, gva)
        except OutOfMemory:
            return
        entry = walk(self.memory, ops.root_on(space.table, node), gva)
        assert (entry & PTE_ADDRESS, entry & STATE) == self.models[which][page]

    @invariant()
    def every_copy_says_what_the_model_says(self) -> None:
        if not hasattr(self, "memory"):
            return
        for space, model in zip(self.spaces, self.models, strict=True):
            verify(space)
            ops = trees.tables_of(space)
            pages = sorted(model)[:: max(1, len(model) // 6)]
            for node in ops.nodes:
                root = ops.root_on(space.table, node)
                for page in (*pages, 0, PAGES - 1):
                    entry = walk(self.memory, root, self._gva(page))
                    if entry or not ops.lazy:
                        assert (entry & PTE_ADDRESS, entry & STATE) == model.get(page, (0, 0)), f"{node=} {page=}"

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        if not hasattr(self, "memory"):
            return
        for space, model in zip(self.spaces, self.models, strict=True):
            found = dict(space.entries(self._gva(0), PAGES))
            assert {address: entry & PTE_ADDRESS for address, entry in found.items()} == {
                self._gva(page): frame for page, (frame, _) in model.items()
            }
        used = {frame for model in self.models for frame, _ in model.values()}
        ready = sum(map(len, self.store.ready))
        assert self.memory.used_frames == len(used) + self.store.tables + ready


TestReplicatedSpaces = ReplicatedSpacesMachine.TestCase
TestReplicatedSpaces.settings = settings(
    max_examples=50, stateful_step_count=20, deadline=None, phases=set(Phase) - {Phase.explain}
)


@pytest.fixture
def memory() -> Iterator[NodeMemory]:
    memory = NodeMemory(LIMIT, nodes=NODES)
    yield memory
    memory.close()


@pytest.fixture
def store(memory: NodeMemory) -> TableStore:
    return TableStore(memory)


@pytest.fixture
def space(store: TableStore) -> AddressSpace:
    space = AddressSpace(store.memory, ReplicatedTables(store))
    trees.grow(space, (1, 2, 3))
    return space


def map_one(space: AddressSpace, address: int = BASE, flags: int = READ_WRITE) -> Gpa:
    frame = space.memory.allocate_frame()
    space.map(Gva(address), frame, 1, flags)
    return frame


def copies(space: AddressSpace, address: int, level: int = 0) -> list[int]:
    ops = trees.tables_of(space)
    table = space.find_table(address, level)
    assert table is not None
    return ops.store.frames.ring(table)


def test_an_update_takes_as_many_steps_as_writes_and_walks_no_tree(space: AddressSpace, store: TableStore) -> None:
    map_one(space)
    table = space.find_table(BASE, 0)
    assert table is not None
    hops, writes = store.frames.hops, store.writes
    space.ops.set(table, 7, 0)
    assert (store.frames.hops - hops, store.writes - writes) == (4, 4)  # 2N references at N = 4, not 4N


def test_every_tree_lies_on_its_node_and_leads_to_its_own_tables(space: AddressSpace, store: TableStore) -> None:
    ((chunk, frames),) = store.memory.allocate_chunks(1)
    space.map(Gva(BASE + 2 * HUGE), chunk, frames, READ_WRITE)
    frame = map_one(space)
    ops = trees.tables_of(space)
    roots = {ops.root_on(space.table, node) for node in range(NODES)}
    assert len(roots) == NODES
    for node in range(NODES):
        table = ops.root_on(space.table, node)
        for shift in (39, 30, 21):
            assert (store.memory.node_of(table), store.frames.node(table)) == (node, node)
            table = Gpa(store.memory.words[(table >> 3) + (BASE >> shift & 511)] & PTE_ADDRESS)
        assert store.memory.words[(table >> 3) + (BASE >> 12 & 511)] & PTE_ADDRESS == frame
        assert walk(store.memory, ops.root_on(space.table, node), BASE + 2 * HUGE) & PTE_ADDRESS == chunk
    checked = verify(space)
    assert (checked.copies, checked.displaced) == (4 * checked.tables, 0)


def test_marks_are_read_as_a_union_and_never_spread(space: AddressSpace, store: TableStore) -> None:
    map_one(space)
    ring, index = copies(space, BASE), BASE >> 12 & 511
    words = store.memory.words
    words[(ring[2] >> 3) + index] |= ACCESSED | DIRTY
    assert space.entry(BASE) & (ACCESSED | DIRTY) == ACCESSED | DIRTY
    space.protect(Gva(BASE), 1, leaf_flags(True, False, False))
    marked = [words[(table >> 3) + index] & (ACCESSED | DIRTY) for table in ring]
    assert marked == [ACCESSED | DIRTY, 0, 0, 0]
    assert space.entry(BASE) & PTE_ADDRESS == words[(ring[1] >> 3) + index] & PTE_ADDRESS


def test_a_copied_page_is_flushed_only_when_several_nodes_may_know_it(space: AddressSpace, store: TableStore) -> None:
    for users, flushes in (((2,), 0), ((0, 2), 1), ((1, 3), 1), ((), 0)):
        frame = map_one(space, flags=READ_WRITE)
        child = AddressSpace(store.memory, ReplicatedTables(store))
        space.clone_range(child, Gva(BASE), 1, private=True)
        for node in users:
            copy = trees.copy_on(trees.tables_of(space), copies(space, BASE)[0], node)
            assert copy is not None
            store.memory.words[(copy >> 3) + (BASE >> 12 & 511)] |= ACCESSED
        before = store.memory.flushes
        space.break_cow(Gva(BASE), flush=False)
        assert store.memory.flushes - before == flushes, f"{users=}"
        assert space.entry(BASE) & PTE_ADDRESS != frame
        child.close()
        space.unmap(Gva(BASE), 1)


def test_ten_thousand_accesses_from_random_nodes_are_all_found(space: AddressSpace, store: TableStore) -> None:
    pages = 600
    for page in range(pages):
        map_one(space, BASE + page * PAGE)
    random_, truth = random.Random(11), [0] * pages
    ops = trees.tables_of(space)
    for turn in range(10_000):
        page, bits = random_.randrange(pages), random_.choice((ACCESSED, ACCESSED | DIRTY))
        ring = copies(space, BASE + page * PAGE)
        store.memory.words[(ring[random_.randrange(NODES)] >> 3) + (BASE // PAGE + page & 511)] |= bits
        truth[page] |= bits
        if turn % 2000 == 1999:
            read = [entry & (ACCESSED | DIRTY) for _, entry in space.entries(Gva(BASE), pages)]
            assert read == truth
            cleared: list[int] = []
            for address in range(BASE & -HUGE, BASE + pages * PAGE, HUGE):
                table = space.find_table(address, 0)
                if table is not None:
                    cleared += ops.clear_ad(table, 0, 512)
            dirty = {entry & PTE_ADDRESS for entry in cleared if entry & DIRTY}
            assert len(dirty) == sum(bool(bits & DIRTY) for bits in truth)
            assert not any(entry & (ACCESSED | DIRTY) for _, entry in space.entries(Gva(BASE), pages))
            truth = [0] * pages


def test_growing_and_dropping_keeps_marks_and_leaks_nothing(space: AddressSpace, store: TableStore) -> None:
    map_one(space)
    before = store.tables
    for turn in range(100):
        ring = copies(space, BASE)
        store.memory.words[(ring[-1] >> 3) + (BASE >> 12 & 511)] |= DIRTY
        trees.shrink(space, (1, 2, 3))
        assert store.tables == before // NODES, f"{turn=}"
        assert space.entry(BASE) & DIRTY
        trees.grow(space, (3, 1, 2))
        verify(space)
    assert (store.tables, store.per_node) == (before, [before // NODES] * NODES)


def test_a_full_node_is_served_by_another_until_it_has_room(store: TableStore) -> None:
    memory = store.memory
    hog = memory.take_on(2, memory.room(2))
    space = AddressSpace(memory, ReplicatedTables(store))
    map_one(space)
    trees.grow(space, (2,))
    assert store.fallbacks >= 4
    assert verify(space).displaced == 4
    assert trees.repair(space) == []  # still full
    for frame in hog:
        memory.release(frame, 1)
    moved = trees.repair(space)
    trees.retire(space, moved)
    assert (len(moved), store.repairs, verify(space).displaced) == (4, 4, 0)
    root = trees.tables_of(space).root_on(space.table, 2)
    assert walk(memory, root, BASE) & PRESENT
    space.close()
    store.drain()
    assert (store.tables, memory.used_frames) == (0, 0)


def test_running_out_of_memory_while_growing_leaves_what_was(store: TableStore) -> None:
    memory = store.memory
    space = AddressSpace(memory, ReplicatedTables(store))
    for page in range(8):
        map_one(space, BASE + page * HUGE)
    hog = memory.allocate(memory.limit_frames - memory.used_frames - 3)
    store.drain()
    hog += memory.allocate(memory.limit_frames - memory.used_frames - 3)
    tables = store.tables
    with pytest.raises(OutOfMemory):
        trees.grow(space, (1, 2, 3))
    assert store.tables == tables
    assert verify(space).copies == verify(space).tables
    for gpa, count in hog:
        memory.release(gpa, count)
    trees.grow(space, (1, 2, 3))
    verify(space)


class TestLazily:
    """A node's tree holds what the node has asked for."""

    @pytest.fixture
    def lazy(self, store: TableStore) -> AddressSpace:
        ops = ReplicatedTables(store)
        ops.lazy = True
        return AddressSpace(store.memory, ops)

    def test_a_process_of_three_pages_has_four_tables_on_each_node_that_runs_it(
        self, lazy: AddressSpace, store: TableStore
    ) -> None:
        for page in range(3):
            map_one(lazy, BASE + 2 * HUGE + page * PAGE)
        trees.open_root(lazy, 2, SYSCALL_STUB)
        assert trees.fill(lazy, 2, BASE + 2 * HUGE) == 3
        assert store.per_node == [4, 0, 4, 0]

    def test_only_pages_near_those_touched_are_there(self, lazy: AddressSpace, store: TableStore) -> None:
        for page in range(100):
            map_one(lazy, BASE + 2 * HUGE + page * PAGE)
        trees.open_root(lazy, 1, SYSCALL_STUB)
        trees.fill(lazy, 1, BASE + 2 * HUGE + 50 * PAGE)
        root = trees.tables_of(lazy).root_on(lazy.table, 1)
        there = [page for page in range(100) if walk(store.memory, root, BASE + 2 * HUGE + page * PAGE)]
        assert there == list(range(42, 59))

    def test_only_nodes_that_may_know_a_page_are_shot_down(self, lazy: AddressSpace, store: TableStore) -> None:
        for page in (0, 100):
            map_one(lazy, BASE + 2 * HUGE + page * PAGE)
        for node in (1, 2, 3):
            trees.open_root(lazy, node, SYSCALL_STUB)
        trees.fill(lazy, 3, BASE + 2 * HUGE)
        lazy.unmap(Gva(BASE + 2 * HUGE), 1)
        assert (store.shootdowns, store.spared) == (2, 2)  # home and node 3; not nodes 1 and 2
        lazy.unmap(Gva(BASE + 2 * HUGE + 100 * PAGE), 1)
        assert (store.shootdowns, store.spared) == (3, 5)

    def test_pages_of_the_kernel_itself_are_there_without_a_fault(self, lazy: AddressSpace, store: TableStore) -> None:
        map_one(lazy, SYSCALL_STUB)
        trees.open_root(lazy, 1, SYSCALL_STUB)
        root = trees.tables_of(lazy).root_on(lazy.table, 1)
        assert walk(store.memory, root, SYSCALL_STUB) & PRESENT
        map_one(lazy, SLOTS)  # later, as a call slot is
        assert walk(store.memory, root, SLOTS) & PRESENT
        lazy.unmap(Gva(SLOTS), 1)
        assert walk(store.memory, root, SLOTS) == 0

    def test_what_a_node_has_not_asked_for_is_not_written_there(self, lazy: AddressSpace, store: TableStore) -> None:
        map_one(lazy, BASE)
        trees.open_root(lazy, 1, SYSCALL_STUB)
        lazy.protect(Gva(BASE), 1, leaf_flags(True, False, False))
        root = trees.tables_of(lazy).root_on(lazy.table, 1)
        assert walk(store.memory, root, BASE) == 0
        trees.fill(lazy, 1, BASE)
        assert not walk(store.memory, root, BASE) & WRITABLE
        lazy.protect(Gva(BASE), 1, READ_WRITE)
        assert walk(store.memory, root, BASE) & WRITABLE


def explode(monkeypatch: pytest.MonkeyPatch, ops: ReplicatedTables, after: int) -> None:
    """Let the host die, as far as this thread can tell, after so many stores."""
    real = ops._words

    class Words:
        left = after

        def __getitem__(self, key: "int | slice") -> object:
            return real[key]

        def __setitem__(self, key: "int | slice", value: object) -> None:
            if not Words.left:
                raise KeyboardInterrupt
            Words.left -= 1
            real[key] = value  # type: ignore[index]

    monkeypatch.setattr(ops, "_words", Words())


class TestFaults:
    """What is broken is found, named, and mended where that is possible."""

    @pytest.mark.parametrize("after", [1, 2, 3])
    def test_dying_between_the_copies_is_detected_and_mended(
        self, space: AddressSpace, monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        map_one(space)
        with monkeypatch.context() as patch:
            explode(patch, trees.tables_of(space), after)
            with pytest.raises(KeyboardInterrupt):
                space.protect(Gva(BASE), 1, leaf_flags(True, False, False))
        with pytest.raises(BrokenTables, match="copies of a page table differ"):
            verify(space)
        flushes = space.memory.flushes
        assert trees.resync(space) == NODES - after
        assert space.memory.flushes > flushes  # the copies had lost a right: what was known of it must go
        verify(space)
        assert not space.entry(BASE) & WRITABLE

    def test_a_page_freed_without_being_unlinked_is_never_written(self, space: AddressSpace, store: TableStore) -> None:
        map_one(space)
        ring = copies(space, BASE)
        store.frames.remove(ring[2])
        with pytest.raises(BrokenTables, match="left it") as caught:
            space.ops.set(Gpa(ring[0]), 3, 0)
        assert f"{ring[2]:#x}" in caught.value.why

    def test_and_not_when_it_is_a_table_again_either(self, space: AddressSpace, store: TableStore) -> None:
        map_one(space)
        ring = copies(space, BASE)
        store.frames.remove(ring[1])
        store.frames.add(ring[1], 1, 0, 99)
        with pytest.raises(BrokenTables, match="left it"):
            space.ops.set_run(Gpa(ring[0]), 3, array("Q", [0]))

    @pytest.mark.parametrize("at", [0, 2])
    def test_a_self_loop_is_found(self, space: AddressSpace, store: TableStore, at: int) -> None:
        map_one(space)
        ring = copies(space, BASE)
        block, index = store.frames._find(ring[at])
        block.successor[index], block.expected[index] = ring[at], block.generation[index]
        with pytest.raises(BrokenTables):
            verify(space)

    def test_a_double_link_is_found(self, space: AddressSpace, store: TableStore) -> None:
        map_one(space)
        map_one(space, BASE + 2 * HUGE)
        one, other = copies(space, BASE), copies(space, BASE + 2 * HUGE)
        block, index = store.frames._find(one[1])
        there, place = store.frames._find(other[2])
        block.successor[index], block.expected[index] = other[2], there.generation[place]
        with pytest.raises(BrokenTables):
            verify(space)

    def test_a_split_chain_is_found(self, space: AddressSpace, store: TableStore) -> None:
        map_one(space)
        ring = copies(space, BASE)
        first, index = store.frames._find(ring[0])
        second, place = store.frames._find(ring[1])
        second.successor[place], second.expected[place] = ring[0], first.generation[index]
        trees.tables_of(space).nodes = (1,)
        with pytest.raises(BrokenTables):
            verify(space)

    def test_a_leaf_that_was_not_told_to_all_copies_is_found(self, space: AddressSpace, store: TableStore) -> None:
        ((chunk, frames),) = store.memory.allocate_chunks(1)
        space.map(Gva(BASE + 2 * HUGE), chunk, frames, READ_WRITE)
        directory = copies(space, BASE + 2 * HUGE, 1)
        store.memory.words[(directory[3] >> 3) + (BASE + 2 * HUGE >> 21 & 511)] = 0
        with pytest.raises(BrokenTables, match="level 1"):
            verify(space)

    def test_copies_bits_of_frame_numbers_are_never_mixed(self, space: AddressSpace, store: TableStore) -> None:
        frame = map_one(space)
        ring = copies(space, BASE)
        store.memory.words[(ring[1] >> 3) + (BASE >> 12 & 511)] |= 0xFFFF000 | ACCESSED  # damaged
        assert space.entry(BASE) & PTE_ADDRESS == frame

    def test_five_levels_and_gigabyte_pages_are_refused(self, space: AddressSpace) -> None:
        with pytest.raises(InvalidRequest, match="level"):
            space.ops.alloc(4)
        directory = space.find_table(BASE, 2) or space.table
        with pytest.raises(InvalidRequest, match="1 GiB"):
            space.ops.set(directory, 5, 1 << 30 | READ_WRITE | Pte.HUGE)

    def test_a_failing_flush_frees_no_frame(self, space: AddressSpace, monkeypatch: pytest.MonkeyPatch) -> None:
        frame = map_one(space)
        space.memory.share(frame, 1)  # a second reference: unmapping must flush

        def fail(*_: object) -> None:
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(space.memory, "flush", fail)
        with pytest.raises(OSError, match="allocate"):
            space.unmap(Gva(BASE), 1)
        assert space.memory.references(frame) == 2  # stays taken: nobody else may get it
        assert walk(space.memory, space.table, BASE) == 0
        verify(space)


def test_nothing_of_nodes_is_imported_without_them() -> None:
    program = (
        "import sys; from enisle.machine import Machine; Machine(memory_limit=32 << 20).new_address_space();"
        "print([name for name in sys.modules if 'replica' in name or 'machine.node' in name or 'frames' in name])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_a_tree_of_a_gibibyte_costs_less_than_nine_thousandths(store: TableStore) -> None:
    with_tables = NodeMemory(1 << 30 | 64 << 20, nodes=NODES)
    tables = TableStore(with_tables)
    space = AddressSpace(with_tables, ReplicatedTables(tables))
    trees.grow(space, (1, 2, 3))
    address = 1 << 32
    for gpa, count in with_tables.allocate((1 << 30) // PAGE):
        for start in range(0, count, FRAMES_PER_HUGE):  # no 2 MiB leaves: the dense worst case
            here = min(FRAMES_PER_HUGE, count - start)
            space.map(Gva(address), Gpa(gpa + start * PAGE), here, READ_WRITE)
            address += here * PAGE
    assert tables.tables * PAGE / (1 << 30) <= 0.009
    with_tables.close()
