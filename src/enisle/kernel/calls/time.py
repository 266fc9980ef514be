"""Reading clocks and sleeping (clock_gettime(2), nanosleep(2)), and what was used (getrusage(2), times(2))."""

import time
from errno import EINVAL, EOPNOTSUPP, EPERM
from functools import partial

from enisle.abi import linux_time as t
from enisle.abi.linux import ERESTART_RESTARTBLOCK, ERESTARTNOHAND
from enisle.abi.types import Gva
from enisle.errors import LinuxError
from enisle.kernel import clocks
from enisle.kernel.clocks import ClockReader, pack_timespec, pack_timeval, read_timespec
from enisle.kernel.cputime import pack_rusage, thread_time
from enisle.kernel.signals import RestartBlock
from enisle.kernel.table import Int, Support, syscall
from enisle.kernel.thread import Thread

SETTABLE = frozenset({t.CLOCK_REALTIME})
CPU_SLEEP_NS = 1_000_000
"""A sleep on processor time looks at its clock no more often."""
U64 = (1 << 64) - 1


# ---- reading -------------------------------------------------------------------------------------------------------


@syscall(228, Support.PARTIAL, note="no clocks behind descriptors")
def sys_clock_gettime(thread: Thread, clock: Int, when: Gva) -> None:
    now = clocks.find_clock(thread, clock).now()
    thread.mm.write(when, pack_timespec(now))


@syscall(229, Support.FULL)
def sys_clock_getres(thread: Thread, clock: Int, resolution: Gva) -> None:
    clocks.find_clock(thread, clock)
    step = 1
    if clock in clocks.COARSE_CLOCKS:
        step = round(time.clock_getres(clock) * t.NS)
    elif clock < 0 and clock & t.CPUCLOCK_CLOCK_MASK != t.CPUCLOCK_SCHED:
        step = t.LOW_RESOLUTION_NS
    if resolution:
        thread.mm.write(resolution, pack_timespec(step))


@syscall(227, Support.PARTIAL, note="the clock belongs to the host: EPERM, as without CAP_SYS_TIME")
def sys_clock_settime(thread: Thread, clock: Int, when: Gva) -> None:
    if clock not in SETTABLE:
        raise LinuxError(EINVAL)
    read_timespec(thread, when)
    raise LinuxError(EPERM)


@syscall(96, Support.FULL)
def sys_gettimeofday(thread: Thread, when: Gva, zone: Gva) -> None:
    if when:
        thread.mm.write(when, pack_timeval(thread.kernel.clock.now_ns(t.CLOCK_REALTIME)))
    if zone:
        thread.mm.write(zone, bytes(8))


@syscall(164, Support.PARTIAL, note="the clock belongs to the host: EPERM, as without CAP_SYS_TIME")
def sys_settimeofday(thread: Thread, when: Gva, zone: Gva) -> None:
    if when:
        seconds, microseconds = t.TIMESPEC.unpack(thread.mm.read(when, 16))
        if seconds < 0 or not 0 <= microseconds <= 1_000_000:
            raise LinuxError(EINVAL)
    if zone:
        thread.mm.read(zone, 8)
    raise LinuxError(EPERM)


@syscall(201, Support.FULL)
def sys_time(thread: Thread, when: Gva) -> int:
    now = thread.kernel.clock.now_ns(t.CLOCK_REALTIME) // t.NS
    if when:
        thread.mm.write_u64(when, now)
    return now


# ---- sleeping ------------------------------------------------------------------------------------------------------


@syscall(35, Support.FULL)
def sys_nanosleep(thread: Thread, request: Gva, left: Gva) -> int:
    length = read_timespec(thread, request)
    reader = clocks.find_clock(thread, t.CLOCK_MONOTONIC)
    return sleep_until(thread, reader, reader.now() + length, left)


