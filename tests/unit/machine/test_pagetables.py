"""Address spaces against a flat dictionary, by way of the tables that a processor would walk."""

from collections import Counter

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from enisle.abi.types import FRAMES_PER_HUGE, HUGE, PAGE, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine.memory import GuestMemory, OutOfMemory
from enisle.machine.pagetables import AddressSpace, PlainPageTables, Shadows, leaf_flags

LIMIT = 32 << 20
BASE = 0x7F_C000_0000 - 2 * HUGE  # the range crosses a table of every level but the root
HUGES = 3
PAGES = HUGES * FRAMES_PER_HUGE
PRESENT, WRITABLE, USER, NX = Pte.PRESENT, Pte.WRITABLE, Pte.USER, Pte.NX
COW, HELD, HUGE_LEAF = Pte.COW, Pte.HELD, Pte.HUGE
STATE = PRESENT | WRITABLE | USER | NX | COW | HELD

RIGHTS = st.sampled_from([leaf_flags(*rights) for rights in ((1, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (0, 0, 0))])
RANGES = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 40)) | st.tuples(
    st.integers(0, HUGES - 1).map(lambda huge: huge * FRAMES_PER_HUGE),
    st.integers(1, HUGES).map(lambda count: count * FRAMES_PER_HUGE),
)
CHOICE = st.integers(0, 1 << 16)
Entries = dict[int, tuple[int, int]]
"""The model of a space: page number to (frame address, state bits)."""


def walk(memory: GuestMemory, root: int, gva: int) -> int:
    """Return the leaf entry as a processor finds it, as if it were a 4 KiB one; 0 when there is none."""
    table, upper = root, USER | WRITABLE
    for shift in (39, 30, 21, 12):
        entry = memory.words[(table >> 3) + (gva >> shift & 511)]
        if shift == 12 or (shift == 21 and entry & HUGE_LEAF):
            inside = gva & ((1 << shift) - 1) & ~(PAGE - 1)
            assert not entry & PRESENT or upper == USER | WRITABLE, "an upper entry takes rights away"
            return (entry & ~(HUGE_LEAF if shift == 21 else 0)) + inside if entry else 0
        if not entry & PRESENT:
            assert not entry, "an absent table leaves something behind"
            return 0
        upper &= entry
        table = entry & PTE_ADDRESS
    raise AssertionError


