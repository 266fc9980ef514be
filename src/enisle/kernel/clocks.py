"""Which clock a clockid_t names, and how to read it: the system's through `kernel.clock`, processor time from the host.

Processor clocks of processes are read under `kernel.lock`.
"""

from collections.abc import Callable
from errno import EINVAL

from enisle.abi import linux_time as t
from enisle.abi.types import Pid
from enisle.errors import LinuxError
from enisle.kernel.cputime import thread_time, thread_total
from enisle.kernel.process import Process
from enisle.kernel.thread import Thread
from enisle.records import Record

SYSTEM_CLOCKS = frozenset(
    {t.CLOCK_REALTIME, t.CLOCK_MONOTONIC, t.CLOCK_BOOTTIME, t.CLOCK_TAI, t.CLOCK_MONOTONIC_RAW}
    | {t.CLOCK_REALTIME_COARSE, t.CLOCK_MONOTONIC_COARSE}
)
COARSE_CLOCKS = frozenset({t.CLOCK_REALTIME_COARSE, t.CLOCK_MONOTONIC_COARSE})
ALARM_CLOCKS = frozenset({t.CLOCK_REALTIME_ALARM, t.CLOCK_BOOTTIME_ALARM})
"""Clocks that wake a computer up: not there without a hardware clock."""
TIMER_CLOCKS = frozenset({t.CLOCK_REALTIME, t.CLOCK_MONOTONIC, t.CLOCK_BOOTTIME, t.CLOCK_TAI})
"""System clocks with timers and sleeps."""


class ClockReader(Record):
    """A clock to be read; `on_cpu`: it stands still while nobody runs."""

    now: Callable[[], int]
    on_cpu: bool


def find_clock(thread: Thread, clock_id: int) -> ClockReader:
    """Return the clock `clock_id` names for `thread`. Raises EINVAL."""
    if clock_id in SYSTEM_CLOCKS:
        clock = thread.kernel.clock
        return ClockReader(lambda: clock.now_ns(clock_id), False)
    if clock_id == t.CLOCK_PROCESS_CPUTIME_ID:
        return process_clock(thread.process, t.CPUCLOCK_SCHED)
    if clock_id == t.CLOCK_THREAD_CPUTIME_ID:
        return thread_clock(thread, t.CPUCLOCK_SCHED)
    if clock_id >= 0 or clock_id & t.CPUCLOCK_CLOCK_MASK == t.CPUCLOCK_CLOCK_MASK:
        raise LinuxError(EINVAL)
    return _dynamic_clock(thread, clock_id)


def _dynamic_clock(thread: Thread, clock_id: int) -> ClockReader:
    """Return the processor clock of another thread or process (clock_getcpuclockid(3), pthread_getcpuclockid(3))."""
    pid, which = Pid(~(clock_id >> 3)), clock_id & t.CPUCLOCK_CLOCK_MASK
    kernel = thread.kernel
    if clock_id & t.CPUCLOCK_PERTHREAD_MASK:
        target = kernel.threads.get(pid) if pid else thread
        if target is None or target.process is not thread.process:
            raise LinuxError(EINVAL)
        return thread_clock(target, which)
    process = kernel.processes_by_pid.get(pid) if pid and pid != thread.tid else thread.process
    if process is None or process.zombie:
        raise LinuxError(EINVAL)
    return process_clock(process, which)


def thread_clock(thread: Thread, which: int) -> ClockReader:
    if which == t.CPUCLOCK_VIRT:
        return ClockReader(lambda: thread_time(thread).user, True)
    return ClockReader(lambda: thread_total(thread), True)


def process_clock(process: Process, which: int) -> ClockReader:
    usage = process.timers.usage

    def now() -> int:
        with process.kernel.lock:
            return usage.time().user if which == t.CPUCLOCK_VIRT else usage.total()

    return ClockReader(now, True)


def read_timespec(thread: Thread, address: int) -> int:
    """Return a struct timespec in nanoseconds. Raises EFAULT, EINVAL."""
    return to_ns(*t.TIMESPEC.unpack(thread.mm.read(address, 16)))


def to_ns(seconds: int, nanoseconds: int) -> int:
    """Return a valid timespec in nanoseconds, at most KTIME_MAX. Raises EINVAL (timespec64_valid)."""
    if seconds < 0 or not 0 <= nanoseconds < t.NS:
        raise LinuxError(EINVAL)
    return min(seconds * t.NS + nanoseconds, t.KTIME_MAX)


def pack_timespec(nanoseconds: int) -> bytes:
    return t.TIMESPEC.pack(*divmod(nanoseconds, t.NS))


def pack_timeval(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, t.NS)
    return t.TIMESPEC.pack(seconds, rest // 1000)
