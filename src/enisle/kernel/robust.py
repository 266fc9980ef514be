"""What a dying thread leaves behind: locks it holds, which the kernel marks and hands on (kernel/futex/core.c).

Runs on the thread's own host thread, while its address space is still there.
"""

import struct
from errno import EINVAL
from typing import TYPE_CHECKING

from enisle.abi.linux_futex import FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT
from enisle.errors import LinuxError
from enisle.kernel import futex_pi
from enisle.kernel.futex import exchange

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

HEAD = struct.Struct("<QqQ")
"""struct robust_list_head: next, futex_offset, list_op_pending; bit 0 of a pointer marks a PI lock."""
U64 = (1 << 64) - 1


def exit_robust_list(thread: "Thread") -> None:
    """Mark every lock on the thread's robust list, then hand on the PI locks it owns."""
    head, thread.robust_list = thread.robust_list, 0
    try:
        if head:
            _walk(thread, head)
    except LinuxError:
        pass  # the list is the program's memory: where it is wrong, it ends
    futex_pi.owner_gone(thread)


def _walk(thread: "Thread", head: int) -> None:
    entry, offset, pending = HEAD.unpack(thread.mm.read(head, HEAD.size))
    left = ROBUST_LIST_LIMIT
    while entry & ~1 != head and left:
        # The entry may vanish with its lock: its successor is read first.
        try:
            after = thread.mm.read_u64(entry & ~1)
        except LinuxError:
            after = None
        if entry & ~1 != pending & ~1:
            mark_dead(thread, (entry & ~1) + offset & U64, bool(entry & 1), pending=False)
        if after is None:
            return
        entry, left = after, left - 1
    if pending & ~1:
        mark_dead(thread, (pending & ~1) + offset & U64, bool(pending & 1), pending=True)


def mark_dead(thread: "Thread", address: int, pi: bool, pending: bool) -> None:
    """Set OWNER_DIED in a lock word the thread owns and wake one waiter (handle_futex_death). Raises EFAULT, EINVAL."""
    mm, futexes = thread.mm, thread.kernel.futexes

    def died(word: int) -> int | None:
        return word & FUTEX_WAITERS | FUTEX_OWNER_DIED if word & FUTEX_TID_MASK == thread.tid else None

    if address & 3:
        raise LinuxError(EINVAL)
    word = mm.read_u32(address)
    if pending and not pi and not word & FUTEX_TID_MASK:
        futexes.wake(mm, address, 1, private=False)  # it died between unlocking and waking
        return
    word = exchange(mm, address, died)
    if word & FUTEX_TID_MASK == thread.tid and not pi and word & FUTEX_WAITERS:
        futexes.wake(mm, address, 1, private=False)
