"""Our walker of page tables against what the tables were built from; its counters against the nodes of the frames."""

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.abi.types import HUGE, PAGE, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import InvalidRequest
from enisle.machine import AddressSpace, GuestMemory, leaf_flags
from enisle.machine.pagetables import PlainPageTables
from enisle.machine.walks import MEM_FETCH, MEM_WRITE, PROT_EXEC, PROT_READ, PROT_WRITE, CostModel, Walker, Walks

MEM_READ = 16
BASE = 0x4000_0000
ACCESSED, DIRTY = int(Pte.ACCESSED), int(Pte.DIRTY)
RIGHTS = st.tuples(st.just(True), st.booleans(), st.booleans())


class Space:
    """An address space with a walker at its root; tables of even frames lie on node 0, of odd ones on node 1."""

    def __init__(self) -> None:
        self.memory = GuestMemory(64 << 20)
        self.space = AddressSpace(self.memory, PlainPageTables(self.memory))
        self.walks = Walks(self.memory, 2, lambda gpa: gpa >> 12 & 1)
        self.walker = Walker(self.walks)
        self.walker.root = self.space.root

    def map(self, page: int, flags: int) -> Gpa:
        frame = self.memory.allocate_frame()
        self.space.map(Gva(BASE + page * PAGE), frame, 1, flags)
        return frame

    def close(self) -> None:
        self.space.close()
        self.memory.close()


@settings(max_examples=60, deadline=None)
@given(
    pages=st.dictionaries(st.integers(0, 1500), RIGHTS, max_size=24),
    accesses=st.lists(st.tuples(st.integers(0, 1500), st.sampled_from((MEM_READ, MEM_WRITE, MEM_FETCH))), max_size=40),
)
def test_it_translates_what_is_mapped_and_allowed_and_nothing_else(
    pages: dict[int, tuple[bool, bool, bool]], accesses: list[tuple[int, int]]
) -> None:
    guest = Space()
    frames = {page: guest.map(page, leaf_flags(*rights)) for page, rights in pages.items()}
    marks: dict[int, int] = {}
    for page, access in [*accesses, *((page, MEM_READ) for page in pages)]:
        found = guest.walker.translate(BASE + page * PAGE, access)
        _, write, execute = pages.get(page, (False, False, False))
        allowed = page in pages and (write if access == MEM_WRITE else execute if access == MEM_FETCH else True)
        if not allowed:
            assert found is None
            continue
        marks[page] = marks.get(page, 0) | ACCESSED | (DIRTY if access == MEM_WRITE else 0)
        rights = PROT_READ | (PROT_EXEC if execute else 0) | (PROT_WRITE if marks[page] & DIRTY else 0)
        assert found == (frames[page], rights)
    for page in pages:
        assert guest.space.entry(BASE + page * PAGE) & (ACCESSED | DIRTY) == marks[page]
    guest.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 1)), min_size=1, max_size=40))
def test_every_read_is_counted_where_the_table_lies(walked: list[tuple[int, int]]) -> None:
    guest = Space()
    expected = [[0, 0], [0, 0]]
    for page, node in walked:
        if not guest.space.entry(BASE + page * PAGE):
            guest.map(page, leaf_flags(True, True, True))
        guest.walker.node = node
        assert guest.walker.translate(BASE + page * PAGE, MEM_READ)
        for level in range(4):
            table = guest.space.find_table(BASE + page * PAGE, level)
            assert table is not None
            expected[node][table >> 12 & 1] += 1
    counted = guest.walks.statistics()
    assert counted.walks == len(walked)
    assert counted.reads == tuple(tuple(row) for row in expected)
    assert counted.local == expected[0][0] + expected[1][1]
    assert counted.remote_share == (expected[0][1] + expected[1][0]) / (4 * len(walked))
    guest.close()


def test_large_pages_end_a_walk_early_and_give_the_page_within() -> None:
    guest = Space()
    (chunk, frames), *_ = guest.memory.allocate_chunks(1)
    guest.space.map(Gva(BASE), chunk, frames, leaf_flags(True, True, False))
    assert guest.space.entry(BASE) & PTE_ADDRESS == chunk
    assert guest.walker.translate(BASE + HUGE - PAGE, MEM_WRITE) == (chunk + HUGE - PAGE, PROT_READ | PROT_WRITE)
    assert sum(map(sum, guest.walks.statistics().reads)) == 3
    guest.close()


def test_the_supervisors_half_and_its_pages_are_left_to_the_engine() -> None:
    guest = Space()
    assert guest.walker.translate(0xFFFF_8000_0000_0000, MEM_READ) is None
    guest.map(3, int(Pte.PRESENT | Pte.WRITABLE))  # no USER
    assert guest.walker.translate(BASE + 3 * PAGE, MEM_READ) is None
    assert guest.walks.statistics().walks == 0
    guest.close()


def test_an_entry_that_changes_under_the_walk_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Space()
    first, second = guest.map(7, leaf_flags(True, True, False)), guest.memory.allocate_frame()
    table = guest.space.find_table(BASE + 7 * PAGE, 0)
    assert table is not None
    original, changed = guest.walker._mark, []

    def mark(path: list[tuple[int, int]], access: int) -> bool:
        if not changed:
            changed.append(True)
            guest.space.ops.set(table, 7, second | leaf_flags(True, True, False))
        return original(path, access)

    monkeypatch.setattr(guest.walker, "_mark", mark)
    assert guest.walker.translate(BASE + 7 * PAGE, MEM_WRITE) == (second, PROT_READ | PROT_WRITE)
    assert first != second
    assert guest.walks.statistics().walks == 1
    guest.close()


def test_a_walk_of_no_guest_is_not_counted() -> None:
    guest = Space()
    guest.map(0, leaf_flags(True, False, False))
    guest.walks.uncounted = guest.space.root
    assert guest.walker.translate(BASE, MEM_READ)
    assert guest.walks.statistics().walks == 0
    assert guest.walks.statistics().remote_share == 0.0
    guest.close()


@pytest.mark.parametrize("latencies", [(0, 1), (5, 4), (1, 1 << 21), (-1, -1)])
def test_latencies_that_make_no_sense_are_refused(latencies: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest):
        CostModel(*latencies).check()


def test_the_estimate_is_the_counts_times_the_model() -> None:
    guest = Space()
    guest.map(0, leaf_flags(True, False, False))
    guest.walks.model = CostModel(10, 100).check()
    guest.walker.translate(BASE, MEM_READ)
    counted = guest.walks.statistics()
    assert counted.estimated_cycles() == counted.local * 10 + counted.remote * 100
    assert counted.local + counted.remote == 4
    guest.close()


def test_an_arrays_words_are_what_the_walker_reads() -> None:
    """`set_run` writes many entries at once: the walker must see the last of them."""
    guest = Space()
    guest.map(0, leaf_flags(True, False, False))
    table = guest.space.find_table(BASE, 0)
    assert table is not None
    frames = [guest.memory.allocate_frame() for _ in range(4)]
    guest.space.ops.set_run(table, 8, array("Q", [frame | leaf_flags(True, False, False) for frame in frames]))
    assert [guest.walker.translate(BASE + (8 + k) * PAGE, MEM_READ) for k in range(4)] == [
        (frame, PROT_READ) for frame in frames
    ]
