"""Waiting for a task as all verbs do: drawn on a terminal, told by whom it is blocked, left by Ctrl-C.

Leaving does not end the task. A platform that does not answer for a while is asked again.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

from enisle.cli.output import mutter
from enisle.cli.reach import NO_QUERY, Door, Query, Unreachable
from enisle.cli.task_drawing import ENDED, WHEEL, Json, fit, holder_id, line
from enisle.errors import HostError, NotFound

QUICK = (0.05, 0.05, 0.1)
"""Seconds between the first looks; most tasks end, or are told what blocks them, within these."""
LOOK_S, IDLE_S, LONGEST_S = 0.2, 2.0, 25.0
"""Between looks of one who draws, who waits for news of a holder, who only waits for the end (which ends a look)."""
DRAWN_AFTER_S = 0.3
PATIENCE_S = 30.0
LEFT = 128 + signal.SIGINT


class Screen:
    """The line at the bottom of a terminal (standard error), or a note now and then where there is none."""

    def __init__(self, quiet: bool = False) -> None:
        self.drawn = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._began = time.monotonic()
        self._noted = self._there = False
        self._holder = ""
        self._turn = 0

    def show(self, task: Json, holder: Json | None) -> None:
        """Show how far a task is."""
        blocked = bool(task.get("blocked"))
        if not self.drawn:
            self._note(task, holder)
        elif blocked or time.monotonic() - self._began > DRAWN_AFTER_S:
            self.write(line(task, holder))

    def write(self, text: str) -> None:
        """Show a text in the place of the last one."""
        if self.drawn:
            self._turn += 1
            columns = shutil.get_terminal_size().columns
            mutter(f"\r{WHEEL[self._turn % len(WHEEL)]} {fit(text, columns - 2)}\x1b[K")
            self._there = True
        elif not self._noted and not self._quiet:
            mutter(f"enisle: note: {text}\n")
            self._noted = True

    def clear(self) -> None:
        if self._there:
            mutter("\r\x1b[K")
            self._there = False

    def _note(self, task: Json, holder: Json | None) -> None:
        by = holder_id(task) or (task["blocked"]["resource"] if task.get("blocked") else "")
        if by and by != self._holder and not self._quiet:
            mutter(f"enisle: note: {line(task, holder)}\n")
        self._holder = by

    def look_s(self, task: Json) -> float:
        """Return how long to wait until the next look when nothing ends."""
        if self.drawn:
            return LOOK_S
        return IDLE_S if task.get("blocked") or task["state"] == "queued" else LONGEST_S


class Patience:
    """Asks a platform, again when it does not answer: a part of it may just be starting anew."""

    def __init__(self, door: Door, screen: Screen, hint: str = "`enisle status` tells how it is") -> None:
        self._door, self._screen, self._hint = door, screen, hint
        self._lost = 0.0

    def get(self, path: str, query: Query = NO_QUERY) -> Any:
        """Raises HostError when it did not answer for `PATIENCE_S`."""
        return self._ask("GET", path, query)

    def post(self, path: str, query: Query, body: Any) -> Any:
        """Ask for something once, however often it has to be said. Raises as `get` does."""
        return self._ask("POST", path, query, body, os.urandom(16).hex())

    def _ask(self, method: str, path: str, query: Query, body: Any = None, key: str = "") -> Any:
        while True:
            try:
                answer = self._door.ask(method, path, query, body, key)
                self._lost = 0.0
                return answer
            except Unreachable as error:
                self._lost = self._lost or time.monotonic()
                if time.monotonic() - self._lost > PATIENCE_S:
                    raise HostError(error.message, error.why, self._hint) from error
                self._screen.write("the platform does not answer; trying again")
                time.sleep(LOOK_S)


def follow(door: Door, task: Json, screen: Screen, enough: Callable[[Json], bool] = lambda task: False) -> Json:
    """Return a task when it has ended, or is as wanted. Raises HostError, and NotFound when it is forgotten."""
    patience = Patience(door, screen, f"enisle task wait {task['id']}")
    quick = iter(QUICK)
    try:
        while task["state"] not in ENDED and not enough(task):
            screen.show(task, holder_of(door, task))
            task = patience.get(f"/v1/tasks/{task['id']}", {"wait": next(quick, 0) or screen.look_s(task)})
        return task
    finally:
        screen.clear()


def holder_of(door: Door, task: Json) -> Json | None:
    """Return the task that another one waits for, if it may be seen."""
    by = holder_id(task)
    if not by:
        return None
    with contextlib.suppress(NotFound, Unreachable):
        return door.ask("GET", f"/v1/tasks/{by}")
    return None


@contextlib.contextmanager
def interruptible(farewell: Callable[[], str]) -> Generator[None]:
    """Let Ctrl-C leave what is waited for: say how to come back, exit with 130."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        mutter("\r\x1b[K" if sys.stderr.isatty() else "")
        mutter(f"enisle: {farewell()}\n")
        raise SystemExit(LEFT) from None


def detached(task: Json | None, back: str = "wait") -> str:
    """Return what is said to one who leaves."""
    if task is None:
        return "left before the platform answered\n  it may have taken the task\n  hint: `enisle task ls` shows it"
    identity = task["id"]
    told = f"detached; task {identity} goes on\n  enisle task {back} {identity}{' --follow' * (back == 'output')}"
    return f"{told}   comes back to it\n  enisle task cancel {identity}   ends it"


def pass_on(stream: str, data: bytes) -> None:
    """Write output of a program where it belongs. Raises BrokenPipeError when the reader has left."""
    target = 2 if stream == "stderr" else 1
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
