"""The pool of address runs against a set of free units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enisle.machine.runs import RunPool

START, END = 3, 60


class PoolMachine(RuleBasedStateMachine):
    """Takes and gives runs; the model is the set of free units."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = RunPool(START, END)
        self.free = set(range(START, END))
        self.taken: list[int] = []

    def _remove(self, start: int, count: int) -> None:
        units = set(range(start, start + count))
        assert units <= self.free
        self.free -= units
        self.taken.extend(units)

    @rule(count=st.integers(1, 20))
    def take(self, count: int) -> None:
        start = self.pool.take(count)
        fits = [unit for unit in sorted(self.free) if set(range(unit, unit + count)) <= self.free]
        assert start == (fits[0] if fits else None)
        if start is not None:
            self._remove(start, count)

    @rule(count=st.integers(1, 20))
    def take_some(self, count: int) -> None:
        taken = self.pool.take_some(count)
        assert (taken is None) == (not self.free)
        if taken:
            assert 1 <= taken[1] <= count
            assert taken[0] == min(self.free)
            self._remove(*taken)

    @precondition(lambda self: self.taken)
    @rule(choice=st.integers(0, END), count=st.integers(1, 20))
    def give(self, choice: int, count: int) -> None:
        start = self.taken[choice % len(self.taken)]
        here = 0
        while here < count and start + here in self.taken:
            self.taken.remove(start + here)
            here += 1
        self.pool.give(start, here)
        self.free |= set(range(start, start + here))

    @invariant()
    def counts_agree(self) -> None:
        assert self.pool.free == len(self.free)


TestPool = PoolMachine.TestCase


@given(st.permutations(range(12)))
def test_neighbours_are_joined_in_whatever_order_they_come_back(order: list[int]) -> None:
    pool = RunPool(0, 12)
    assert pool.take(12) == 0
    for unit in order:
        pool.give(unit, 1)
    assert pool.take(12) == 0


@pytest.mark.parametrize(("start", "count"), [(2, 1), (0, 3), (1, 5), (3, 2)])
def test_a_run_that_is_free_cannot_be_given(start: int, count: int) -> None:
    pool = RunPool(0, 10)
    assert pool.take(2) == 0
    with pytest.raises(AssertionError, match="double free"):
        pool.give(start, count)
