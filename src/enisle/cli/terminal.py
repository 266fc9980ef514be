"""The host's terminal and signals while a program of an island uses them.

Promises: the terminal's modes are what they were when the command began, however it ends short of SIGKILL; a program
that is continued finds the modes it stopped with.
`Terminal` is entered and left by the main thread; the thread of `SignalForwarder` waits for signals, stops, continues.
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
ASKED = signal.SIGCHLD
"""Tells the forwarding thread that the program has stopped; from anybody else it means nothing to us."""


class SignalTarget(Protocol):
    """What of the kernel is used here."""

    def signal_terminal(self, signo: int) -> None: ...
    def kill(self, signo: int) -> None: ...
    def window_changed(self) -> None: ...


class Program(Protocol):
    """What of the program is looked at: the signal that stopped it or 0, and whether its end is decided."""

    @property
    def stopped(self) -> int: ...
    @property
    def exiting(self) -> bool: ...


class Terminal:
    """Keeps the modes of the terminal on standard input, if it is one."""

    def __init__(self) -> None:
        self._modes: list[Any] | None = None
        self._lock = threading.Lock()
        """Held while the modes are another's than the program's: the end waits for a stop that has begun."""

    def __enter__(self) -> "Terminal":
        self._modes = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the terminal the modes it had."""
        with self._lock:
            self._write(self._modes)

    @property
    def is_there(self) -> bool:
        """Whether standard input is one."""
        return self._modes is not None

    def stop_with(self, program: Program) -> None:
        """Stop this process as its only program was stopped, until it is continued; not when it has been already."""
        with self._lock:
            modes = self._read()
            self._write(self._modes)
            if program.stopped and not program.exiting:
                _stop(signal.SIGTSTP if program.stopped == signal.SIGTSTP else signal.SIGSTOP)
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
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            if _is_in_front():
                termios.tcsetattr(0, termios.TCSADRAIN, modes)
        except (OSError, termios.error):
            pass  # the terminal is gone
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _stop(signo: signal.Signals) -> None:
    """Stop before returning: a signal to this very thread does, one to the process may take another thread first.

    Not when SIGCONT waits already: the host forgets it when we stop (signal(7)), and nobody would send it again.
    """
    if signal.SIGCONT in signal.sigpending():
        return
    signal.raise_signal(signo)
    if signo == signal.SIGTSTP:
        # Let in only now: a second Ctrl-Z is taken with the first, and a SIGCONT in between undoes both.
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signo})
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


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
    signal.pthread_sigmask(signal.SIG_BLOCK, held | {ASKED})
    return held


class SignalForwarder:
    """Hands what is held to the programs of the island as it comes, and stops this process with its program.

    A thread waits for it: a Python handler runs in the main thread only, and not at all while that waits for a lock it
    was about to take when the signal came (drop_gil of CPython may sleep between its last look and the wait).
    The same thread stops and is continued, so a program never runs again before its modes are back in place.
    """

    def __init__(self, held: frozenset[signal.Signals], target: SignalTarget, terminal: Terminal) -> None:
        """Begin. `held`: what `hold_signals` returned."""
        self._awaited = held | {ASKED}
        self._target, self._terminal = target, terminal
        self._stopped: Program | None = None
        self._asked_to_end = False
        self._thread = threading.Thread(target=self._forward, name="signals", daemon=True)
        self._thread.start()

    def stop_with(self, program: Program) -> None:
        """Stop this process as its only program was stopped, and continue it with this process. Returns at once."""
        self._stopped = program
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, ASKED)

    def _forward(self) -> None:
        while True:
            signo = signal.sigwait(self._awaited)
            if signo == ASKED:
                self._stop()
            elif signo == signal.SIGWINCH:
                self._target.window_changed()
            elif signo in ENDING and self._asked_to_end:
                self._target.kill(signal.SIGKILL)
            else:
                self._asked_to_end = self._asked_to_end or signo in ENDING
                self._target.signal_terminal(signo)

    def _stop(self) -> None:
        program, self._stopped = self._stopped, None
        if program is None or program.exiting or not program.stopped:
            return  # continued or killed meanwhile
        self._terminal.stop_with(program)
        signal.sigtimedwait({signal.SIGCONT}, 0)  # what continued us; the programs get theirs here, all of them, once
        self._target.kill(signal.SIGCONT)
