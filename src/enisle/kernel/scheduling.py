"""What a guest thread was told about its scheduling: policy, priority, nice value, processors (sched(7)).

Kept and answered as Linux would; the host schedules the thread as any other of the island's. Guarded by kernel.lock.
"""

from dataclasses import dataclass, replace

from enisle.abi import linux_priority as p

DEFAULT_SLACK_NS = 50_000
FAIR = (p.SCHED_NORMAL, p.SCHED_BATCH, p.SCHED_IDLE)
REAL_TIME = (p.SCHED_FIFO, p.SCHED_RR)


@dataclass(slots=True)
class Scheduling:
    """Attributes of one thread. `affinity` 0: every processor of the island."""

    policy: int = p.SCHED_NORMAL
    priority: int = 0
    nice: int = 0
    reset_on_fork: bool = False
    affinity: int = 0
    io_priority: int = 0
    timer_slack: int = DEFAULT_SLACK_NS
    default_slack: int = DEFAULT_SLACK_NS

    def inherited(self) -> "Scheduling":
        """Return what a new thread starts with (sched_fork)."""
        copy = replace(self, default_slack=self.timer_slack)
        if self.reset_on_fork:
            copy.reset_on_fork = False
            if self.policy in REAL_TIME:
                copy.policy, copy.priority, copy.nice = p.SCHED_NORMAL, 0, 0
            copy.nice = max(0, copy.nice)
        return copy

    def processors(self, count: int) -> int:
        """Return the mask of the processors it may use, of `count` there are."""
        everyone = (1 << count) - 1
        return self.affinity & everyone or everyone
