"""A program on a pseudoterminal, as one who sits in front of it sees it: what is shown, who is in front, which modes.

What is typed too early is lost, or means something else, as it is for a person: tests wait for a state that is seen
(`expect`, `wait_for`), never for time.
"""

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable

import pytest

from commandline import ENISLE

PATIENCE_SECONDS = 30.0
"""Until something that should happen soon is given up, on a host that is busy with other things."""


class OnTerminal:
    """A command (of ours, when no other program is named) on a pseudoterminal."""

    def __init__(self, *words: str, program: str = ENISLE) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(program, [program, *words])
        self.resize(24, 80)
        self.seen = b""

    def expect(self, text: bytes) -> None:
        """Read until `text` is seen; what comes behind it is kept for the next time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self.fd], [], [], left)[0]:
                pytest.fail(f"no {text!r} in {self.seen!r}")
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:
                pytest.fail(f"ended without {text!r} in {self.seen!r}")
        self.seen = self.seen.split(text, 1)[1]

    def wait_for(self, state: Callable[[], bool]) -> None:
        """Look until `state()` holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not state():
            if time.monotonic() > deadline:
                pytest.fail(f"never seen: {state.__name__}; {self.seen=}, modes {termios.tcgetattr(self.fd)}")
            time.sleep(0.005)

    def takes_lines(self) -> bool:
        """Whether the terminal edits lines (ICANON): a shell's own line editor turns that off while it prompts.

        Behind a prompt, what is typed now goes to the command, and Return ends a line. In front of it, Return would
        reach the command as a carriage return (ICRNL is off then too) and its line would never end.
        """
        return bool(termios.tcgetattr(self.fd)[3] & termios.ICANON)

    def is_behind_a_job(self) -> bool:
        """Whether the program, a shell with job control, has given the terminal to a job."""
        return self.takes_lines() and os.tcgetpgrp(self.fd) != self.pid

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def end(self) -> int:
        """Return the exit code."""
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass  # EIO: the last one closed it
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
