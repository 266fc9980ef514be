"""The futex table against a model: who is queued, who is woken, and that no wake is lost between host threads."""

import threading
import time
from errno import EAGAIN, EFAULT, EINVAL, ENOSYS, ETIMEDOUT
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi.atomic import compare_exchange_u32
from enisle.abi.linux_futex import FUTEX_BITSET_MATCH_ANY
from enisle.errors import LinuxError
from enisle.kernel.futex import FutexTable, decode_operation, find_key
from enisle.kernel.wait import Waiter

ANY = FUTEX_BITSET_MATCH_ANY


class Memory:
    """An address space of a few words that is shared with nobody."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.vmas = SimpleNamespace(find=lambda address: SimpleNamespace(shared=False, backing=None))

    def read_u32(self, address: int) -> int:
        return self.words.get(address, 0)


class Sleeper:
    """As much of a guest thread as a wait needs, on a host thread of its own."""

    def __init__(self, table: FutexTable, mm: Memory) -> None:
        self.table, self.mm, self.waiter, self.state = table, mm, Waiter(), "R"
        self.outcome: int | None = None

    def sleep_until(self, deadline: float | None) -> bool:
        return self.waiter.sleep(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def wait(self, address: int, expected: int = 0, bitset: int = ANY, deadline: float | None = None) -> None:
        def run() -> None:
            try:
                self.table.wait(self, address, expected, True, bitset, deadline)  # type: ignore[arg-type]
                self.outcome = 0
            except LinuxError as error:
                self.outcome = error.errno

        self.host = threading.Thread(target=run)
        self.host.start()


def queued(table: FutexTable, mm: Memory, address: int) -> int:
    return len(table.waiters((mm, address)))


def settle(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def place() -> tuple[FutexTable, Any]:
    return FutexTable(), Memory()


def test_a_wait_for_another_value_ends_at_once(place: tuple[FutexTable, Any]) -> None:
    table, mm = place
    sleeper = Sleeper(table, mm)
    sleeper.wait(4, expected=1)
    sleeper.host.join()
    assert sleeper.outcome == EAGAIN


def test_waiters_are_woken_in_order_and_by_bits(place: tuple[FutexTable, Any]) -> None:
    table, mm = place
    sleepers = [Sleeper(table, mm) for _ in range(4)]
    for number, sleeper in enumerate(sleepers):
        sleeper.wait(8, bitset=1 << number % 2)
        settle(lambda number=number: queued(table, mm, 8) == number + 1)
    assert table.wake(mm, 8, 1, True) == 1
    sleepers[0].host.join(5)
    assert table.wake(mm, 8, 9, True, bitset=2) == 2
    assert [sleeper.thread for sleeper in table.waiters((mm, 8))] == [sleepers[2]]
    assert table.wake(mm, 8, 0, True) == 1  # none means one
    for sleeper in sleepers:
        sleeper.host.join(5)
        assert sleeper.outcome == 0


def test_requeued_waiters_are_woken_where_they_went(place: tuple[FutexTable, Any]) -> None:
    table, mm = place
    sleepers = [Sleeper(table, mm) for _ in range(4)]
    for sleeper in sleepers:
        sleeper.wait(8)
    settle(lambda: queued(table, mm, 8) == 4)
    assert table.requeue(mm, (8, 16), (1, 2), True, None) == 3
    assert (queued(table, mm, 8), queued(table, mm, 16)) == (1, 2)
    with pytest.raises(LinuxError) as caught:
        table.requeue(mm, (8, 16), (1, 2), True, 5)
    assert caught.value.errno == EAGAIN
    assert table.wake(mm, 16, 9, True) == 2
    assert table.wake(mm, 8, 9, True) == 1
    for sleeper in sleepers:
        sleeper.host.join(5)


def test_a_deadline_leaves_nobody_behind(place: tuple[FutexTable, Any]) -> None:
    table, mm = place
    sleeper = Sleeper(table, mm)
    sleeper.wait(8, deadline=time.monotonic() + 0.02)
    sleeper.host.join(5)
    assert (sleeper.outcome, queued(table, mm, 8)) == (ETIMEDOUT, 0)


def test_every_wake_reaches_somebody(place: tuple[FutexTable, Any]) -> None:
    """As many wakes as waits: with timeouts racing, those woken and those counted are the same."""
    table, mm = place
    woken = 0
    for round_ in range(60):
        sleepers = [Sleeper(table, mm) for _ in range(4)]
        for number, sleeper in enumerate(sleepers):
            sleeper.wait(8, deadline=time.monotonic() + 0.0005 * (number + round_ % 3))
        woken = sum(table.wake(mm, 8, 1, True) for _ in range(3))
        for sleeper in sleepers:
            sleeper.host.join(5)
        assert sum(sleeper.outcome == 0 for sleeper in sleepers) == woken
        assert {sleeper.outcome for sleeper in sleepers} <= {0, ETIMEDOUT}


def test_keys_tell_memory_apart() -> None:
    mm: Any = Memory()
    assert find_key(mm, 8, True) != find_key(mm, 8, False)
    with pytest.raises(LinuxError) as caught:
        find_key(mm, 9, True)
    assert caught.value.errno == EINVAL
    mm.vmas.find = lambda address: None
    with pytest.raises(LinuxError) as caught:
        find_key(mm, 8, False)
    assert caught.value.errno == EFAULT


def test_a_file_mapped_twice_is_one_futex() -> None:
    first: Any = Memory()
    second: Any = Memory()
    backing = SimpleNamespace(device=1, inode=2)
    first.vmas.find = lambda address: SimpleNamespace(shared=True, backing=backing, offset=4096, start=0x1000)
    second.vmas.find = lambda address: SimpleNamespace(shared=True, backing=backing, offset=0, start=0x8000)
    assert find_key(first, 0x1010, False) == find_key(second, 0x9010, False)


U32 = st.integers(0, 0xFFFF_FFFF)


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


@given(st.integers(0, 4), st.booleans(), st.integers(0, 5), st.integers(0, 0xFFF), st.integers(0, 0xFFF), U32)
def test_wake_op_does_what_its_code_says(
    kind: int, shift: bool, comparison: int, argument: int, compared: int, old: int
) -> None:
    change, holds = decode_operation((kind | 8 * shift) << 28 | comparison << 24 | argument << 12 | compared)
    operand = 1 << (argument & 31) if shift else signed(argument, 12)
    new = [operand, old + operand, old | operand, old & ~operand, old ^ operand][kind]
    assert change(old) == new & 0xFFFF_FFFF
    left, right = signed(old, 32), signed(compared, 12)
    assert (
        holds(old)
        == [left == right, left != right, left < right, left <= right, left > right, left >= right][comparison]
    )


def test_wake_op_refuses_what_it_does_not_know() -> None:
    with pytest.raises(LinuxError) as caught:
        decode_operation(5 << 28)
    assert caught.value.errno == ENOSYS


def test_compare_and_exchange_changes_what_is_expected() -> None:
    import ctypes

    word = ctypes.c_uint32(7)
    address = ctypes.addressof(word)
    assert compare_exchange_u32(address, 7, 0xFFFF_FFFF) == 7
    assert word.value == 0xFFFF_FFFF
    assert compare_exchange_u32(address, 7, 1) == 0xFFFF_FFFF
    assert word.value == 0xFFFF_FFFF
