"""How much processor time guest threads and processes have used: the host's clocks of the threads they run on.

Guest and kernel time of a thread are one clock; the host's account of user and system time splits it. A thread's time
must outlive it: `Usage` of a process keeps what its dead threads used. Guarded by `kernel.lock`.
"""

import time
from typing import TYPE_CHECKING, NamedTuple

from enisle.abi.linux_time import (
    CPUCLOCK_CLOCK_MASK,
    CPUCLOCK_PERTHREAD_MASK,
    CPUCLOCK_PROF,
    CPUCLOCK_SCHED,
    CPUCLOCK_VIRT,
)

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread


class CpuTime(NamedTuple):
    """Processor time in nanoseconds."""

    user: int = 0
    system: int = 0

    @property
    def total(self) -> int:
        return self.user + self.system

    def plus(self, other: "CpuTime") -> "CpuTime":
        return CpuTime(self.user + other.user, self.system + other.system)


def host_clock(native_id: int, kind: int) -> int:
    """Read a CPU clock of one of our host threads; 0 when it is not there (clock_gettime(2), posix-cpu-timers.c)."""
    try:
        return time.clock_gettime_ns(~native_id << 3 | CPUCLOCK_PERTHREAD_MASK | kind & CPUCLOCK_CLOCK_MASK)
    except OSError:
        return 0


def thread_time(thread: "Thread") -> CpuTime:
    """Return what a living thread has used."""
    native_id = thread.host_thread
    if not native_id:
        return CpuTime()
    total = host_clock(native_id, CPUCLOCK_SCHED)
    ticks, user = host_clock(native_id, CPUCLOCK_PROF), host_clock(native_id, CPUCLOCK_VIRT)
    return split(total, user, ticks)


def split(total: int, user: int, ticks: int) -> CpuTime:
    """Divide a precise total as the coarse accounts `user` out of `ticks` say (cputime_adjust)."""
    if not ticks or user >= ticks:
        return CpuTime(total, 0)
    user_part = total * user // ticks
    return CpuTime(user_part, total - user_part)


class Usage:
    """What the threads of a process have used."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._dead = CpuTime()
        self._counted: set[Thread] = set()

    def thread_gone(self, thread: "Thread") -> None:
        """Keep a dying thread's time. Requires: kernel.lock."""
        if thread not in self._counted:
            self._dead = self._dead.plus(thread_time(thread))
            self._counted.add(thread)

    def time(self) -> CpuTime:
        """Return the process's time. Requires: kernel.lock."""
        threads = self._process.threads.values()
        self._counted &= set(threads)
        used = self._dead
        for thread in threads:
            if thread not in self._counted:
                used = used.plus(thread_time(thread))
        return used
