"""What a process does with its signals (`struct sighand_struct`), and a thread's alternate signal stack."""

from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.process import Process


class SigAction(Record):
    """struct sigaction as the kernel keeps it."""

    handler: int = s.SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


DEFAULT = SigAction()


class SignalHandlers:
    """The 64 actions of a process; shared after clone(CLONE_SIGHAND)."""

    __slots__ = ("actions",)

    def __init__(self) -> None:
        self.actions = [DEFAULT] * (s.NSIG + 1)

    def __getitem__(self, signo: int) -> SigAction:
        return self.actions[signo]

    def __setitem__(self, signo: int, action: SigAction) -> None:
        self.actions[signo] = action

    def clone(self) -> "SignalHandlers":
        copy = SignalHandlers()
        copy.actions = list(self.actions)
        return copy

    def reset_for_exec(self) -> None:
        """Put every caught signal back to its default; ignored ones stay ignored (execve(2))."""
        self.actions = [DEFAULT if action.handler != s.SIG_IGN else SigAction(s.SIG_IGN) for action in self.actions]

    def for_exec(self) -> "SignalHandlers":
        """Return the actions a new program starts with, shared with nobody."""
        copy = self.clone()
        copy.reset_for_exec()
        return copy

    def ignores(self, signo: int) -> bool:
        """Return whether the signal has no effect, by choice or by default."""
        handler = self.actions[signo].handler
        return handler == s.SIG_IGN or (handler == s.SIG_DFL and bool(s.IGNORED_BY_DEFAULT & s.bit(signo)))

    def masks(self) -> tuple[int, int]:
        """Return the sets of ignored and of caught signals, as /proc/PID/status prints them."""
        ignored = caught = 0
        for signo in range(1, s.NSIG + 1):
            handler = self.actions[signo].handler
            if handler == s.SIG_IGN:
                ignored |= s.bit(signo)
            elif handler != s.SIG_DFL:
                caught |= s.bit(signo)
        return ignored, caught


class AltStack(Record):
    """sigaltstack(2): where handlers with SA_ONSTACK run; none when `size` is 0."""

    sp: int = 0
    size: int = 0
    flags: int = 0

    def holds(self, sp: int) -> bool:
        return self.sp < sp <= self.sp + self.size

    def is_active(self, sp: int) -> bool:
        """Return whether a program with this stack pointer is on it; one that disarms itself never is."""
        return not self.flags & s.SS_AUTODISARM and self.holds(sp)

    def state(self, sp: int) -> int:
        """Return SS_DISABLE, SS_ONSTACK or 0."""
        if not self.size:
            return s.SS_DISABLE
        return s.SS_ONSTACK if self.is_active(sp) else 0


DISARMED = AltStack(0, 0, s.SS_DISABLE)


def wants_children(process: "Process") -> bool:
    """Return whether ended children wait to be waited for."""
    action = process.handlers[s.SIGCHLD]
    return action.handler != s.SIG_IGN and not action.flags & s.SA_NOCLDWAIT


def ignores_stops(process: "Process") -> bool:
    """Return whether the process wants no SIGCHLD for stopped and continued children."""
    action = process.handlers[s.SIGCHLD]
    return action.handler == s.SIG_IGN or bool(action.flags & s.SA_NOCLDSTOP)
