"""The timers of a process: setitimer's three, POSIX timers, and the limit on processor time.

State is guarded by `kernel.lock`; expirations come from the island's timer thread and end as signals. A periodic timer
whose signal is still pending is not armed again before that is taken, and counts what it missed (overruns).
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.abi.linux_time import ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL
from enisle.kernel import signals
from enisle.kernel.cputime import Usage
from enisle.kernel.limits import RLIM_INFINITY, RLIMIT_CPU
from enisle.kernel.timer_queue import Countdown

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

SIGKILL, SIGALRM, SIGXCPU, SIGVTALRM, SIGPROF = 9, 14, 24, 26, 27
SECOND = 1_000_000_000
CPU_POLL_NS = 500_000
"""A timer on processor time is looked at no more often: no thread uses more than the time that passes."""
IDLE_POLL_NS = 20_000_000
"""How long to look away when the process uses no processor at all."""


class Timer:
    """An armed or disarmed timer on one clock."""

    def __init__(self, process: "Process", now: Callable[[], int], on_cpu: bool) -> None:
        self.process, self.now, self.on_cpu = process, now, on_cpu
        self.countdown = Countdown()
        self._last_seen = -1

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
        thread.set(self, time.monotonic_ns() + left)


class IntervalTimer(Timer):
    """One of setitimer(2)'s."""

    def __init__(self, process: "Process", signo: int, now: Callable[[], int], on_cpu: bool) -> None:
        super().__init__(process, now, on_cpu)
        self.signo = signo

    def expired(self, count: int) -> None:
        signals.send_to_process(self.process, self.signo, signals.kernel_info(self.signo))


class CpuLimit(Timer):
    """RLIMIT_CPU: SIGXCPU at the soft limit and each second from there, SIGKILL at the hard one."""

    def expired(self, count: int) -> None:
        hard = self.process.limits.pairs[RLIMIT_CPU][1]
        used = self.now() // SECOND
        signo = SIGKILL if hard != RLIM_INFINITY and used >= hard else SIGXCPU
        signals.send_to_process(self.process, signo, signals.kernel_info(signo))


class ProcessTimers:
    """Every timer of one process."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.usage = Usage(process)
        self.posix: dict[int, Timer] = {}
        self.next_id = 0
        usage = self.usage
        self.interval = {
            ITIMER_REAL: IntervalTimer(process, SIGALRM, time.monotonic_ns, False),
            ITIMER_VIRTUAL: IntervalTimer(process, SIGVTALRM, lambda: usage.time().user, True),
            ITIMER_PROF: IntervalTimer(process, SIGPROF, lambda: usage.time().total, True),
        }
        self.cpu_limit = CpuLimit(process, lambda: usage.time().total, True)

    def limit_changed(self) -> None:
        """RLIMIT_CPU has a new value. Requires: kernel.lock."""
        soft, hard = self.process.limits.pairs[RLIMIT_CPU]
        limit = min(soft, hard)
        self.cpu_limit.set(0 if limit == RLIM_INFINITY else max(1, limit * SECOND), SECOND)

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
