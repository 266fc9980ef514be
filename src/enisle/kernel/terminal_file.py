"""An open terminal: the host's line discipline does the work, requests that are the host's alone pass through."""

import fcntl
import os
from errno import EINVAL, ENOTTY
from typing import TYPE_CHECKING

from enisle.abi import linux_fs as fs
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

PTMX_MINOR, TTY_MAJOR, TTYAUX_MAJOR, PTS_MAJORS = 2, 4, 5, range(136, 144)
READS = {fs.TCGETS: fs.TERMIOS_SIZE, fs.TIOCGWINSZ: fs.WINSIZE_SIZE}
WRITES = {
    fs.TCSETS: fs.TERMIOS_SIZE,
    fs.TCSETSW: fs.TERMIOS_SIZE,
    fs.TCSETSF: fs.TERMIOS_SIZE,
    fs.TIOCSWINSZ: fs.WINSIZE_SIZE,
}


def is_terminal(fd: int, rdev: int) -> bool:
    """Return whether a character device is a terminal or the multiplexer of pseudoterminals."""
    major = os.major(rdev)
    return major in PTS_MAJORS or (major in (TTY_MAJOR, TTYAUX_MAJOR) and (os.isatty(fd) or os.minor(rdev) == 2))


class TerminalFile(OpenFile):
    """A terminal the guest has opened or inherited."""

    kind = "terminal"
    seekable = False

    @classmethod
    def opened(cls, thread: "Thread", fd: int, flags: int, path: bytes, acquire: bool) -> OpenFile:
        """Return the file for a terminal just opened; `acquire`: a session leader without one may get it."""
        del thread, acquire
        return cls(fd, flags, path, blocking=True)

    def ioctl(self, thread: "Thread", request: int, argument: int) -> int:
        if request in READS:
            thread.mm.write(argument, fcntl.ioctl(self.fd, request, bytes(READS[request])))
            return 0
        if request in WRITES:
            fcntl.ioctl(self.fd, request, thread.mm.read(argument, WRITES[request]))
            return 0
        raise LinuxError(ENOTTY if request >> 8 != 0x54 else EINVAL)
