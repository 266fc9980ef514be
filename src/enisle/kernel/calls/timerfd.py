"""Timers behind descriptors (timerfd_create(2)): the host's, waited for on the guest's behalf."""

import os
from errno import EINVAL, EPERM

from enisle.abi import host_time
from enisle.abi import linux_time as t
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.clocks import ALARM_CLOCKS, to_ns
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.table import Int, Support, syscall
from enisle.kernel.thread import Thread

CLOCKS = frozenset({t.CLOCK_REALTIME, t.CLOCK_MONOTONIC, t.CLOCK_BOOTTIME})


class TimerFile(OpenFile):
    """A timerfd on clock `clock_id`."""

    kind = "timer"
    seekable = False
    stream = False

    def __init__(self, fd: int, flags: int, clock_id: int) -> None:
        super().__init__(fd, flags, b"anon_inode:[timerfd]", blocking=True)
        self.clock_id = clock_id


def get_timer_file(thread: Thread, fd: Fd) -> TimerFile:
    """Raises EBADF, EINVAL."""
    file = thread.files.get(fd)
    if not isinstance(file, TimerFile):
        raise LinuxError(EINVAL)
    return file


@syscall(283, Support.PARTIAL, note="no alarm clocks")
def sys_timerfd_create(thread: Thread, clock: Int, flags: Int) -> int:
    if flags & ~(os.O_NONBLOCK | os.O_CLOEXEC) or (clock not in CLOCKS and clock not in ALARM_CLOCKS):
        raise LinuxError(EINVAL)
    if clock in ALARM_CLOCKS:
        raise LinuxError(EPERM)
    fd = host_time.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC)
    file = TimerFile(fd, os.O_RDWR | flags & os.O_NONBLOCK, clock)
    return thread.files.add(file, bool(flags & os.O_CLOEXEC), thread.process.limits.soft(RLIMIT_NOFILE))


@syscall(286, Support.FULL)
def sys_timerfd_settime(thread: Thread, fd: Fd, flags: Int, new: Gva, old: Gva) -> None:
    raw = thread.mm.read(new, t.ITIMERSPEC.size)
    parts = t.ITIMERSPEC.unpack(raw)
    if flags & ~(t.TFD_TIMER_ABSTIME | t.TFD_TIMER_CANCEL_ON_SET):
        raise LinuxError(EINVAL)
    to_ns(*parts[:2])
    to_ns(*parts[2:])
    file = get_timer_file(thread, fd)
    before = host_time.timerfd_settime(file.fd, flags, raw)
    if old:
        thread.mm.write(old, before)


@syscall(287, Support.FULL)
def sys_timerfd_gettime(thread: Thread, fd: Fd, value: Gva) -> None:
    thread.mm.write(value, host_time.timerfd_gettime(get_timer_file(thread, fd).fd))
