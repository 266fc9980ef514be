"""Futexes: where guest threads sleep on a word of their memory, and how that word is changed by the kernel.

A wait compares and queues under `FutexTable.lock`, a wake takes from the queue under it: no wake is lost, and whoever
was taken from the queue has been woken, whatever else ended its sleep. The lock is held for no sleep; an address
space's lock may be taken inside it, never the other way round.
"""

import threading
import time
from _weakrefset import WeakSet  # weakref's, which imports half a millisecond more
from collections.abc import Callable
from errno import EAGAIN, EFAULT, EINVAL, ENOSYS, ETIMEDOUT
from typing import TYPE_CHECKING, Any

from enisle.abi.atomic import compare_exchange_u32
from enisle.abi.linux_futex import FUTEX_BITSET_MATCH_ANY, FUTEX_OP_OPARG_SHIFT
from enisle.errors import LinuxError
from enisle.kernel.wait import MustLeave

if TYPE_CHECKING:
    from enisle.kernel.mm import Mm
    from enisle.kernel.thread import Thread

Key = tuple[Any, ...]
"""What makes two addresses the same futex."""

U32 = 0xFFFF_FFFF


class FutexWaiter:
    """One sleeping thread. `queued` is false once somebody has taken it from its queue: then it is woken.

    `pi` is the address of a lock with an owner that the thread waits to own, or 0.
    """

    __slots__ = ("bitset", "key", "pi", "queued", "thread")

    def __init__(self, thread: "Thread", key: Key, bitset: int, pi: int = 0) -> None:
        self.thread, self.key, self.bitset, self.pi = thread, key, bitset, pi
        self.queued = True


def find_key(mm: "Mm", address: int, private: bool) -> Key:
    """Return the identity of the futex at `address` (get_futex_key). Raises EINVAL, EFAULT."""
    if address & 3:
        raise LinuxError(EINVAL)
    if private:
        return (mm, address)
    vma = mm.vmas.find(address)
    if vma is None:
        raise LinuxError(EFAULT)
    if vma.shared and vma.backing:
        return (vma.backing.device, vma.backing.inode, vma.offset + address - vma.start)
    # Private memory cannot be shared with anybody, but Linux keeps the two sorts of operation apart.
    return (mm, address, "shared")


def exchange(mm: "Mm", address: int, change: Callable[[int], int | None]) -> int:
    """Atomically replace the word at `address` by `change(word)` unless that is None; return the old word.

    Raises EFAULT, and what `change` raises.
    """
    with mm.lock:
        while True:
            old = mm.read_u32(address)
            new = change(old)
            if new is None:
                return old
            gpa = mm.frame_of(address, write=True)
            if compare_exchange_u32(mm.memory.base + gpa, old, new & U32) == old:
                return old


