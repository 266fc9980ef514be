"""Futexes with an owner (FUTEX_LOCK_PI …): the word holds the owner's thread id and the kernel hands the lock over.

There is no priority to inherit: waiters get the lock in the order they came. A woken waiter owns the lock already.
Guarded by the lock of the futex table.
"""

from errno import EAGAIN, EDEADLK, EINVAL, EPERM, ESRCH, ETIMEDOUT
from typing import TYPE_CHECKING

from enisle.abi.linux import ERESTARTNOINTR
from enisle.abi.linux_futex import FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS
from enisle.abi.types import Pid
from enisle.errors import LinuxError
from enisle.kernel.futex import FutexWaiter, exchange, find_key
from enisle.kernel.wait import MustLeave

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread


def lock(thread: "Thread", address: int, private: bool, deadline: float | None, only_try: bool = False) -> None:
    """Own the lock at `address`. Raises EDEADLK, ESRCH, EAGAIN (try), ETIMEDOUT, ERESTARTNOINTR, EINVAL, EFAULT."""
    table = thread.kernel.futexes
    with table.lock:
        key = find_key(thread.mm, address, private)
        if any(not waiter.pi for waiter in table.waiters(key)):
            raise LinuxError(EINVAL)
        if _take(thread, address, bool(table.waiters(key))):
            return
        if only_try:
            raise LinuxError(EAGAIN)
        if not thread.waiter.may_sleep:
            raise MustLeave
        waiter = FutexWaiter(thread, key, FUTEX_BITSET_MATCH_ANY, address)
        table.enqueue(waiter)
    _sleep(waiter, deadline)


def _take(thread: "Thread", address: int, waited_for: bool) -> bool:
    """Own the lock if nobody does, else announce a waiter; return whether it is ours (futex_lock_pi_atomic)."""

    def change(word: int) -> int:
        owner = word & FUTEX_TID_MASK
        if owner == thread.tid:
            raise LinuxError(EDEADLK)
        if not owner and not waited_for:
            return word & FUTEX_OWNER_DIED | thread.tid
        holder = thread.kernel.threads.get(Pid(owner))
        if not waited_for and (holder is None or holder in thread.kernel.futexes.departed):
            raise LinuxError(ESRCH)
        return word | FUTEX_WAITERS

    old = exchange(thread.mm, address, change)
    return not old & FUTEX_TID_MASK and not waited_for


def _sleep(waiter: FutexWaiter, deadline: float | None) -> None:
    table = waiter.thread.kernel.futexes
    try:
        table.sleep(waiter, deadline)
    except LinuxError as error:
        raise error if error.errno == ETIMEDOUT else LinuxError(ERESTARTNOINTR) from None


def unlock(thread: "Thread", address: int, private: bool) -> None:
    """Give the lock to who waits longest, or free it. Raises EPERM for who does not own it, EINVAL, EFAULT."""
    table = thread.kernel.futexes
    with table.lock:
        if thread.mm.read_u32(address) & FUTEX_TID_MASK != thread.tid:
            raise LinuxError(EPERM)
        key = find_key(thread.mm, address, private)
        waiters = table.waiters(key)
        if any(not waiter.pi for waiter in waiters):
            raise LinuxError(EINVAL)
        heir = waiters[0] if waiters else None
        word = heir.thread.tid | FUTEX_WAITERS if heir else 0

        def change(old: int) -> int:
            if old & FUTEX_TID_MASK != thread.tid:
                raise LinuxError(EPERM)
            return word

        exchange(thread.mm, address, change)
        if heir:
            table.release(heir)


def owner_gone(thread: "Thread") -> None:
    """Hand on every lock the dying thread owns and somebody waits for (exit_pi_state_list)."""
    table = thread.kernel.futexes
    with table.lock:
        table.departed.add(thread)
        for waiters in table.pi_queues():
            heir = waiters[0]
            try:
                exchange(heir.thread.mm, heir.pi, lambda word, heir=heir: _inherit(word, thread, heir))
                if heir.thread.mm.read_u32(heir.pi) & FUTEX_TID_MASK == heir.thread.tid:
                    table.release(heir)
            except LinuxError:
                continue  # the lock's memory is gone


def _inherit(word: int, dead: "Thread", heir: FutexWaiter) -> int | None:
    owner = word & FUTEX_TID_MASK
    # The robust list may have cleared the owner already.
    if owner != dead.tid and not (owner == 0 and word & FUTEX_OWNER_DIED):
        return None
    return heir.thread.tid | FUTEX_WAITERS | FUTEX_OWNER_DIED
