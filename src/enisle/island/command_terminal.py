"""A terminal for one command, seen from the SDK: our side of a pseudoterminal pair of the host (pty(7)).

The host's line discipline edits lines, echoes and flushes; nobody there has the pair as a controlling terminal, so what
typed characters and a new size mean as signals is returned to the caller, who tells the island. Any thread may use it.
"""

import fcntl
import os
import struct
import termios
from typing import Any

from enisle.errors import InvalidRequest

ROWS, COLUMNS = 24, 80
LARGEST = 1000
SIZE = struct.Struct("HHHH")
IUTF8 = 0o40000  # termios(3): erasing takes whole characters
SIGNALS = {termios.VINTR: 2, termios.VQUIT: 3, termios.VSUSP: 20}
"""SIGINT, SIGQUIT, SIGTSTP by the place of the character that means them."""
SIGWINCH = 28


def open_pair(rows: int, columns: int) -> tuple[int, int]:
    """Return (ours, the command's) of a new terminal. Raises InvalidRequest for a size no terminal has."""
    _require_size(rows, columns)
    ours, theirs = os.openpty()
    modes = termios.tcgetattr(ours)
    modes[0] |= IUTF8
    termios.tcsetattr(ours, termios.TCSANOW, modes)
    fcntl.ioctl(ours, termios.TIOCSWINSZ, SIZE.pack(rows, columns, 0, 0))
    return ours, theirs


def _require_size(rows: int, columns: int) -> None:
    if not (1 <= rows <= LARGEST and 1 <= columns <= LARGEST):
        raise InvalidRequest(f"a terminal cannot have {rows} rows of {columns}", f"1 to {LARGEST} of each", "24 of 80")


def resize(ours: int, rows: int, columns: int) -> tuple[int, ...]:
    """Change the size; return the signals to send: none when it is the same (tty_ioctl(4), TIOCSWINSZ)."""
    _require_size(rows, columns)
    wanted = SIZE.pack(rows, columns, 0, 0)
    before = fcntl.ioctl(ours, termios.TIOCGWINSZ, bytes(SIZE.size))
    fcntl.ioctl(ours, termios.TIOCSWINSZ, wanted)
    return (SIGWINCH,) if before != wanted else ()


def meant_by(modes: list[Any], typed: bytes) -> tuple[int, ...]:
    """Return the signals that typed bytes mean under a terminal's modes."""
    local: int = modes[3]
    characters: list[bytes] = modes[6]
    if not local & termios.ISIG:
        return ()
    # A character that is switched off is 0 (_POSIX_VDISABLE of Linux).
    return tuple(signo for place, signo in SIGNALS.items() if characters[place] != b"\0" and characters[place] in typed)


def end_of_input(modes: list[Any], at_line_begin: bool) -> bytes:
    """Return what to type so that a reader of lines finds the end: twice when a line has begun (termios(3), VEOF)."""
    end: bytes = modes[6][termios.VEOF]
    return end if at_line_begin else end * 2
