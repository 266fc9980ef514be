"""What a signal carries: siginfo_t, made by whoever sends one (sigaction(2))."""

from typing import Protocol

from enisle.abi import linux_signal as s


class SignalTimer(Protocol):
    """A POSIX timer, told when its signal is taken so that it can count what it missed."""

    def signal_taken(self) -> int:
        """Return the overrun count to report with the signal; arms the timer again. Under kernel.lock."""
        ...


class SigInfo:
    """One siginfo_t. `fields` is the union from its 16th byte on.

    `timer`: the signal belongs to a timer, which sends the same object each time; `queued` tells whether it waits.
    """

    __slots__ = ("code", "errno", "fields", "queued", "signo", "timer")

    def __init__(self, signo: int, code: int, fields: bytes = b"", errno: int = 0) -> None:
        self.signo, self.code, self.fields, self.errno = signo, code, fields, errno
        self.timer: SignalTimer | None = None
        self.queued = False

    def __bytes__(self) -> bytes:
        return (s.SIGINFO_HEAD.pack(self.signo, self.errno, self.code) + self.fields).ljust(s.SIGINFO_SIZE, b"\0")

    def __repr__(self) -> str:
        return f"SigInfo({self.signo}, code={self.code}, {self.fields.hex()})"

    @property
    def synchronous(self) -> bool:
        """An exception of the thread itself: taken before anything else."""
        return self.code > s.SI_USER and bool(s.SYNCHRONOUS & s.bit(self.signo))

    @property
    def words(self) -> bytes:
        """The union at its full length, for decoding."""
        return self.fields.ljust(s.SIGINFO_SIZE - s.SIGINFO_HEAD.size, b"\0")

    @classmethod
    def decode(cls, signo: int, raw: bytes) -> "SigInfo":
        """Return what a guest has filled in for rt_sigqueueinfo; the number is the call's."""
        _, errno, code = s.SIGINFO_HEAD.unpack_from(raw)
        return cls(signo, code, raw[s.SIGINFO_HEAD.size : s.SIGINFO_SIZE], errno)


def user_info(signo: int, code: int, pid: int, uid: int) -> SigInfo:
    """kill, tkill, tgkill: who sent it."""
    return SigInfo(signo, code, s.SIGINFO_KILL.pack(pid, uid & 0xFFFF_FFFF))


def kernel_info(signo: int) -> SigInfo:
    """A signal of the kernel's own."""
    return SigInfo(signo, s.SI_KERNEL)


def child_info(signo: int, code: int, pid: int, uid: int, status: int, user: int = 0, system: int = 0) -> SigInfo:
    """A child ended, stopped or continued; times in clock ticks."""
    return SigInfo(signo, code, s.SIGINFO_CHILD.pack(pid, uid & 0xFFFF_FFFF, status, user, system))


def fault_info(signo: int, code: int, address: int) -> SigInfo:
    """A synchronous exception at `address`."""
    return SigInfo(signo, code, s.SIGINFO_FAULT.pack(address))


def timer_info(signo: int, timer_id: int, value: int, timer: SignalTimer) -> SigInfo:
    """The signal of a POSIX timer; keep it and send it again, unless it is still `queued`."""
    filled = SigInfo(signo, s.SI_TIMER, s.SIGINFO_TIMER.pack(timer_id, 0, value & (1 << 64) - 1))
    filled.timer = timer
    return filled


def poll_info(signo: int, code: int, band: int, fd: int) -> SigInfo:
    """Readiness of a descriptor with O_ASYNC."""
    return SigInfo(signo, code, s.SIGINFO_POLL.pack(band, fd))
