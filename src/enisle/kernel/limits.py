"""Resource limits of a process (getrlimit(2)), soft and hard."""

RLIM_INFINITY = (1 << 64) - 1
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE = range(8)
RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO = range(8, 15)
RLIMIT_RTTIME = 15
RLIMITS = 16


class ResourceLimits:
    """Sixteen (soft, hard) pairs."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs = [(RLIM_INFINITY, RLIM_INFINITY)] * RLIMITS
        self.pairs[RLIMIT_STACK] = (8 << 20, RLIM_INFINITY)
        self.pairs[RLIMIT_CORE] = (0, 0)
        self.pairs[RLIMIT_SIGPENDING] = (16_384, 16_384)
        self.pairs[RLIMIT_NOFILE] = (1024, 1 << 20)
        self.pairs[RLIMIT_MEMLOCK] = (8 << 20, 8 << 20)
        self.pairs[RLIMIT_MSGQUEUE] = (819_200, 819_200)
        self.pairs[RLIMIT_NICE] = self.pairs[RLIMIT_RTPRIO] = (0, 0)

    def clone(self) -> "ResourceLimits":
        copy = ResourceLimits()
        copy.pairs = list(self.pairs)
        return copy

    def soft(self, resource: int) -> int:
        return self.pairs[resource][0]
