"""Open terminals: either side of a pseudoterminal, or the caller's own. The host's line discipline does the editing."""

import fcntl
import os
import select
import stat
from collections.abc import Sequence
from errno import EINVAL, EIO, ENOTTY, EPERM
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi import linux_tty as t
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile, gather
from enisle.kernel.paths import SyntheticNode
from enisle.kernel.terminal import Terminal, controlling_terminal, terminal_of

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

READS = {
    t.TCGETS: t.TERMIOS_SIZE,
    t.TCGETS2: t.TERMIOS2_SIZE,
    t.TIOCGWINSZ: t.WINSIZE_SIZE,
    t.TIOCOUTQ: 4,
    t.TIOCINQ: 4,
    t.TIOCGETD: 4,
    t.TIOCGPTN: 4,
    t.TIOCGPTLCK: 4,
}
"""Requests whose answer is the host's, with its size."""
CHANGES = {
    t.TCSETS: t.TERMIOS_SIZE,
    t.TCSETSW: t.TERMIOS_SIZE,
    t.TCSETSF: t.TERMIOS_SIZE,
    t.TCSETS2: t.TERMIOS2_SIZE,
    t.TCSETSW2: t.TERMIOS2_SIZE,
    t.TCSETSF2: t.TERMIOS2_SIZE,
}
"""Requests that a process in the background may not make."""
PASSED_VALUES = frozenset({t.TCSBRK, t.TCSBRKP, t.TCXONC, t.TCFLSH, t.TIOCEXCL, t.TIOCNXCL})
SETTLING = 100
TYPED_AT_ONCE = 4096
"""More than a terminal's input queue takes (N_TTY_BUF_SIZE)."""
SIGNAL_CHARACTERS = {t.VINTR: s.SIGINT, t.VQUIT: s.SIGQUIT, t.VSUSP: s.SIGTSTP}


def is_terminal(fd: int, rdev: int) -> bool:
    """Return whether a character device is a terminal or the multiplexer of pseudoterminals."""
    major = os.major(rdev)
    return major in t.PTS_MAJORS or (
        major in (t.TTY_MAJOR, t.TTYAUX_MAJOR) and (os.isatty(fd) or os.minor(rdev) == t.PTMX_MINOR)
    )


