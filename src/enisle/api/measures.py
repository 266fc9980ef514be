"""What the API counts of itself. One event loop owns it."""

import bisect
import time
from collections import defaultdict

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """How long things took, in the buckets of `BOUNDS_S`."""

    __slots__ = ("buckets", "count", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.count, self.total_s = 0, 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect.bisect_left(BOUNDS_S, seconds)] += 1
        self.count += 1
        self.total_s += seconds


class Measures:
    """Requests by operation and status, readers of streams, what was dropped."""

    def __init__(self) -> None:
        self.started = time.time()
        self.requests: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        self.answers: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self.readers = self.dropped = self.events = 0

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one answer of the operation `method` `path` (as the table says it, not as it was asked)."""
        self.requests[method, path].add(seconds)
        self.answers[method, path, status] += 1
