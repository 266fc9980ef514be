"""What an island has done so far: one record for `--stats`, the SDK and the tests."""

import time
from collections import Counter
from typing import TYPE_CHECKING

from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.thread import Thread


class KernelStatistics(Record):
    """Counters of an island; times in seconds, sizes in bytes."""

    syscalls: int
    syscalls_without_exit: int
    """Served through a call slot."""
    exits_by_kind: dict[str, int]
    faults: int
    guest_seconds: float
    """Spent in guests; measured when asked for (`KernelConfig.timing`)."""
    kernel_seconds: float
    """Processor time of the island that was not spent in guests."""
    processes_started: int
    unknown_syscalls: dict[int, int]


class Totals:
    """What ended threads have done, and what is not a thread's. Requires: kernel.lock."""

    def __init__(self) -> None:
        self.syscalls = self.faults = self.guest_ns = self.started = 0
        self.exits: Counter[str] = Counter()
        self.unknown: Counter[int] = Counter()

    def add(self, thread: "Thread") -> None:
        """Take over the counters of a thread that has ended."""
        self.syscalls += thread.syscalls
        self.guest_ns += thread.guest_ns
        self.exits += thread.exits
        if not thread.mm.users:
            self.faults += thread.mm.faults

    def record(self, kernel: "Kernel") -> KernelStatistics:
        """Return the sum of ended and living threads."""
        threads = list(kernel.threads.values())
        spaces = {id(thread.mm): thread.mm for thread in threads}
        calls = self.syscalls + sum(thread.syscalls for thread in threads)
        exits = sum((thread.exits for thread in threads), self.exits)
        exits["Syscall"] = calls - kernel.poller.served
        guest = (self.guest_ns + sum(thread.guest_ns for thread in threads)) / 1e9
        return KernelStatistics(
            calls,
            kernel.poller.served,
            dict(exits),
            self.faults + sum(mm.faults for mm in spaces.values()),
            guest,
            max(0.0, time.process_time() - guest),
            self.started,
            dict(self.unknown),
        )
