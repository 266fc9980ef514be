"""A terminal for one command, seen from the SDK: our side of a pseudoterminal pair of the host (pty(7)).

The host's line discipline edits lines, echoes and flushes; nobody there has the pair as a controlling terminal, so what
typed characters and a new size mean as signals is returned to the caller, who tells the island. Any thread may use it.
"""

import fcntl
import os
import select
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
TIOCGPTPEER = 0x5441
SETTLING = 100


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


def first_signal(modes: list[Any], typed: bytes) -> int:
    """Return how many of the typed bytes end with the first that means a signal; all when none does."""
    places = [typed.find(character) + 1 for character in _signal_characters(modes)]
    return min((place for place in places if place), default=len(typed))


def _signal_characters(modes: list[Any]) -> dict[bytes, int]:
    """Return which characters mean which signals now; one that is switched off is 0 (_POSIX_VDISABLE of Linux)."""
    characters: list[bytes] = modes[6]
    local: int = modes[3]
    found = {characters[place]: signo for place, signo in SIGNALS.items() if local & termios.ISIG}
    return {character: signo for character, signo in found.items() if character != b"\0"}


def settle(ours: int, modes: list[Any]) -> None:
    """Return when the host's line discipline has seen to the character of a signal that was just typed.

    It flushes what is typed and shown (n_tty.c, `isig`), in a thread of its own: a signal that overtakes it has its
    answer, a shell's new prompt, flushed too. Nothing to read on the other side means that all was seen to
    (`n_tty_poll` waits for that thread first); what is there to read was typed before and is to be flushed anyway.
    """
    try:
        theirs = fcntl.ioctl(ours, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return  # hung up
    try:
        waiting = select.poll()
        waiting.register(theirs, select.POLLIN)
        for _ in range(SETTLING):
            if not waiting.poll(0) or modes[3] & termios.NOFLSH:
                return
            termios.tcflush(theirs, termios.TCIFLUSH)
    finally:
        os.close(theirs)


def meant_by(modes: list[Any], typed: bytes) -> tuple[int, ...]:
    """Return the signal that the last typed byte means under a terminal's modes."""
    signo = _signal_characters(modes).get(typed[-1:])
    return (signo,) if signo else ()


def end_of_input(modes: list[Any], at_line_begin: bool) -> bytes:
    """Return what to type so that a reader of lines finds the end: twice when a line has begun (termios(3), VEOF)."""
    end: bytes = modes[6][termios.VEOF]
    return end if at_line_begin else end * 2
