"""The host's terminal and signals while a program of an island uses them.

Promises: the terminal's modes are what they were when the command began, however it ends short of SIGKILL.
Owned by the main thread, which is the one that runs Python's signal handlers.
"""

import os
import signal
import termios
from types import FrameType, TracebackType
from typing import Any, Protocol

FORWARDED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT)
"""What a terminal, or the shell that owns it, sends to the group in front of it."""
ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What asks us to end: the programs get it first; asked twice, they are killed."""


class SignalTarget(Protocol):
    """What of the kernel is used here."""

    def signal_terminal(self, signo: int) -> None: ...
    def kill(self, signo: int) -> None: ...
    def window_changed(self) -> None: ...


class Terminal:
    """Keeps the modes of the terminal on standard input, if it is one."""

    def __init__(self) -> None:
        self._modes: list[Any] | None = None

    def __enter__(self) -> "Terminal":
        self._modes = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(self._modes)

    def stop_with(self, signo: int) -> None:
        """Stop this process as its only program was stopped, until the shell continues it."""
        modes = self._read()
        self._write(self._modes)
        previous = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # SIGTTIN and SIGTTOU leave us stopped just as well; SIGSTOP cannot be ignored by an orphaned group.
        os.kill(os.getpid(), signal.SIGTSTP if signo == signal.SIGTSTP else signal.SIGSTOP)
        signal.signal(signal.SIGTSTP, previous)
        self._write(modes)

    def _read(self) -> list[Any] | None:
        try:
            return termios.tcgetattr(0)
        except termios.error:
            return None

    def _write(self, modes: list[Any] | None) -> None:
        if modes is None:
            return
        # From the background tcsetattr would stop us (termios(3)); then the modes are not ours to change.
        previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            if os.tcgetpgrp(0) == os.getpgrp():
                termios.tcsetattr(0, termios.TCSADRAIN, modes)
        except (OSError, termios.error):
            pass  # the terminal is gone
        signal.signal(signal.SIGTTOU, previous)


def forward_signals(target: SignalTarget) -> None:
    """Hand the host's signals to the programs of the island from now on. Requires: the main thread."""

    def forward(signo: int, _frame: FrameType | None) -> None:
        target.signal_terminal(signo)

    asked: list[int] = []

    def end(signo: int, _frame: FrameType | None) -> None:
        if asked:
            target.kill(signal.SIGKILL)
        else:
            target.signal_terminal(signo)
        asked.append(signo)

    def resize(_signo: int, _frame: FrameType | None) -> None:
        target.window_changed()

    handlers = dict.fromkeys(FORWARDED, forward) | dict.fromkeys(ENDING, end)
    for signo, handler in handlers.items():
        # What our caller made us ignore (nohup, a background job of a script) its program would ignore too.
        if signal.getsignal(signo) is not signal.SIG_IGN:
            signal.signal(signo, handler)
    signal.signal(signal.SIGWINCH, resize)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # our own writes answer EPIPE; the guest's SIGPIPE is its kernel's
