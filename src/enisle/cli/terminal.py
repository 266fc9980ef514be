"""The host's terminal and signals while a program of an island uses them.

Promises: the terminal's modes are what they were when the command began, however it ends short of SIGKILL.
Owned by the main thread; a thread of its own waits for signals.
"""

import os
import signal
import termios
import threading
from types import TracebackType
from typing import Any, Protocol

FORWARDED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT)
"""What a terminal, or the shell that owns it, sends to the group in front of it."""
ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What asks us to end: the programs get it first; asked twice, they are killed."""
HEEDED = (*FORWARDED, *ENDING, signal.SIGWINCH)


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

    @property
    def is_there(self) -> bool:
        """Whether standard input is one."""
        return self._modes is not None

    def stop_with(self, signo: int) -> None:
        """Stop this process as its only program was stopped, until the shell continues it."""
        modes = self._read()
        self._write(self._modes)
        if signo == signal.SIGTSTP:
            blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
            signal.raise_signal(signal.SIGTSTP)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        else:
            os.kill(os.getpid(), signal.SIGSTOP)
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
            if _is_in_front():
                termios.tcsetattr(0, termios.TCSADRAIN, modes)
        except (OSError, termios.error):
            pass  # the terminal is gone
        signal.signal(signal.SIGTTOU, previous)


def _is_in_front() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal: there is no background of it


def hold_signals() -> frozenset[signal.Signals]:
    """Keep the host's signals pending from now on; return which. Requires: no other thread yet, they inherit it.

    What our caller made us ignore (nohup, a background job of a script) is left out: its program would ignore it too.
    """
    held = frozenset(signo for signo in HEEDED if signal.getsignal(signo) is not signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    return held


def forward_signals(held: frozenset[signal.Signals], target: SignalTarget) -> None:
    """Hand what is held to the programs of the island, as it comes.

    A thread waits for it: a Python handler runs in the main thread only, and not at all while that waits for a lock it
    was about to take when the signal came (drop_gil of CPython may sleep between its last look and the wait).
    """
    threading.Thread(target=_forward, args=(held, target), name="signals", daemon=True).start()


def _forward(held: frozenset[signal.Signals], target: SignalTarget) -> None:
    asked_to_end = False
    while True:
        signo = signal.sigwait(held)
        if signo == signal.SIGWINCH:
            target.window_changed()
        elif signo in ENDING and asked_to_end:
            target.kill(signal.SIGKILL)
        else:
            asked_to_end = asked_to_end or signo in ENDING
            target.signal_terminal(signo)
