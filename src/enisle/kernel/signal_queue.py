"""Signals that wait: a set of numbers and a queue of what they carry (`struct sigpending`). Guarded by kernel.lock."""

from collections.abc import Callable

from enisle.abi import linux_signal as s
from enisle.kernel.signal_info import SigInfo


class PendingSignals:
    """Signals sent to a thread or to a process and not taken yet.

    A number may be in the set without an entry in the queue: its details were lost at the limit, as on Linux.
    """

    __slots__ = ("mask", "queue", "watchers")

    def __init__(self) -> None:
        self.mask = 0
        self.watchers: list[Callable[[], None]] = []
        """Told by `ring` when signals of the process come or go: its signalfds."""
        self.queue: list[SigInfo] = []

    def add(self, info: SigInfo, keep: bool = True) -> None:
        """Mark the signal as pending; `keep` what it carries."""
        self.mask |= s.bit(info.signo)
        if keep:
            info.queued = True
            self.queue.append(info)

    def next(self, blocked: int) -> int:
        """Return the signal to take next, 0 when all are blocked: exceptions first, then the lowest number."""
        ready = self.mask & ~blocked
        if not ready:
            return 0
        ready = ready & s.SYNCHRONOUS or ready
        return (ready & -ready).bit_length()

    def take(self, signo: int) -> SigInfo:
        """Take the oldest signal of this number out."""
        same = [info for info in self.queue if info.signo == signo]
        if len(same) <= 1:
            self.mask &= ~s.bit(signo)
        if not same:
            return SigInfo(signo, s.SI_USER, s.SIGINFO_KILL.pack(0, 0))
        self.queue.remove(same[0])
        return self._taken(same[0])

    def find_synchronous(self, blocked: int) -> SigInfo | None:
        """Take the first exception of the thread itself out of the queue, if one waits."""
        if not self.mask & s.SYNCHRONOUS & ~blocked:
            return None
        for info in self.queue:
            if info.synchronous and not blocked & s.bit(info.signo):
                self.queue.remove(info)
                info.queued = False
                if not any(other.signo == info.signo for other in self.queue):
                    self.mask &= ~s.bit(info.signo)
                return info
        return None

    def discard(self, mask: int) -> None:
        """Forget the signals in `mask`."""
        if self.mask & mask:
            self.mask &= ~mask
            for info in self.queue:
                if mask & s.bit(info.signo):
                    info.queued = False
            self.queue = [info for info in self.queue if info.queued]

    def ring(self) -> None:
        """Tell the watchers that something has changed."""
        for watcher in list(self.watchers):
            watcher()

    def clear(self) -> None:
        self.discard(s.ALL_SIGNALS)

    @staticmethod
    def _taken(info: SigInfo) -> SigInfo:
        """Return what to report; a timer's signal gets the overrun count of this moment."""
        info.queued = False
        if info.timer is None:
            return info
        overrun = info.timer.signal_taken()
        timer_id, _, value = s.SIGINFO_TIMER.unpack_from(info.words)
        return SigInfo(info.signo, info.code, s.SIGINFO_TIMER.pack(timer_id, min(overrun, 0x7FFF_FFFF), value))
