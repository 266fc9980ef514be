"""futex(2) and robust lists (get_robust_list(2))."""

import time
from errno import EINVAL, ENOSYS, EPERM, ESRCH
from functools import partial

from enisle.abi import linux_futex as f
from enisle.abi.linux import ERESTART_RESTARTBLOCK, ERESTARTSYS
from enisle.abi.linux_time import CLOCK_MONOTONIC, CLOCK_REALTIME, NS
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel import futex_pi
from enisle.kernel.clocks import read_timespec
from enisle.kernel.robust import exit_robust_list
from enisle.kernel.signals import RestartBlock
from enisle.kernel.table import Int, Size, Support, Uint, syscall
from enisle.kernel.thread import Thread

__all__ = ["exit_robust_list"]

WITH_TIMEOUT = frozenset({f.FUTEX_WAIT, f.FUTEX_WAIT_BITSET, f.FUTEX_LOCK_PI, f.FUTEX_LOCK_PI2})
WITH_CLOCK = frozenset({f.FUTEX_WAIT_BITSET, f.FUTEX_LOCK_PI2, f.FUTEX_WAIT_REQUEUE_PI})
S32 = 0x8000_0000


def signed(value: int) -> int:
    return ((value & 0xFFFF_FFFF) ^ S32) - S32


@syscall(202, Support.PARTIAL, note="PI locks hand over in order of arrival, without boosting; no FUTEX_*_REQUEUE_PI")
def sys_futex(thread: Thread, place: Gva, operation: Int, value: Uint, timeout: Size, place2: Gva, value3: Uint) -> int:
    command = operation & f.FUTEX_CMD_MASK
    deadline = None
    if command in WITH_TIMEOUT and timeout:
        deadline = deadline_of(thread, command, operation, timeout)
    if operation & f.FUTEX_CLOCK_REALTIME and command not in WITH_CLOCK:
        raise LinuxError(ENOSYS)
    private = bool(operation & f.FUTEX_PRIVATE_FLAG)
    table, mm, places = thread.kernel.futexes, thread.mm, (place, place2)
    counts = signed(value), signed(timeout)
    match command:
        case f.FUTEX_WAIT:
            return wait(thread, place, value, private, f.FUTEX_BITSET_MATCH_ANY, deadline)
        case f.FUTEX_WAIT_BITSET:
            return wait(thread, place, value, private, value3, deadline)
        case f.FUTEX_WAKE:
            return table.wake(mm, place, counts[0], private)
        case f.FUTEX_WAKE_BITSET:
            return table.wake(mm, place, counts[0], private, value3)
        case f.FUTEX_REQUEUE:
            return table.requeue(mm, places, counts, private, None)
        case f.FUTEX_CMP_REQUEUE:
            return table.requeue(mm, places, counts, private, value3)
        case f.FUTEX_WAKE_OP:
            return table.wake_op(mm, places, counts, private, value3)
        case f.FUTEX_LOCK_PI | f.FUTEX_LOCK_PI2:
            futex_pi.lock(thread, place, private, deadline)
        case f.FUTEX_TRYLOCK_PI:
            futex_pi.lock(thread, place, private, None, only_try=True)
        case f.FUTEX_UNLOCK_PI:
            futex_pi.unlock(thread, place, private)
        case _:
            raise LinuxError(ENOSYS)
    return 0


def deadline_of(thread: Thread, command: int, operation: int, timeout: int) -> float:
    """Return the monotonic deadline of a timeout: relative for FUTEX_WAIT, else absolute. Raises EFAULT, EINVAL."""
    when = read_timespec(thread, timeout)
    if command != f.FUTEX_WAIT:
        real = command == f.FUTEX_LOCK_PI or operation & f.FUTEX_CLOCK_REALTIME
        when -= thread.kernel.clock.now_ns(CLOCK_REALTIME if real else CLOCK_MONOTONIC)
    return time.monotonic() + when / NS


def wait(thread: Thread, place: int, value: int, private: bool, bitset: int, deadline: float | None) -> int:
    """FUTEX_WAIT; one with a timeout goes on after a signal with what is left of it."""
    try:
        thread.kernel.futexes.wait(thread, place, value, private, bitset, deadline)
    except LinuxError as error:
        if error.errno != ERESTARTSYS or deadline is None:
            raise
        again = partial(wait, place=place, value=value, private=private, bitset=bitset, deadline=deadline)
        thread.restart = RestartBlock(again)
        raise LinuxError(ERESTART_RESTARTBLOCK) from None
    return 0


@syscall(449, Support.ABSENT, note="futex_waitv is newer than what the C library needs")
def sys_futex_waitv(thread: Thread) -> int:
    raise LinuxError(ENOSYS)


@syscall(273, Support.FULL)
def sys_set_robust_list(thread: Thread, head: Gva, size: Size) -> None:
    if size != f.ROBUST_LIST_HEAD_SIZE:
        raise LinuxError(EINVAL)
    thread.robust_list = head


@syscall(274, Support.FULL)
def sys_get_robust_list(thread: Thread, pid: Pid, head: Gva, size: Gva) -> None:
    target = thread.kernel.threads.get(pid) if pid else thread
    if target is None:
        raise LinuxError(ESRCH)
    me, other = thread.process.credentials, target.process.credentials
    if target.process is not thread.process and me.euid not in (0, other.uid):  # ptrace_may_access
        raise LinuxError(EPERM)
    thread.mm.write_u64(size, f.ROBUST_LIST_HEAD_SIZE)
    thread.mm.write_u64(head, target.robust_list)
