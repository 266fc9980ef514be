"""epoll(7): the system calls."""

import time
from errno import EFAULT, EINTR, EINVAL, ETIMEDOUT
from typing import TYPE_CHECKING

from enisle.abi import linux_socket as n
from enisle.abi.linux import ERESTARTSYS
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.epoll import EpollFile
from enisle.kernel.files import POLLIN
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.readiness import LONGEST, read_deadline, temporary_mask
from enisle.kernel.table import Int, Size, Support, syscall
from enisle.machine import USER_END

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

BATCH = 4096
"""Events of one answer; a guest that has room for more asks again."""


def create(thread: "Thread", flags: int) -> int:
    limit = thread.process.limits.soft(RLIMIT_NOFILE)
    thread.files.require_room(limit)
    return thread.files.add(EpollFile(), bool(flags & n.EPOLL_CLOEXEC), limit)


@syscall(213, Support.FULL)
def sys_epoll_create(thread: "Thread", size: Int) -> int:
    if size <= 0:
        raise LinuxError(EINVAL)
    return create(thread, 0)


@syscall(291, Support.FULL)
def sys_epoll_create1(thread: "Thread", flags: Int) -> int:
    if flags & ~n.EPOLL_CLOEXEC:
        raise LinuxError(EINVAL)
    return create(thread, flags)


@syscall(233, Support.FULL)
def sys_epoll_ctl(thread: "Thread", epfd: Fd, operation: Int, fd: Fd, event: Gva) -> None:
    events = content = 0
    if operation != n.EPOLL_CTL_DEL:
        events, content = n.EPOLL_EVENT.unpack(thread.mm.read(event, n.EPOLL_EVENT.size))
    epoll = thread.files.hold(epfd)
    try:
        file = thread.files.hold(fd)
        try:
            if file is epoll or not isinstance(epoll, EpollFile):
                raise LinuxError(EINVAL)
            if operation == n.EPOLL_CTL_ADD:
                epoll.add(fd, file, events, content)
            elif operation == n.EPOLL_CTL_MOD:
                epoll.modify(fd, file, events, content)
            elif operation == n.EPOLL_CTL_DEL:
                epoll.remove(fd, file)
            else:
                raise LinuxError(EINVAL)
        finally:
            file.drop()
    finally:
        epoll.drop()


def wait(thread: "Thread", epfd: Fd, events: int, most: int, deadline: float | None) -> int:
    """Return how many events were stored; 0 at the deadline. Raises EINTR: epoll_wait is never restarted."""
    if not 0 < most <= n.EP_MAX_EVENTS:
        raise LinuxError(EINVAL)
    if events + most * n.EPOLL_EVENT.size > USER_END:
        raise LinuxError(EFAULT)
    epoll = thread.files.hold(epfd)
    try:
        if not isinstance(epoll, EpollFile):
            raise LinuxError(EINVAL)
        while True:
            found = epoll.poll(min(most, BATCH))
            if found:
                thread.mm.write(events, found)
                return len(found) // n.EPOLL_EVENT.size
            if not wait_for_event(thread, epoll, deadline):
                return 0
    finally:
        epoll.drop()


def wait_for_event(thread: "Thread", epoll: EpollFile, deadline: float | None) -> bool:
    """Wait until there may be an event; False at the deadline."""
    if deadline is not None and deadline <= time.monotonic():
        return False
    if thread.interrupted():
        raise LinuxError(EINTR)
    soon = time.monotonic() + LONGEST
    try:
        thread.wait_fd(epoll.fd, POLLIN, None if deadline is None else min(deadline, soon))
    except LinuxError as error:
        if error.errno == ETIMEDOUT:
            return deadline is None or deadline > time.monotonic()
        raise LinuxError(EINTR if error.errno == ERESTARTSYS else error.errno) from None
    return True


def milliseconds(timeout: int) -> float | None:
    return None if timeout < 0 else time.monotonic() + timeout / 1000


@syscall(232, Support.FULL)
def sys_epoll_wait(thread: "Thread", epfd: Fd, events: Gva, most: Int, timeout: Int) -> int:
    return wait(thread, epfd, events, most, milliseconds(timeout))


@syscall(281, Support.FULL)
def sys_epoll_pwait(
    thread: "Thread", epfd: Fd, events: Gva, most: Int, timeout: Int, mask: Gva, size: Size
) -> int:  # fmt: skip
    deadline = milliseconds(timeout)
    with temporary_mask(thread, mask, size):
        return wait(thread, epfd, events, most, deadline)


@syscall(441, Support.FULL)
def sys_epoll_pwait2(
    thread: "Thread", epfd: Fd, events: Gva, most: Int, timeout: Gva, mask: Gva, size: Size
) -> int:  # fmt: skip
    deadline = read_deadline(thread, timeout)
    with temporary_mask(thread, mask, size):
        return wait(thread, epfd, events, most, deadline)
