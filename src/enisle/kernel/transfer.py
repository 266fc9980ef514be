"""Bytes between guest memory and open files: the loops behind read, write and their relatives.

Memory is pinned for one host call and never while waiting. Where the guest's buffer is partly inaccessible the host
gets a page nobody may touch in its place, so that it answers with Linux's own partial counts.
Runs on the guest thread that calls.
"""

import os
from collections.abc import Callable, Sequence
from errno import EFAULT, EFBIG, EINVAL, EPIPE
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi.linux_fs import IOV_MAX, IOVEC, MAX_RW_COUNT, PIPE_BUF
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.files import POLLIN, POLLOUT, OpenFile
from enisle.kernel.limits import RLIM_INFINITY, RLIMIT_FSIZE
from enisle.kernel.wait import MustLeave
from enisle.machine import USER_END

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

SMALL = 1 << 16
"""Up to here a buffer is pinned in one piece."""
CHUNK = 1 << 20
"""Bytes pinned at a time: a large count may name memory that a short file will never fill."""
SIGPIPE, SIGXFSZ = 13, 25

Ranges = list[tuple[int, int]]
Operation = Callable[["Thread", Sequence[memoryview]], int]

_untouchable = host_fs.untouchable_page()


def read_iovec(thread: "Thread", address: int, count: int) -> Ranges:
    """Return the (address, size) ranges of a guest's iovec array. Raises EINVAL, EFAULT as import_iovec does."""
    if count > IOV_MAX:
        raise LinuxError(EINVAL)
    ranges: Ranges = []
    left = MAX_RW_COUNT
    for base, size in IOVEC.iter_unpack(thread.mm.read(address, count * IOVEC.size)):
        if size >> 63:
            raise LinuxError(EINVAL)
        if base + size > USER_END and size:
            raise LinuxError(EFAULT)
        taken = min(size, left)
        left -= taken
        if taken:
            ranges.append((base, taken))
    return ranges


def one_range(address: int, count: int) -> Ranges:
    """Return the range of a plain buffer. Raises EFAULT beyond user space, as a negative count always is."""
    if address + count > USER_END:
        raise LinuxError(EFAULT)
    return [(address, min(count, MAX_RW_COUNT))] if count else []


def try_once(thread: "Thread", ranges: Ranges, write: bool, operation: Operation) -> tuple[int, int]:
    """Do one host call on (the beginning of) the ranges; return how much it moved and how much it was offered."""
    mm = thread.mm
    if len(ranges) == 1 and ranges[0][1] <= SMALL:
        try:
            views = mm.pin(*ranges[0], write)
        except LinuxError:
            views = None
        if views is not None:
            try:
                return operation(thread, views), ranges[0][1]
            finally:
                mm.unpin(views)
    batch: Ranges = []
    left, broken = CHUNK, False
    for address, size in ranges[:IOV_MAX]:
        size = min(size, left)
        usable = mm.reach(address, size, write)
        batch.append((address, usable))
        left -= usable
        broken = usable < size
        if broken or not left:
            break
    with mm.pinned(batch, write) as views:
        if broken:
            views = [*views[: IOV_MAX - 1], _untouchable]
        views = views[:IOV_MAX]
        offered = sum(map(len, views))
        moved = operation(thread, views)
    if broken and moved > offered - len(_untouchable):
        # /dev/null and its like look at no memory: they take the rest unseen (write_null).
        moved = offered = sum(size for _, size in ranges)
    return moved, offered


def advance(ranges: Ranges, moved: int) -> None:
    """Cut `moved` bytes off the front."""
    while moved:
        address, size = ranges[0]
        if moved < size:
            ranges[0] = (address + moved, size - moved)
            return
        moved -= size
        del ranges[0]


def read_into(thread: "Thread", file: OpenFile, ranges: Ranges, operation: Operation | None = None) -> int:
    """Fill the ranges from a file, waiting for the first bytes when it must; return how many."""
    operation = operation or file.readv
    done = 0
    while True:
        try:
            moved, offered = try_once(thread, ranges, True, operation)
        except BlockingIOError:
            if done:
                return done
            file.block(thread, POLLIN)
            continue
        except (OSError, LinuxError):
            if done:
                return done
            raise
        done += moved
        advance(ranges, moved)
        if moved < offered or not ranges or not file.stream:
            return done


def write_from(
    thread: "Thread", file: OpenFile, ranges: Ranges, operation: Operation | None = None, done: int = 0
) -> int:
    """Write the ranges to a file, all of them where the guest is willing to wait; return how much, with `done`."""
    operation = operation or file.writev
    until_all = file.waits and file.stream and not file.flags & os.O_NONBLOCK
    if until_all and not thread.waiter.may_sleep and sum(size for _, size in ranges) > PIPE_BUF:
        raise MustLeave
    while True:
        try:
            moved, offered = try_once(thread, ranges, False, operation)
        except BlockingIOError:
            if done and not until_all:
                return done
            try:
                file.block(thread, POLLOUT)
            except (LinuxError, MustLeave):
                if done:
                    return done
                raise
            continue
        except BrokenPipeError:
            error = broken_pipe(thread)
            if done:
                return done
            raise error from None
        except (OSError, LinuxError):
            if done:
                return done
            raise
        done += moved
        advance(ranges, moved)
        if not ranges or (moved < offered and not until_all) or not file.stream:
            return done


def broken_pipe(thread: "Thread") -> LinuxError:
    """Send SIGPIPE to the thread, as pipe_write and sock_sendmsg do; return the error to raise."""
    send_signal(thread, SIGPIPE)
    return LinuxError(EPIPE)


def send_signal(thread: "Thread", signo: int) -> None:
    """Send a signal to the thread from itself: send_sig(signo, current, 0)."""
    process = thread.process
    with thread.kernel.lock:
        signals.send_to_thread(thread, signo, signals.user_info(signo, 0, process.pid, process.credentials.uid))


def has_size_limit(thread: "Thread") -> bool:
    return thread.process.limits.pairs[RLIMIT_FSIZE][0] != RLIM_INFINITY


def within_size_limit(thread: "Thread", file: OpenFile, ranges: Ranges, offset: int | None) -> Ranges:
    """Cut a write at RLIMIT_FSIZE. Raises EFBIG with SIGXFSZ when nothing is left (generic_write_checks)."""
    limit = thread.process.limits.pairs[RLIMIT_FSIZE][0]
    if limit == RLIM_INFINITY or file.kind != "file" or not ranges:
        return ranges
    if file.flags & os.O_APPEND:
        offset = os.fstat(file.fd).st_size
    elif offset is None:
        offset = os.lseek(file.fd, 0, os.SEEK_CUR)
    require_size(thread, offset)
    room = limit - offset
    cut: Ranges = []
    for address, size in ranges:
        if room > 0:
            cut.append((address, min(size, room)))
        room -= size
    return cut


def require_size(thread: "Thread", offset: int) -> None:
    """Raise EFBIG, with SIGXFSZ, when a file may not grow beyond `offset`."""
    if offset >= thread.process.limits.pairs[RLIMIT_FSIZE][0]:
        send_signal(thread, SIGXFSZ)
        raise LinuxError(EFBIG)
