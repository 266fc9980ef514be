"""When which timer rings: a queue without a clock, and a timer's own arithmetic. Time is an argument, in ns."""

from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class TimerQueue(Generic[T]):
    """Entries by due time; setting an entry again replaces its time."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._due: dict[T, tuple[int, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._due)

    def set(self, entry: T, due: int | None) -> None:
        """Let `entry` ring at `due`, or not at all."""
        self._due.pop(entry, None)
        if due is not None:
            self._count += 1
            self._due[entry] = due, self._count
            heappush(self._heap, (due, self._count, entry))
        if len(self._heap) > 64 + 4 * len(self._due):
            self._heap = sorted((due, number, entry) for entry, (due, number) in self._due.items())

    def next_due(self) -> int | None:
        """Return when the next entry rings."""
        while self._heap:
            due, number, entry = self._heap[0]
            if self._due.get(entry) == (due, number):
                return due
            heappop(self._heap)
        return None

    def take_due(self, now: int) -> list[T]:
        """Remove and return the entries that are due, earliest first."""
        taken: list[T] = []
        while (due := self.next_due()) is not None and due <= now:
            entry = heappop(self._heap)[2]
            del self._due[entry]
            taken.append(entry)
        return taken


class Countdown:
    """One timer: when it expires by its own clock, and how often from then on. 0 for `expires`: disarmed."""

    __slots__ = ("expires", "interval")

    def __init__(self, expires: int = 0, interval: int = 0) -> None:
        self.expires, self.interval = expires, interval

    def left(self, now: int) -> int:
        """Return the time to the next expiration; at least 1 while armed, 0 when not."""
        return max(1, self.expires - now) if self.expires else 0

    def take(self, now: int) -> int:
        """Return how often the timer has expired up to `now`, and set it to its next expiration or disarm it."""
        if not self.expires or self.expires > now:
            return 0
        if not self.interval:
            self.expires = 0
            return 1
        count = 1 + (now - self.expires) // self.interval
        self.expires += count * self.interval
        return count