class TerminalFile(OpenFile):
    """A terminal the guest has opened or inherited."""

    kind = "terminal"
    seekable = False

    def __init__(self, fd: int, flags: int, path: bytes, terminal: Terminal, master: bool = False) -> None:
        super().__init__(fd, flags, path, blocking=True)
        self.terminal, self.master = terminal, master

    @classmethod
    def opened(cls, thread: "Thread", fd: int, flags: int, path: bytes, acquire: bool) -> OpenFile:
        """Return the file for a terminal just opened; `acquire`: a session leader without one may get it."""
        rdev = os.fstat(fd).st_rdev
        master = os.major(rdev) == t.TTYAUX_MAJOR and os.minor(rdev) == t.PTMX_MINOR
        if master:
            number = int.from_bytes(fcntl.ioctl(fd, t.TIOCGPTN, bytes(4)), "little")
            rdev = os.makedev(t.PTS_MAJORS[0], number)
            with thread.kernel.lock:
                thread.kernel.terminals.pop(rdev, None)  # the number may have been another pair's
        terminal = terminal_of(thread.kernel, rdev)
        if acquire and not master:
            with thread.kernel.lock:
                terminal.acquire(thread.process)
        return cls(fd, flags, path, terminal, master)

    def close(self) -> None:
        super().close()
        if self.master:
            self.terminal.disconnect()

    # ---- input and output ------------------------------------------------------------------------------------------

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        if self.master:
            return super().readv(thread, buffers)
        self.terminal.require_foreground(thread, s.SIGTTIN)
        return super().readv(thread, buffers)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        if not self.master:
            if self.terminal.session and self._modes()[3] & t.TOSTOP:
                self.terminal.require_foreground(thread, s.SIGTTOU)
            return super().writev(thread, buffers)
        typed = gather([buffers[0][:TYPED_AT_ONCE]] if buffers else [])
        written = self._type(typed)
        while 0 < written < len(typed) and (more := self._type_more(typed[written:])):
            written += more
        return written

    def _type_more(self, typed: bytes) -> int:
        try:
            return self._type(typed)
        except BlockingIOError:
            return 0

    def _modes(self) -> tuple[int, int, int, int, int, bytes]:
        return t.TERMIOS.unpack(fcntl.ioctl(self.fd, t.TCGETS, bytes(t.TERMIOS_SIZE)))

    def _type(self, typed: bytes) -> int:
        """Hand on what is typed at the master side, up to a character that means a signal, and send that.

        The host has nobody to send it to. It flushes the terminal for it, in a thread of its own, which is waited for:
        the answer to a signal that overtakes it, a shell's new prompt, would be flushed too (n_tty.c, `isig`).
        """
        modes, meant = self._signal_characters() if self.terminal.session else (0, {})
        ends = [typed.find(character) + 1 for character in meant]
        written = os.write(self.fd, typed[: min((end for end in ends if end), default=len(typed))])
        signo = meant.get(typed[written - 1 : written])
        if signo:
            self._settle(bool(modes & t.NOFLSH))
            with self.terminal.kernel.lock:
                self.terminal.signal(signo)
        return written

    def _signal_characters(self) -> tuple[int, dict[bytes, int]]:
        _, _, _, modes, _, characters = self._modes()
        if not modes & t.ISIG:
            return modes, {}
        places = [(characters[index : index + 1], signo) for index, signo in SIGNAL_CHARACTERS.items()]
        return modes, {character: signo for character, signo in places if character != b"\0"}

    def _settle(self, keeps: bool) -> None:
        """Return when nothing is left to read at the other side: `n_tty_poll` waits for the host's thread first."""
        try:
            peer = fcntl.ioctl(self.fd, t.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return  # the other side is locked, or hung up
        try:
            waiting = select.poll()
            waiting.register(peer, select.POLLIN)
            for _ in range(SETTLING):
                if not waiting.poll(0) or keeps:
                    return
                fcntl.ioctl(peer, t.TCFLSH, t.TCIFLUSH)  # typed before the signal: the host flushes it, too
        finally:
            os.close(peer)

    # ---- ioctl -----------------------------------------------------------------------------------------------------

    def ioctl(self, thread: "Thread", request: int, argument: int) -> int:
        terminal, mm = self.terminal, thread.mm
        if request in READS:
            mm.write(argument, fcntl.ioctl(self.fd, request, bytes(READS[request])))
        elif request in CHANGES:
            self._require_foreground(thread)
            fcntl.ioctl(self.fd, request, mm.read(argument, CHANGES[request]))
        elif request in PASSED_VALUES:
            self._require_foreground(thread)
            fcntl.ioctl(self.fd, request, argument & 0xFFFF_FFFF)
        elif request in (t.TIOCSPTLCK, t.TIOCPKT):
            fcntl.ioctl(self.fd, request, mm.read(argument, 4))
        elif request == t.TIOCSWINSZ:
            self._set_window(mm.read(argument, t.WINSIZE_SIZE))
        elif request == t.TIOCGPGRP:
            mm.write_u32(argument, self._front(thread))
        elif request == t.TIOCSPGRP:
            pgid = int.from_bytes(mm.read(argument, 4), "little", signed=True)
            terminal.set_foreground(thread, pgid)
        elif request == t.TIOCGSID:
            mm.write_u32(argument, terminal.session_id(thread))
        elif request == t.TIOCSCTTY:
            terminal.set_controlling(thread, steal=argument == 1)
        elif request == t.TIOCNOTTY:
            terminal.give_up(thread)
        elif request == t.TIOCGPTPEER:
            return self._open_peer(thread, argument)
        else:
            raise LinuxError(EPERM if request == t.TIOCSTI else ENOTTY if request >> 8 & 0xFF != 0x54 else EINVAL)
        return 0

    def _require_foreground(self, thread: "Thread") -> None:
        if not self.master:
            self.terminal.require_foreground(thread, s.SIGTTOU)

    def _front(self, thread: "Thread") -> int:
        if self.master:
            return self.terminal.session.foreground if self.terminal.session else 0
        return self.terminal.foreground(thread)

    def _set_window(self, size: bytes) -> None:
        before = fcntl.ioctl(self.fd, t.TIOCGWINSZ, bytes(t.WINSIZE_SIZE))
        fcntl.ioctl(self.fd, t.TIOCSWINSZ, size)
        if before != size:
            with self.terminal.kernel.lock:
                self.terminal.signal(s.SIGWINCH)

    def _open_peer(self, thread: "Thread", flags: int) -> int:
        if not self.master:
            raise LinuxError(EIO)
        wanted = (flags & (os.O_ACCMODE | os.O_NONBLOCK)) | os.O_NOCTTY
        peer = fcntl.ioctl(self.fd, t.TIOCGPTPEER, wanted | os.O_NONBLOCK | os.O_CLOEXEC)
        path = b"/dev/pts/%d" % os.minor(self.terminal.rdev)
        file = TerminalFile.opened(thread, peer, flags & ~os.O_CLOEXEC, path, acquire=not flags & os.O_NOCTTY)
        return thread.files.add(file, bool(flags & os.O_CLOEXEC))


class ControllingTerminal(SyntheticNode):
    """/dev/tty: whatever the opener's session has as its terminal."""

    mode = stat.S_IFCHR | 0o666
    rdev = os.makedev(5, 0)
    inode = 5
    name = b"tty"

    def open(self, thread: "Thread", flags: int) -> OpenFile:
        terminal = controlling_terminal(thread)
        for other in list(thread.kernel.threads.values()):
            for _, file in other.files.items():
                if isinstance(file, TerminalFile) and file.terminal is terminal and not file.master:
                    return TerminalFile(os.dup(file.fd), flags, b"/dev/tty", terminal)
        fd = os.open(b"/dev/pts/%d" % os.minor(terminal.rdev), flags & os.O_ACCMODE | os.O_NONBLOCK | os.O_NOCTTY)
        return TerminalFile(fd, flags, b"/dev/tty", terminal)
