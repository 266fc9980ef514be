"""Timers of a process: setitimer, alarm, and POSIX timers (setitimer(2), timer_create(2))."""

from errno import EAGAIN, EINVAL, EOPNOTSUPP

from enisle.abi import linux_time as t
from enisle.abi.linux_signal import NSIG, SIGALRM
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel import clocks, signals
from enisle.kernel.clocks import to_ns
from enisle.kernel.limits import RLIMIT_SIGPENDING
from enisle.kernel.table import Int, Support, Uint, syscall
from enisle.kernel.thread import Thread
from enisle.kernel.timers import PosixTimer, Timer

MOST_TIMERS = 1 << 15
INT_MAX = 0x7FFF_FFFF

Value = tuple[int, int]
"""A timer's time to the next expiration and its period."""


def exchange(timer: Timer, first: int, interval: int) -> Value:
    """Arm a timer in `first` nanoseconds from now (0: disarm); return what was left. Requires: kernel.lock."""
    now = timer.now()
    old = timer.countdown.left(now), timer.countdown.interval
    timer.set(now + first if first else 0, interval)
    return old


# ---- setitimer -----------------------------------------------------------------------------------------------------


def pack_itimerval(value: Value) -> bytes:
    left, interval = ((ns + 999) // 1000 for ns in value)
    return t.ITIMERSPEC.pack(*divmod(interval, 1_000_000), *divmod(left, 1_000_000))


def unpack_itimerval(raw: bytes) -> Value:
    """Raises EINVAL."""
    parts = t.ITIMERSPEC.unpack(raw)
    interval, left = (to_ns(parts[at], parts[at + 1] * 1000) for at in (0, 2))
    return left, interval


def get_interval_timer(thread: Thread, which: int) -> Timer:
    """Raises EINVAL."""
    timer = thread.process.timers.interval.get(which)
    if timer is None:
        raise LinuxError(EINVAL)
    return timer


@syscall(36, Support.FULL)
def sys_getitimer(thread: Thread, which: Int, value: Gva) -> None:
    timer = get_interval_timer(thread, which)
    with thread.kernel.lock:
        now = timer.countdown.left(timer.now()), timer.countdown.interval
    thread.mm.write(value, pack_itimerval(now))


@syscall(38, Support.FULL)
def sys_setitimer(thread: Thread, which: Int, value: Gva, old: Gva) -> None:
    first, interval = unpack_itimerval(thread.mm.read(value, 32)) if value else (0, 0)
    timer = get_interval_timer(thread, which)
    with thread.kernel.lock:
        before = exchange(timer, first, interval if first else 0)
    if old:
        thread.mm.write(old, pack_itimerval(before))


@syscall(37, Support.FULL)
def sys_alarm(thread: Thread, seconds: Uint) -> int:
    timer = get_interval_timer(thread, t.ITIMER_REAL)
    with thread.kernel.lock:
        left, _ = exchange(timer, min(seconds, INT_MAX) * t.NS, 0)
    whole, rest = divmod(left, t.NS)
    # Never 0 for an alarm that is set, else rounded to the nearest second (alarm_setitimer).
    return whole + (1 if rest >= t.NS // 2 or (left and not whole) else 0)


# ---- POSIX timers --------------------------------------------------------------------------------------------------


@syscall(222, Support.PARTIAL, note="no alarm clocks, no clocks behind descriptors")
def sys_timer_create(thread: Thread, clock: Int, event: Gva, created: Gva) -> None:
    if clock in clocks.ALARM_CLOCKS:
        raise LinuxError(EOPNOTSUPP)
    reader = clocks.find_clock(thread, clock)
    if not reader.on_cpu and clock not in clocks.TIMER_CLOCKS:
        raise LinuxError(EOPNOTSUPP)
    raw = thread.mm.read(event, t.SIGEVENT.size) if event else None
    timers = thread.process.timers
    timer = PosixTimer(thread.process, clock, reader.now, reader.on_cpu)
    with thread.kernel.lock:
        if len(timers.posix) >= min(MOST_TIMERS, thread.process.limits.soft(RLIMIT_SIGPENDING)):
            raise LinuxError(EAGAIN)
        number = timers.next_id
        _set_event(thread, timer, number, raw)
        thread.mm.write_u32(created, number)
        timers.posix[number] = timer
        timers.next_id = (number + 1) & INT_MAX


def _set_event(thread: Thread, timer: PosixTimer, number: int, raw: bytes | None) -> None:
    """Decide what an expiration does (good_sigevent). Raises EINVAL."""
    if raw is None:
        timer.info = signals.timer_info(SIGALRM, number, number, timer)
        return
    value, signo, notify, tid = t.SIGEVENT.unpack(raw)
    if notify == t.SIGEV_NONE:
        return
    if notify not in (t.SIGEV_SIGNAL, t.SIGEV_THREAD, t.SIGEV_SIGNAL | t.SIGEV_THREAD_ID):
        raise LinuxError(EINVAL)
    if notify & t.SIGEV_THREAD_ID:
        timer.target = thread.process.threads.get(Pid(tid))
        if timer.target is None:
            raise LinuxError(EINVAL)
    if not 0 < signo <= NSIG:
        raise LinuxError(EINVAL)
    timer.info = signals.timer_info(signo, number, value, timer)


def get_timer(thread: Thread, number: int) -> PosixTimer:
    """Return a POSIX timer of the process. Raises EINVAL. Requires: kernel.lock."""
    timer = thread.process.timers.posix.get(number)
    if timer is None:
        raise LinuxError(EINVAL)
    return timer


def value_of(timer: PosixTimer) -> Value:
    """Return what is left of a timer. Requires: kernel.lock."""
    now = timer.now()
    if timer.info is None:
        timer.countdown.take(now)  # nobody waits for its expirations
    return timer.countdown.left(now), timer.countdown.interval


def pack_itimerspec(value: Value) -> bytes:
    left, interval = value
    return t.ITIMERSPEC.pack(*divmod(interval, t.NS), *divmod(left, t.NS))


@syscall(223, Support.FULL)
def sys_timer_settime(thread: Thread, number: Int, flags: Int, value: Gva, old: Gva) -> None:
    if not value:
        raise LinuxError(EINVAL)
    parts = t.ITIMERSPEC.unpack(thread.mm.read(value, 32))
    interval, first = to_ns(*parts[:2]), to_ns(*parts[2:])
    with thread.kernel.lock:
        timer = get_timer(thread, number)
        before = value_of(timer)
        timer.overrun = 0
        expires = first if flags & t.TIMER_ABSTIME or not first else timer.now() + first
        timer.set(expires, interval if first else 0)
    if old:
        thread.mm.write(old, pack_itimerspec(before))


@syscall(224, Support.FULL)
def sys_timer_gettime(thread: Thread, number: Int, value: Gva) -> None:
    with thread.kernel.lock:
        now = value_of(get_timer(thread, number))
    thread.mm.write(value, pack_itimerspec(now))


@syscall(225, Support.FULL)
def sys_timer_getoverrun(thread: Thread, number: Int) -> int:
    with thread.kernel.lock:
        return min(get_timer(thread, number).overrun, INT_MAX)


@syscall(226, Support.FULL)
def sys_timer_delete(thread: Thread, number: Int) -> None:
    with thread.kernel.lock:
        get_timer(thread, number).set(0, 0)
        del thread.process.timers.posix[number]
