"""What a guest thread was told about its scheduling: policy, priority, nice value, processors (sched(7)).

Kept and answered as Linux would; the host schedules the thread as any other of the island's. Guarded by kernel.lock.
"""

from enisle.abi import linux_priority as p

DEFAULT_SLACK_NS = 50_000
FAIR = (p.SCHED_NORMAL, p.SCHED_BATCH, p.SCHED_IDLE)
REAL_TIME = (p.SCHED_FIFO, p.SCHED_RR)


class Scheduling:
    """Attributes of one thread. `affinity` 0: every processor of the island."""

    __slots__ = (
        "affinity",
        "default_slack",
        "io_priority",
        "nice",
        "policy",
        "priority",
        "reset_on_fork",
        "timer_slack",
    )

    def __init__(
        self, policy: int = p.SCHED_NORMAL, priority: int = 0, nice: int = 0, reset_on_fork: bool = False
    ) -> None:
        self.policy, self.priority, self.nice, self.reset_on_fork = policy, priority, nice, reset_on_fork
        self.affinity = self.io_priority = 0
        self.timer_slack = self.default_slack = DEFAULT_SLACK_NS

    def inherited(self) -> "Scheduling":
        """Return what a new thread starts with (sched_fork)."""
        copy = Scheduling(self.policy, self.priority, self.nice, self.reset_on_fork)
        copy.affinity, copy.io_priority = self.affinity, self.io_priority
        copy.timer_slack = copy.default_slack = self.timer_slack
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


def processors_of(processors: int, nodes: int) -> tuple[int, ...]:
    """Return the masks of processors by node: equal shares, or one each where there are fewer processors."""
    masks = [0] * nodes
    for number in range(processors):
        masks[number * nodes // processors if processors >= nodes else number] |= 1 << number
    return tuple(masks)