class FutexTable:
    """Every futex of an island that somebody sleeps on."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.departed: WeakSet[Thread] = WeakSet()
        """Threads whose locks with an owner have been handed on: they own nothing any more."""
        self._queues: dict[Key, list[FutexWaiter]] = {}

    # ---- queues: Requires: lock --------------------------------------------------------------------------------

    def enqueue(self, waiter: FutexWaiter) -> None:
        self._queues.setdefault(waiter.key, []).append(waiter)

    def dequeue(self, waiter: FutexWaiter) -> None:
        queue = self._queues[waiter.key]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.key]
        waiter.queued = False

    def waiters(self, key: Key) -> list[FutexWaiter]:
        """Return who sleeps on a futex, longest first."""
        return list(self._queues.get(key, ()))

    def pi_queues(self) -> list[list[FutexWaiter]]:
        """Return the waiters of every lock with an owner."""
        return [list(queue) for queue in self._queues.values() if queue[0].pi]

    def release(self, waiter: FutexWaiter) -> None:
        """Take a waiter out and wake it."""
        self.dequeue(waiter)
        waiter.thread.waiter.wake()

    # ---- operations --------------------------------------------------------------------------------------------

    def wait(
        self, thread: "Thread", address: int, expected: int, private: bool, bitset: int, deadline: float | None
    ) -> None:
        """Sleep while the word is `expected` until woken. Raises EAGAIN, ETIMEDOUT at the monotonic deadline,
        ERESTARTSYS, EINVAL, EFAULT."""
        if not bitset:
            raise LinuxError(EINVAL)
        with self.lock:
            key = find_key(thread.mm, address, private)
            if thread.mm.read_u32(address) != expected:
                raise LinuxError(EAGAIN)
            if not thread.waiter.may_sleep:
                raise MustLeave
            waiter = FutexWaiter(thread, key, bitset)
            self.enqueue(waiter)
        self.sleep(waiter, deadline)

    def sleep(self, waiter: FutexWaiter, deadline: float | None) -> None:
        """Sleep until somebody takes the queued waiter out. Raises ETIMEDOUT, ERESTARTSYS."""
        thread = waiter.thread
        previous, thread.state = thread.state, "S"
        try:
            while waiter.queued:
                if not thread.sleep_until(deadline) and deadline is not None and time.monotonic() >= deadline:
                    raise LinuxError(ETIMEDOUT)
        except BaseException:
            with self.lock:
                if waiter.queued:
                    self.dequeue(waiter)
                    raise
        finally:
            thread.state = previous

    def wake(self, mm: "Mm", address: int, count: int, private: bool, bitset: int = FUTEX_BITSET_MATCH_ANY) -> int:
        """Wake up to `count` waiters (at least one, as Linux does); return how many. Raises EINVAL, EFAULT."""
        if not bitset:
            raise LinuxError(EINVAL)
        with self.lock:
            return self._wake_key(find_key(mm, address, private), count, bitset)

    def _wake_key(self, key: Key, count: int, bitset: int) -> int:
        woken = 0
        for waiter in self.waiters(key):
            if waiter.pi:
                raise LinuxError(EINVAL)
            if waiter.bitset & bitset:
                self.release(waiter)
                woken += 1
                if woken >= count:
                    break
        return woken

    def requeue(
        self, mm: "Mm", places: tuple[int, int], counts: tuple[int, int], private: bool, expected: int | None
    ) -> int:
        """Wake `counts[0]` waiters of the first futex and move `counts[1]` to the second; return how many in all.

        Raises EAGAIN when the first word is not `expected`, EINVAL, EFAULT.
        """
        wake, move = counts
        if wake < 0 or move < 0:
            raise LinuxError(EINVAL)
        with self.lock:
            source, target = (find_key(mm, place, private) for place in places)
            if expected is not None and mm.read_u32(places[0]) != expected:
                raise LinuxError(EAGAIN)
            done = 0
            for waiter in self.waiters(source):
                if done - wake >= move:
                    break
                if waiter.pi:
                    raise LinuxError(EINVAL)
                done += 1
                if done <= wake:
                    self.release(waiter)
                elif source != target:
                    self._move(waiter, target)
            return done

    def _move(self, waiter: FutexWaiter, target: Key) -> None:
        self.dequeue(waiter)
        waiter.key, waiter.queued = target, True
        self.enqueue(waiter)

    def wake_op(self, mm: "Mm", places: tuple[int, int], counts: tuple[int, int], private: bool, operation: int) -> int:
        """FUTEX_WAKE_OP: change the second word, wake on the first, and on the second if its old value says so."""
        change, condition = decode_operation(operation)
        with self.lock:
            first, second = (find_key(mm, place, private) for place in places)
            old = exchange(mm, places[1], change)
            holds = condition(old)
            woken = self._wake_key(first, counts[0], FUTEX_BITSET_MATCH_ANY)
            if holds:
                woken += self._wake_key(second, counts[1], FUTEX_BITSET_MATCH_ANY)
            return woken


# ---- FUTEX_WAKE_OP's little language (futex_atomic_op_inuser) ----------------------------------------------------

_CHANGES: list[Callable[[int, int], int]] = [
    lambda old, argument: argument,
    lambda old, argument: old + argument,
    lambda old, argument: old | argument,
    lambda old, argument: old & ~argument,
    lambda old, argument: old ^ argument,
]
_CONDITIONS: list[Callable[[int, int], bool]] = [
    lambda old, argument: old == argument,
    lambda old, argument: old != argument,
    lambda old, argument: old < argument,
    lambda old, argument: old <= argument,
    lambda old, argument: old > argument,
    lambda old, argument: old >= argument,
]


def _signed(value: int, bits: int) -> int:
    sign = 1 << (bits - 1)
    return (value & (sign * 2 - 1) ^ sign) - sign


def decode_operation(operation: int) -> tuple[Callable[[int], int], Callable[[int], bool]]:
    """Return what the operation does to the word and what it asks of the old one. Raises ENOSYS."""
    kind, comparison = operation >> 28 & 7, operation >> 24 & 15
    argument, compared = _signed(operation >> 12, 12), _signed(operation, 12)
    if operation >> 28 & FUTEX_OP_OPARG_SHIFT:
        argument = 1 << (argument & 31)
    if kind >= len(_CHANGES):
        raise LinuxError(ENOSYS)

    def holds(old: int) -> bool:
        if comparison >= len(_CONDITIONS):
            raise LinuxError(ENOSYS)
        return _CONDITIONS[comparison](_signed(old, 32), compared)

    return lambda old: _CHANGES[kind](old, argument) & U32, holds


def clear_child_tid(thread: "Thread") -> None:
    """CLONE_CHILD_CLEARTID: zero the word and wake one waiter there (mm_release)."""
    address, thread.clear_child_tid = thread.clear_child_tid, 0
    try:
        thread.mm.write_u32(address, 0)
        thread.kernel.futexes.wake(thread.mm, address, 1, private=False)
    except LinuxError:
        pass  # a bad pointer is the program's own business


def exit_robust_list(thread: "Thread") -> None:
    """Mark the locks a dying thread holds (robust list, priority inheritance) and wake who waits for them."""
    from enisle.kernel import robust

    robust.exit_robust_list(thread)