class SpacesMachine(RuleBasedStateMachine):
    """Two spaces: the first is worked on, the second is forked from it and given up again."""

    @initialize(kind=st.sampled_from(["anonymous", "shared"]))
    def start(self, kind: str) -> None:
        self.memory = GuestMemory(LIMIT, kind)
        self.ops = PlainPageTables(self.memory)
        self.spaces = [AddressSpace(self.memory, self.ops) for _ in range(2)]
        self.models: list[Entries] = [{}, {}]

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        for space in self.spaces:
            space.close()
        assert self.ops.tables == 0, "tables leak"
        assert self.memory.used_frames == 0, "frames leak"
        self.memory.close()

    def _clip(self, first: int, count: int) -> tuple[int, int]:
        return first, min(count, PAGES - first)

    def _gva(self, page: int) -> Gva:
        return Gva(BASE + page * PAGE)

    @rule(which=st.integers(0, 1), range_=RANGES, rights=RIGHTS, chunks=st.booleans())
    def map(self, which: int, range_: tuple[int, int], rights: int, chunks: bool) -> None:
        first, count = self._clip(*range_)
        space, model = self.spaces[which], self.models[which]
        if any(page in model for page in range(first, first + count)):
            return
        try:
            if chunks and count % FRAMES_PER_HUGE == 0:
                runs = self.memory.allocate_chunks(count // FRAMES_PER_HUGE)
            else:
                runs = self.memory.allocate(count)
        except OutOfMemory:
            return
        page = first
        for gpa, frames in runs:
            space.map(self._gva(page), gpa, frames, rights)
            for index in range(frames):
                self.memory.words[(gpa + index * PAGE) >> 3] = gpa + index  # something to copy
                model[page + index] = gpa + index * PAGE, rights & STATE
            page += frames

    @rule(which=st.integers(0, 1), range_=RANGES)
    def unmap(self, which: int, range_: tuple[int, int]) -> None:
        first, count = self._clip(*range_)
        self.spaces[which].unmap(self._gva(first), count)
        for page in range(first, first + count):
            self.models[which].pop(page, None)

    @rule(which=st.integers(0, 1), range_=RANGES, rights=RIGHTS)
    def protect(self, which: int, range_: tuple[int, int], rights: int) -> None:
        first, count = self._clip(*range_)
        self.spaces[which].protect(self._gva(first), count, rights)
        model = self.models[which]
        for page in range(first, first + count):
            if page in model:
                frame, state = model[page]
                state = (state & COW) | (rights & STATE)
                model[page] = frame, state & ~WRITABLE if state & COW else state

    @rule(range_=RANGES, private=st.booleans())
    def clone(self, range_: tuple[int, int], private: bool) -> None:
        first, count = self._clip(*range_)
        parent, child = self.models
        if any(page in child for page in range(first, first + count)):
            return
        downgraded = self.spaces[0].clone_range(self.spaces[1], self._gva(first), count, private)
        lost: set[int] = set()
        for page in range(first, first + count):
            if page in parent:
                frame, state = parent[page]
                if private:
                    lost |= {frame} if state & WRITABLE else set()
                    state = (state & ~WRITABLE) | COW
                parent[page] = child[page] = frame, state
        assert {gpa + index * PAGE for gpa, frames in downgraded for index in range(frames)} == lost

    @rule(which=st.integers(0, 1), choice=CHOICE, flush=st.booleans())
    def break_cow(self, which: int, choice: int, flush: bool) -> None:
        space, model = self.spaces[which], self.models[which]
        pages = sorted(page for page, (_, state) in model.items() if state & COW and state & PRESENT)
        if not pages:
            return
        page = pages[choice % len(pages)]
        frame, state = model[page]
        content = self.memory.words[frame >> 3]
        alone = self.memory.references(Gpa(frame)) == 1
        try:
            space.break_cow(self._gva(page), flush)
        except OutOfMemory:
            return
        new = space.entry(self._gva(page)) & PTE_ADDRESS
        assert (new == frame) == alone
        assert self.memory.words[new >> 3] == content
        model[page] = new, (state & ~COW) | WRITABLE

    @rule(which=st.integers(0, 1), choice=CHOICE, to=st.integers(0, PAGES - 1), count=st.integers(1, 30))
    def move(self, which: int, choice: int, to: int, count: int) -> None:
        space, model = self.spaces[which], self.models[which]
        if not model:
            return
        source = sorted(model)[choice % len(model)]
        count = min(count, PAGES - source, PAGES - to)
        apart = source + count <= to or to + count <= source
        if not apart or any(page in model for page in range(to, to + count)):
            return
        space.move(self._gva(source), self._gva(to), count)
        moved = {page: model.pop(page) for page in range(source, source + count) if page in model}
        model.update({page - source + to: entry for page, entry in moved.items()})

    @rule()
    def begin_again(self) -> None:
        """Give the second space up and use its tables again."""
        self.spaces[1].clear()
        self.models[1].clear()

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        if not hasattr(self, "memory"):
            return
        used: Counter[int] = Counter()
        for space, model in zip(self.spaces, self.models, strict=True):
            edges = {0, PAGES - 1, *(huge * FRAMES_PER_HUGE for huge in range(HUGES))}
            near = {page + step for page in list(model)[:: max(1, len(model) // 12)] for step in (-1, 0, 1)}
            for page in sorted(edges | {page for page in near if 0 <= page < PAGES}):
                entry = walk(self.memory, space.root, self._gva(page))
                assert (entry & PTE_ADDRESS, entry & STATE) == model.get(page, (0, 0)), f"{page=}"
                assert space.entry(self._gva(page)) == entry
            found = dict(space.entries(self._gva(0), PAGES))
            assert {address: entry & PTE_ADDRESS for address, entry in found.items()} == {
                self._gva(page): frame for page, (frame, _) in model.items()
            }
            used.update(frame for frame, _ in model.values())
        assert self.memory.used_frames == len(used) + self.ops.tables
        for frame in list(used)[:: max(1, len(used) // 12)]:
            assert self.memory.references(Gpa(frame)) == used[frame]


TestSpaces = SpacesMachine.TestCase
TestSpaces.settings = settings(
    max_examples=80,
    stateful_step_count=20,
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # its tracer makes this ten times slower
)


@pytest.fixture
def memory():
    memory = GuestMemory(LIMIT)
    yield memory
    memory.close()


def test_a_shared_chunk_is_cloned_into_a_space_that_has_a_table_there(memory: GuestMemory) -> None:
    ops = PlainPageTables(memory)
    parent, child = AddressSpace(memory, ops), AddressSpace(memory, ops)
    flags = leaf_flags(True, True, False)
    child.map(Gva(BASE), memory.allocate_frame(), 1, flags)
    child.clear()
    ((gpa, frames),) = memory.allocate_chunks(1)
    parent.map(Gva(BASE), gpa, frames, flags)
    assert parent.clone_range(child, Gva(BASE), frames, private=False) == []
    assert walk(memory, child.root, BASE + HUGE - PAGE) & PTE_ADDRESS == gpa + HUGE - PAGE
    assert child.entry(BASE + HUGE - PAGE) & PTE_ADDRESS == gpa + HUGE - PAGE


def _fill(memory: GuestMemory, ops: PlainPageTables, spaces: list[AddressSpace]) -> None:
    while True:
        space = AddressSpace(memory, ops)
        spaces.append(space)
        for index in range(8):
            frame = memory.allocate_frame()
            try:
                space.map(Gva(BASE + index * HUGE), frame, 1, leaf_flags(True, True, False))
            except OutOfMemory:
                memory.release(frame, 1)
                raise


def test_spaces_that_run_out_of_memory_give_all_of_it_back(memory: GuestMemory) -> None:
    ops = PlainPageTables(memory)
    spaces: list[AddressSpace] = []
    with pytest.raises(OutOfMemory):
        _fill(memory, ops, spaces)
    for space in spaces:
        space.close()
    assert (memory.used_frames, ops.tables) == (0, 0)


class TestShadowsOfLargeLeaves:
    """A slot that held a 2 MiB leaf takes something else only after the hypervisor has forgotten its shadows."""

    def setup_method(self) -> None:
        self.memory = GuestMemory(64 << 20)
        self.ops = PlainPageTables(self.memory)
        self.forgotten = 0
        self.shadows = Shadows(self.count)
        self.space = AddressSpace(self.memory, self.ops, shadows=self.shadows)
        self.flags = leaf_flags(True, True, False)

    def teardown_method(self) -> None:
        self.space.close()
        self.memory.close()

    def count(self) -> None:
        self.forgotten += 1

    def chunk(self) -> Gpa:
        return self.memory.allocate_chunks(1)[0][0]

    def test_the_same_chunk_again_needs_nothing(self) -> None:
        for _ in range(3):
            self.space.map(Gva(HUGE), self.chunk(), 512, self.flags)
            self.space.unmap(Gva(HUGE), 512)
        assert self.forgotten == 0

    def test_another_chunk_or_a_table_makes_it_forget_once(self) -> None:
        first, second = self.chunk(), self.chunk()
        self.space.map(Gva(HUGE), first, 512, self.flags)
        self.space.unmap(Gva(HUGE), 512)
        self.space.map(Gva(HUGE), second, 512, self.flags)
        assert self.forgotten == 1
        self.space.unmap(Gva(HUGE), 512)
        self.space.map(Gva(HUGE), self.memory.allocate_frame(), 1, self.flags)
        assert self.forgotten == 2

    def test_a_fork_splits_all_leaves_with_one_forgetting(self) -> None:
        for index in range(1, 4):
            self.space.map(Gva(index * HUGE), self.chunk(), 512, self.flags)
        child = AddressSpace(self.memory, self.ops, shadows=self.shadows)
        self.space.clone_range(child, Gva(HUGE), 3 * 512, private=True)
        assert self.forgotten == 1
        assert self.space.entry(2 * HUGE + PAGE) == child.entry(2 * HUGE + PAGE)
        child.close()
