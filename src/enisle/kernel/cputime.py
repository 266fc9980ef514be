"""How much processor time guest threads and processes have used: the host's clocks of the threads they run on.

Guest and kernel time of a thread are one clock; the host's account of user and system time splits it. A thread's time
must outlive it: `Usage` of a process keeps what its dead threads used. Guarded by `kernel.lock`.
"""

import time
from typing import TYPE_CHECKING

from enisle.abi.linux_time import (
    CPUCLOCK_CLOCK_MASK,
    CPUCLOCK_PERTHREAD_MASK,
    CPUCLOCK_PROF,
    CPUCLOCK_SCHED,
    CPUCLOCK_VIRT,
    RUSAGE,
)
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread


class CpuTime(Record):
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


def thread_total(thread: "Thread") -> int:
    """Return what a living thread has used, in nanoseconds."""
    return host_clock(thread.host_thread, CPUCLOCK_SCHED) if thread.host_thread else 0


def split(total: int, user: int, ticks: int) -> CpuTime:
    """Divide a precise total as the coarse accounts `user` out of `ticks` say (cputime_adjust)."""
    if not ticks or user >= ticks:
        return CpuTime(total, 0)
    user_part = total * user // ticks
    return CpuTime(user_part, total - user_part)


def pack_rusage(spent: CpuTime, peak_kib: int = 0, faults: int = 0) -> bytes:
    """Return a struct rusage."""
    times = [part for value in spent for part in divmod(value // 1000, 1_000_000)]
    return RUSAGE.pack(*times, peak_kib, 0, 0, 0, faults, *([0] * 9))


class Usage:
    """What the threads of a process have used."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.children = CpuTime()
        """What children waited for have used, with their own children's."""
        self._dead = CpuTime()
        self._counted: set[Thread] = set()

    def total(self) -> int:
        """Return the process's time without its parts, which is quicker. Requires: kernel.lock."""
        living = (thread for thread in self._process.threads.values() if thread not in self._counted)
        return self._dead.total + sum(thread_total(thread) for thread in living)

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

    def all_time(self) -> CpuTime:
        """Return the process's time with that of the children it waited for. Requires: kernel.lock."""
        return self.time().plus(self.children)

    def child_reaped(self, child: "Usage") -> None:
        """Take over what a child that was waited for has used. Requires: kernel.lock."""
        self.children = self.children.plus(child.all_time())
