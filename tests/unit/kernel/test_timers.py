"""Timer arithmetic and the timer queue, without a clock."""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from enisle.kernel.cputime import CpuTime, split
from enisle.kernel.timer_queue import Countdown, TimerQueue
from enisle.kernel.timer_thread import TimerThread

TIMES = st.integers(1, 10**6)


@given(st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), TIMES)), max_size=200), TIMES)
def test_the_queue_rings_what_is_due_in_order(changes: list[tuple[int, int | None]], now: int) -> None:
    queue: TimerQueue[int] = TimerQueue()
    model: dict[int, int] = {}
    for entry, due in changes:
        queue.set(entry, due)
        model.pop(entry, None)
        if due is not None:
            model[entry] = due
    assert len(queue) == len(model)
    assert queue.next_due() == min(model.values(), default=None)
    taken = queue.take_due(now)
    assert [model[entry] for entry in taken] == sorted(due for due in model.values() if due <= now)
    assert queue.next_due() == min((due for due in model.values() if due > now), default=None)


@given(TIMES, st.integers(1, 1000), st.lists(st.integers(0, 5000), max_size=20))
def test_a_periodic_timer_counts_every_period_once(first: int, interval: int, steps: list[int]) -> None:
    timer, now, total = Countdown(first, interval), 0, 0
    for step in steps:
        now += step
        total += timer.take(now)
        assert timer.expires > now
        assert timer.left(now) <= max(interval, first - now)
    assert total == (0 if now < first else 1 + (now - first) // interval)


def test_a_single_timer_expires_once_and_is_disarmed() -> None:
    timer = Countdown(10)
    assert (timer.take(9), timer.left(9)) == (0, 1)
    assert (timer.left(10), timer.take(10)) == (1, 1)
    assert (timer.take(99), timer.left(99)) == (0, 0)


@given(st.integers(0, 10**12), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_split_loses_no_time(total: int, user: int, system: int) -> None:
    parts = split(total, user, user + system)
    assert parts.total == total
    assert min(parts) >= 0
    assert parts.plus(CpuTime(1, 2)) == CpuTime(parts.user + 1, parts.system + 2)


class Bell:
    def __init__(self) -> None:
        self.rung = threading.Event()

    def ring(self) -> None:
        self.rung.set()


def test_the_timer_thread_rings_early_timers_first_and_none_that_were_taken_back() -> None:
    failures: list[BaseException] = []
    thread = TimerThread(failures.append)
    late, early, never = Bell(), Bell(), Bell()
    now = time.monotonic_ns()
    thread.set(late, now + 3600 * 10**9)
    thread.set(never, now + 10**6)
    thread.set(never, None)
    thread.set(early, now + 2 * 10**6)
    assert early.rung.wait(5)
    assert not late.rung.is_set()
    assert not never.rung.is_set()
    thread.close()
    assert not failures