@syscall(230, Support.FULL)
def sys_clock_nanosleep(thread: Thread, clock: Int, flags: Int, request: Gva, left: Gva) -> int:
    if clock in clocks.ALARM_CLOCKS:
        raise LinuxError(EOPNOTSUPP)
    reader = clocks.find_clock(thread, clock)
    if clock not in clocks.TIMER_CLOCKS and (not reader.on_cpu or clock == t.CLOCK_THREAD_CPUTIME_ID):
        raise LinuxError(EOPNOTSUPP)
    length = read_timespec(thread, request)
    if clock < 0 and _is_own(thread, clock):
        raise LinuxError(EINVAL)  # it would stand still for ever
    if flags & t.TIMER_ABSTIME:
        try:
            return sleep_until(thread, reader, length, 0)
        except LinuxError as error:
            raise LinuxError(ERESTARTNOHAND if error.errno == ERESTART_RESTARTBLOCK else error.errno) from None
    return sleep_until(thread, reader, reader.now() + length, left)


def _is_own(thread: Thread, clock: int) -> bool:
    return bool(clock & t.CPUCLOCK_PERTHREAD_MASK) and ~(clock >> 3) in (0, thread.tid)


def sleep_until(thread: Thread, reader: ClockReader, expires: int, left: int) -> int:
    """Sleep until the clock shows `expires`; when a signal comes first, store what is left at `left` (if given).

    Raises ERESTART_RESTARTBLOCK, with the way to go on in `thread.restart`; EFAULT.
    """
    previous, thread.state = thread.state, "S"
    try:
        while (rest := expires - reader.now()) > 0:
            if reader.on_cpu:
                rest = max(CPU_SLEEP_NS, rest // max(1, len(thread.process.threads)))
            thread.sleep(rest / t.NS)
    except LinuxError:
        rest = expires - reader.now()
        if rest <= 0:
            return 0
        if left:
            thread.mm.write(left, pack_timespec(rest))
        thread.restart = RestartBlock(partial(sleep_until, reader=reader, expires=expires, left=left))
        raise LinuxError(ERESTART_RESTARTBLOCK) from None
    finally:
        thread.state = previous
    return 0


# ---- what was used -------------------------------------------------------------------------------------------------


@syscall(98, Support.PARTIAL, note="times, peak memory and faults; other counts are 0")
def sys_getrusage(thread: Thread, who: Int, usage: Gva) -> None:
    process = thread.process
    with thread.kernel.lock:
        used = process.timers.usage
        if who == t.RUSAGE_SELF:
            spent = used.time()
        elif who == t.RUSAGE_CHILDREN:
            spent = used.children
        elif who == t.RUSAGE_THREAD:
            spent = thread_time(thread)
        else:
            raise LinuxError(EINVAL)
    mine = who != t.RUSAGE_CHILDREN
    peak = thread.mm.vmas.pages * 4 if mine else 0
    thread.mm.write(usage, pack_rusage(spent, peak, thread.mm.faults if mine else 0))


@syscall(100, Support.FULL)
def sys_times(thread: Thread, buffer: Gva) -> int:
    tick = t.NS // t.TICKS_PER_SECOND
    if buffer:
        with thread.kernel.lock:
            used = thread.process.timers.usage
            spent = (*used.time(), *used.children)
        thread.mm.write(buffer, t.TMS.pack(*(value // tick for value in spent)))
    return thread.kernel.clock.now_ns(t.CLOCK_BOOTTIME) // tick


# ---- the host's clock discipline -----------------------------------------------------------------------------------


def read_discipline(thread: Thread, address: int) -> int:
    """Answer adjtimex(2) of a clock that the guest may read but not steer; return its state."""
    if thread.mm.read_u32(address):
        raise LinuxError(EPERM)
    now = thread.kernel.clock.now_ns(t.CLOCK_REALTIME)
    thread.mm.write(address, t.TIMEX.pack(0, 0, 0, *t.UNSYNCHRONIZED, now // t.NS, now % t.NS // 1000, t.TICK_US))
    return t.TIME_ERROR


@syscall(159, Support.PARTIAL, note="the clock belongs to the host and is shown as free-running")
def sys_adjtimex(thread: Thread, buffer: Gva) -> int:
    return read_discipline(thread, buffer)


@syscall(305, Support.PARTIAL, note="as adjtimex")
def sys_clock_adjtime(thread: Thread, clock: Int, buffer: Gva) -> int:
    clocks.find_clock(thread, clock)
    if clock != t.CLOCK_REALTIME:
        raise LinuxError(EOPNOTSUPP)
    return read_discipline(thread, buffer)
