"""poll(2), select(2) and their forms with a signal mask."""

import time
from errno import EBADF, EINVAL
from typing import TYPE_CHECKING

from enisle.abi import linux_socket as n
from enisle.abi.linux import ERESTART_RESTARTBLOCK, ERESTARTNOHAND
from enisle.abi.linux_time import NS
from enisle.abi.types import Gva
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.readiness import Interest, Watch, deadline_of, read_deadline, temporary_mask, write_remaining
from enisle.kernel.table import Int, Size, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

US = 1_000_000
READ_SET = n.POLLRDNORM | n.POLLRDBAND | n.POLLIN | n.POLLHUP | n.POLLERR | n.POLLNVAL
WRITE_SET = n.POLLWRBAND | n.POLLWRNORM | n.POLLOUT | n.POLLERR | n.POLLNVAL
EXCEPT_SET = n.POLLPRI | n.POLLNVAL
"""fs/select.c: POLLIN_SET, POLLOUT_SET, POLLEX_SET."""
SETS = (READ_SET, WRITE_SET, EXCEPT_SET)
SMALLEST_TABLE = 64


# ---- poll ----------------------------------------------------------------------------------------------------------


def poll(thread: "Thread", address: int, count: int, deadline: float | None) -> int:
    if count > thread.process.limits.soft(RLIMIT_NOFILE):
        raise LinuxError(EINVAL)
    records = list(n.POLLFD.iter_unpack(thread.mm.read(address, count * n.POLLFD.size)))
    with Watch(thread, [(fd, events & 0xFFFF) for fd, events, _ in records]) as watch:
        answers = watch.wait(deadline)
    packed = [
        n.POLLFD.pack(fd, events, (answer ^ 0x8000) - 0x8000)
        for (fd, events, _), answer in zip(records, answers, strict=True)
    ]
    thread.mm.write(address, b"".join(packed))
    return sum(answer != 0 for answer in answers)


@syscall(7, Support.FULL)
def sys_poll(thread: "Thread", fds: Gva, count: Uint, timeout: Int) -> int:
    return poll_restartably(thread, fds, count, None if timeout < 0 else time.monotonic() + timeout / 1000)


def poll_restartably(thread: "Thread", fds: int, count: int, deadline: float | None) -> int:
    """Poll; a signal without a handler lets it go on with the time that is left."""
    try:
        return poll(thread, fds, count, deadline)
    except LinuxError as error:
        if error.errno != ERESTARTNOHAND:
            raise

        def again(thread: "Thread") -> int:
            return poll_restartably(thread, fds, count, deadline)

        thread.restart = signals.RestartBlock(again)
        raise LinuxError(ERESTART_RESTARTBLOCK) from None


@syscall(271, Support.FULL)
def sys_ppoll(thread: "Thread", fds: Gva, count: Uint, timeout: Gva, mask: Gva, size: Size) -> int:
    deadline = read_deadline(thread, timeout)
    try:
        with temporary_mask(thread, mask, size):
            return poll(thread, fds, count, deadline)
    finally:
        write_remaining(thread, timeout, deadline, NS)


# ---- select --------------------------------------------------------------------------------------------------------


def select(thread: "Thread", count: int, sets: tuple[int, int, int], deadline: float | None) -> int:
    """Wait as select(2) does; the sets are addresses or 0."""
    if count < 0:
        raise LinuxError(EINVAL)
    count = min(count, table_size(thread))
    size = (count + 63) // 64 * 8
    wanted = tuple(int.from_bytes(thread.mm.read(address, size), "little") if address else 0 for address in sets)
    with Watch(thread, interests_of(wanted, count)) as watch:
        if len(watch.files) < len(watch.interests):
            raise LinuxError(EBADF)
        answers = watch.wait(deadline)
    found = [0, 0, 0]
    for (fd, _), answer in zip(watch.interests, answers, strict=True):
        for index, events_of_set in enumerate(SETS):
            if wanted[index] >> fd & 1 and answer & events_of_set:
                found[index] |= 1 << fd
    for address, bits in zip(sets, found, strict=True):
        if address:
            thread.mm.write(address, bits.to_bytes(size, "little"))
    return sum(bits.bit_count() for bits in found)


def interests_of(wanted: tuple[int, ...], count: int) -> list[Interest]:
    """Return the poll events that stand for bits in the three sets."""
    interests: list[Interest] = []
    every = (wanted[0] | wanted[1] | wanted[2]) & ((1 << count) - 1)
    while every:
        fd = (every & -every).bit_length() - 1
        every &= every - 1
        events = 0
        for bits, asked in zip(wanted, SETS, strict=True):
            if bits >> fd & 1:
                events |= asked
        interests.append((fd, events))
    return interests


def table_size(thread: "Thread") -> int:
    """Return how many descriptors a table like the guest's has room for on Linux: more are ignored."""
    highest = max((fd for fd, _ in thread.files.items()), default=0)
    return max(SMALLEST_TABLE, 1 << highest.bit_length())


@syscall(23, Support.FULL)
def sys_select(thread: "Thread", count: Int, reads: Gva, writes: Gva, excepts: Gva, timeout: Gva) -> int:
    deadline = None
    if timeout:
        seconds, micros = n.TIMEVAL.unpack(thread.mm.read(timeout, n.TIMEVAL.size))
        if seconds < 0 or micros < 0:
            raise LinuxError(EINVAL)
        deadline = deadline_of(seconds + micros // US, micros % US * 1000)
    try:
        return select(thread, count, (reads, writes, excepts), deadline)
    finally:
        write_remaining(thread, timeout, deadline, US)


@syscall(270, Support.FULL)
def sys_pselect6(thread: "Thread", count: Int, reads: Gva, writes: Gva, excepts: Gva, timeout: Gva, sig: Gva) -> int:
    mask, size = (thread.mm.read_u64(sig), thread.mm.read_u64(sig + 8)) if sig else (0, 0)
    deadline = read_deadline(thread, timeout)
    try:
        with temporary_mask(thread, mask, size):
            return select(thread, count, (reads, writes, excepts), deadline)
    finally:
        write_remaining(thread, timeout, deadline, NS)
