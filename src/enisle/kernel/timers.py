"""The timers of a process: setitimer's three, POSIX timers, and the limit on processor time.

State is guarded by `kernel.lock`; expirations come from the island's timer thread and end as signals. A POSIX timer
whose signal is still pending is not armed again before that is taken, and counts what it missed (overruns).
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.abi.linux_signal import SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, bit
from enisle.abi.linux_time import ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, NS
from enisle.errors import LinuxError
from enisle.kernel.cputime import Usage
from enisle.kernel.limits import RLIM_INFINITY, RLIMIT_CPU
from enisle.kernel.signal_info import SigInfo, kernel_info
from enisle.kernel.signal_send import send_to_process, send_to_thread
from enisle.kernel.timer_queue import Countdown

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

CPU_POLL_NS = 500_000
"""A timer on processor time is looked at no more often: no thread uses more than the time that passes."""
IDLE_POLL_NS = 20_000_000
"""How long to look away when the process uses no processor at all."""
PENDING_POLL_NS = 10_000_000
"""How long to look away while the last signal of a periodic timer is not taken, or is ignored."""


class Timer:
    """An armed or disarmed timer on one clock."""

    def __init__(self, process: "Process", now: Callable[[], int], on_cpu: bool) -> None:
        self.process, self.now, self.on_cpu = process, now, on_cpu
        self.countdown = Countdown()
        self._last_seen = -1

    def idle(self) -> int:
        """Return how many nanoseconds not to look at the timer at least. Requires: kernel.lock."""
        return 0

    def set(self, expires: int, interval: int) -> None:
        """Arm for `expires` on the timer's clock (0: disarm). Requires: kernel.lock."""
        self.countdown = Countdown(expires, interval)
        self.schedule()

    def ring(self) -> None:
        """Look whether the timer has expired. On the timer thread."""
        with self.process.kernel.lock:
            count = self.countdown.take(self.now())
            if count:
                self.expired(count)
            self.schedule()

    def expired(self, count: int) -> None:
        """Do what the timer is for. Requires: kernel.lock."""
        raise NotImplementedError

    def schedule(self) -> None:
        """Tell the timer thread when to look again. Requires: kernel.lock."""
        thread = self.process.kernel.timer_thread
        if not self.countdown.expires or self.process.zombie:
            thread.set(self, None)
            return
        now = self.now()
        left = max(0, self.countdown.expires - now)
        if self.on_cpu:
            running = max(1, len(self.process.threads))
            left = max(left // running, IDLE_POLL_NS if now == self._last_seen else CPU_POLL_NS)
            self._last_seen = now
        thread.set(self, time.monotonic_ns() + max(left, self.idle()))


class IntervalTimer(Timer):
    """One of setitimer(2)'s."""

    def __init__(self, process: "Process", signo: int, now: Callable[[], int], on_cpu: bool) -> None:
        super().__init__(process, now, on_cpu)
        self.signo = signo

    def expired(self, count: int) -> None:
        send_to_process(self.process, self.signo, kernel_info(self.signo))

    def idle(self) -> int:
        # Linux arms it again when the signal is taken; a signal that waits swallows its successors in any case.
        return PENDING_POLL_NS if self.countdown.interval and self.process.pending.mask & bit(self.signo) else 0


class CpuLimit(Timer):
    """RLIMIT_CPU: SIGXCPU at the soft limit and each second from there, SIGKILL at the hard one."""

    def expired(self, count: int) -> None:
        hard = self.process.limits.pairs[RLIMIT_CPU][1]
        used = self.now() // NS
        signo = SIGKILL if hard != RLIM_INFINITY and used >= hard else SIGXCPU
        send_to_process(self.process, signo, kernel_info(signo))


class PosixTimer(Timer):
    """One of timer_create(2)'s. `target` is a thread of the process, None for the whole process.

    `info` is what its signal carries; None for SIGEV_NONE.
    """

    def __init__(self, process: "Process", clock_id: int, now: Callable[[], int], on_cpu: bool) -> None:
        super().__init__(process, now, on_cpu)
        self.clock_id = clock_id
        self.target: Thread | None = None
        self.info: SigInfo | None = None
        self.overrun = 0
        """Missed expirations of the last signal taken (timer_getoverrun)."""
        self._missed = 0

    def expired(self, count: int) -> None:
        if self.info is None or self.info.queued:
            self._missed += count
            return
        self._missed = count - 1
        try:
            if self.target is None:
                send_to_process(self.process, self.info.signo, self.info)
            elif self.target.tid in self.process.threads:
                send_to_thread(self.target, self.info.signo, self.info)
        except LinuxError:
            pass  # the queue is full: this expiration is lost

    def schedule(self) -> None:
        if self.info is None or self.info.queued:
            self.process.kernel.timer_thread.set(self, None)
        else:
            super().schedule()

    def idle(self) -> int:
        # Ignored signals would let a short period ring without end: look once a jiffy then (posix_timer_fn).
        return CPU_POLL_NS if self.countdown.interval else 0

    def signal_taken(self) -> int:
        """Return the overruns to report with the signal, and arm the timer again. Requires: kernel.lock."""
        self.overrun = self._missed + self.countdown.take(self.now()) if self.countdown.interval else self._missed
        self._missed = 0
        self.schedule()
        return self.overrun


class ProcessTimers:
    """Every timer of one process."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.usage = Usage(process)
        self.posix: dict[int, PosixTimer] = {}
        self.next_id = 0
        usage = self.usage
        self.interval = {
            ITIMER_REAL: IntervalTimer(process, SIGALRM, time.monotonic_ns, False),
            ITIMER_VIRTUAL: IntervalTimer(process, SIGVTALRM, lambda: usage.time().user, True),
            ITIMER_PROF: IntervalTimer(process, SIGPROF, usage.total, True),
        }
        self.cpu_limit = CpuLimit(process, usage.total, True)

    def limit_changed(self) -> None:
        """RLIMIT_CPU has a new value. Requires: kernel.lock."""
        soft, hard = self.process.limits.pairs[RLIMIT_CPU]
        limit = min(soft, hard)
        self.cpu_limit.set(0 if limit == RLIM_INFINITY else max(1, limit * NS), NS)

    def thread_gone(self, thread: "Thread") -> None:
        """Keep a dying thread's processor time."""
        with self.process.kernel.lock:
            self.usage.thread_gone(thread)

    def exec(self) -> None:
        """execve(2): POSIX timers are deleted, interval timers go on."""
        with self.process.kernel.lock:
            for timer in self.posix.values():
                timer.set(0, 0)
            self.posix.clear()

    def close(self) -> None:
        """The process is no more."""
        self.exec()
        with self.process.kernel.lock:
            for timer in (*self.interval.values(), self.cpu_limit):
                timer.set(0, 0)
