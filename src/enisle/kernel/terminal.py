"""Controlling terminals and job control (tty_ioctl(4), credentials(7)).

The host's line discipline edits lines and echoes; who is in front of a terminal, and who gets its signals, is known
only here, because to the host all guest processes are one. State is guarded by `kernel.lock`.
"""

from errno import EINVAL, EIO, ENOTTY, ENXIO, EPERM, ESRCH
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi.linux import ERESTARTSYS
from enisle.abi.types import Pid
from enisle.errors import LinuxError
from enisle.kernel import signals

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.process import Process, Session
    from enisle.kernel.thread import Thread


class Terminal:
    """One terminal (the slave side of a pair, or the caller's own), by its host device number."""

    def __init__(self, kernel: "Kernel", rdev: int, inherited: bool) -> None:
        self.kernel, self.rdev = kernel, rdev
        self.inherited = inherited
        """It is the terminal of the island's caller: the host's signals come from there."""
        self.session: Session | None = None

    # ---- who has it ----------------------------------------------------------------------------------------------

    def acquire(self, process: "Process") -> bool:
        """Make it the controlling terminal of a session leader without one. Requires: kernel.lock."""
        session = process.session
        if session.sid != process.pid or session.terminal or self.session:
            return False
        self._give_to(session, process.pgid)
        return True

    def _give_to(self, session: "Session", foreground: Pid) -> None:
        self.session, session.terminal = session, self
        session.foreground = foreground

    def set_controlling(self, thread: "Thread", steal: bool) -> None:
        """TIOCSCTTY."""
        process = thread.process
        with self.kernel.lock:
            session = process.session
            if session.sid == process.pid and self.session is session:
                return
            if session.sid != process.pid or session.terminal:
                raise LinuxError(EPERM)
            if self.session:
                if not steal or process.credentials.euid:
                    raise LinuxError(EPERM)
                self.session.terminal = None
            self._give_to(session, process.pgid)

    def give_up(self, thread: "Thread") -> None:
        """TIOCNOTTY: a leader's leaving hangs the foreground group up."""
        process = thread.process
        with self.kernel.lock:
            if process.session.terminal is not self:
                raise LinuxError(ENOTTY)
            if process.session.sid == process.pid:
                self.hang_up(process)

    def hang_up(self, leader: "Process") -> None:
        """The session loses its terminal; who is in front is told. Requires: kernel.lock."""
        session = leader.session
        self.signal(s.SIGHUP)
        self.signal(s.SIGCONT)
        session.terminal = self.session = None

    def disconnect(self) -> None:
        """The other side of the pair is gone for good."""
        with self.kernel.lock:
            session = self.session
            leader = self.kernel.processes_by_pid.get(session.sid) if session else None
            if leader and not leader.zombie:
                for signo in (s.SIGHUP, s.SIGCONT):
                    signals.send_to_process(leader, signo, signals.kernel_info(signo))
            if leader:
                self.hang_up(leader)

    # ---- who is in front -------------------------------------------------------------------------------------------

    def signal(self, signo: int) -> None:
        """Send a signal to the foreground group. Requires: kernel.lock."""
        if self.session:
            self.kernel.kill_group(self.session.foreground, signo)

    def foreground(self, thread: "Thread") -> int:
        """TIOCGPGRP."""
        if self.session is None or thread.process.session is not self.session:
            raise LinuxError(ENOTTY)
        return self.session.foreground

    def set_foreground(self, thread: "Thread", pgid: int) -> None:
        """TIOCSPGRP."""
        session = self.session
        if session is None or thread.process.session is not session:
            raise LinuxError(ENOTTY)
        self.require_foreground(thread, s.SIGTTOU)
        if pgid < 0:
            raise LinuxError(EINVAL)
        with self.kernel.lock:
            members = [p for p in self.kernel.processes_by_pid.values() if p.pgid == pgid]
            if not members:
                raise LinuxError(ESRCH)
            if all(member.session is not session for member in members):
                raise LinuxError(EPERM)
            session.foreground = Pid(pgid)

    def session_id(self, thread: "Thread") -> int:
        """TIOCGSID."""
        if self.session is None or thread.process.session is not self.session:
            raise LinuxError(ENOTTY)
        return self.session.sid

    def require_foreground(self, thread: "Thread", signo: int) -> None:
        """Stop a background process that uses its terminal (`__tty_check_change`, `job_control` of Linux).

        Raises ERESTARTSYS after sending `signo`, EIO where nobody could ever continue the group.
        """
        process = thread.process
        with self.kernel.lock:
            session = self.session
            if session is None or process.session is not session or process.pgid == session.foreground:
                return
            shielded = thread.blocked & s.bit(signo) or process.handlers.ignores(signo)
            if shielded:
                if signo == s.SIGTTIN:
                    raise LinuxError(EIO)
                return
            if signals.is_orphaned(process):
                raise LinuxError(EIO)
            self.kernel.kill_group(process.pgid, signo)
        raise LinuxError(ERESTARTSYS)


def terminal_of(kernel: "Kernel", rdev: int, inherited: bool = False) -> Terminal:
    """Return the terminal with a host device number, known from its first use on.

    Numbers of the caller's terminals are of another devpts than the guest's own (`newinstance`): they may be the same.
    """
    key = -1 - rdev if inherited else rdev
    with kernel.lock:
        if key not in kernel.terminals:
            kernel.terminals[key] = Terminal(kernel, rdev, inherited)
        return kernel.terminals[key]


def controlling_terminal(thread: "Thread") -> Terminal:
    """Return what /dev/tty means to the thread. Raises ENXIO."""
    terminal = thread.process.session.terminal
    if terminal is None:
        raise LinuxError(ENXIO)
    return terminal
