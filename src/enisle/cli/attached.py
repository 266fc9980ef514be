"""A command of the platform, used from here: what is typed goes to it, what it shows comes back, until it ends.

Promises: the terminal is as it was, however this ends short of SIGKILL; what is not read waits here, not in memory of
the platform. The main thread types, a second one shows; they meet in a pipe that wakes.
"""

import contextlib
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Generator
from types import FrameType

from enisle.cli.output import tell_note
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door, reach
from enisle.cli.streaming import stream_output
from enisle.cli.task_drawing import Json
from enisle.cli.terminal import Terminal
from enisle.cli.typed import PIECE, Typed
from enisle.errors import HostError, NotFound, StateError

LATER_S = 0.1
"""Before something is sent again that was not taken."""
RECENT = 200
"""Pieces of output that one who comes back is shown."""
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def attach(options: PlatformOptions, door: Door, task: Json, again: bool = False) -> None:
    """Use a task's command until it ends. Raises KeyboardInterrupt for one who leaves, EnisleError."""
    arguments: Json = task["arguments"]
    raw = bool(arguments.get("terminal")) and bool(arguments.get("input")) and os.isatty(0)
    with reach(options) as second, Terminal() as terminal, _Wake() as wake:
        session = Session(door, second, task["id"], wake, raw)
        if again and arguments.get("terminal"):
            session.redraw()
        with terminal_modes(terminal, raw, session):
            session.run(bool(arguments.get("input")), RECENT if again else 0)


class _Wake:
    """A pipe that ends a wait: written to by signals and by the thread that shows."""

    def __enter__(self) -> "_Wake":
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        # The writer stays: the thread that shows may still write to it.
        os.close(self.reader)

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)


class Session:
    """One command, typed at and shown."""

    def __init__(self, door: Door, second: Door, task: str, wake: _Wake, raw: bool) -> None:
        self._door, self._second, self._path, self._wake = door, second, f"/v1/tasks/{task}", wake
        self._typed = Typed(door, task, raw)
        self._shown = threading.Event()
        self._trouble: BaseException | None = None
        self.resized = False

    def run(self, open_input: bool, tail: int) -> None:
        showing = threading.Thread(target=self._show, args=(tail,), daemon=True)
        showing.start()
        taking = open_input
        while not self._shown.is_set():
            if self.resized:
                self.resized = False
                self.resize()
            sent = not (taking and self._typed.waits) or self._send()
            if sent is None:
                taking, sent = False, True
            reading = taking and self._typed.has_room
            more = sent and taking and self._typed.waits
            ready, _, _ = select.select(
                [self._wake.reader, *([0] if reading else [])], [], [], 0 if more else None if sent else LATER_S
            )
            if self._wake.reader in ready:
                self._wake.clear()
            if 0 in ready and self._typed.add(_read()):
                raise KeyboardInterrupt
        if self._trouble:
            raise self._trouble

    def _send(self) -> bool | None:
        """Send what was typed; return whether all was taken, None when the command takes no more."""
        try:
            return self._typed.send()
        except (NotFound, StateError):
            return None  # it ended, or closed its input: that is its right, and its output tells the rest

    def _show(self, tail: int) -> None:
        try:
            stream_output(self._second, self._path, True, tail)
        except BaseException as trouble:
            self._trouble = trouble
        self._shown.set()
        self._wake.wake()

    def resize(self, more: int = 0) -> None:
        """Tell the command's terminal how large ours is."""
        size = os.get_terminal_size(0) if os.isatty(0) else os.terminal_size((80, 24))
        asked = {"rows": min(1000, max(1, size.lines)), "columns": min(1000, max(1, size.columns + more))}
        try:
            self._door.ask("POST", f"{self._path}/terminal", {}, asked)
        except HostError:
            self.resized = True  # it is away: told with the next key
        except (NotFound, StateError):
            pass  # it has ended: the output tells

    def redraw(self) -> None:
        """Let a program that draws the whole screen do so again: it does when the size changes."""
        if os.isatty(0):
            self.resize(1)
            self.resize()


def _read() -> bytes:
    try:
        return os.read(0, PIECE)
    except OSError:
        return b""  # the terminal is gone


@contextlib.contextmanager
def terminal_modes(terminal: Terminal, raw: bool, session: Session) -> Generator[None]:
    """Hand keys on as they are typed; see to the window's size, to being stopped, and to being told to end."""
    if not raw:
        yield
        return
    before = termios.tcgetattr(0)

    def changed(signo: int, frame: FrameType | None) -> None:
        session.resized = True

    def end(signo: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signo)

    def stop(signo: int, frame: FrameType | None) -> None:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.raise_signal(signal.SIGSTOP)
        tty.setraw(0, termios.TCSADRAIN)
        session.resized = True

    wanted = {signal.SIGWINCH: changed, signal.SIGTSTP: stop} | dict.fromkeys(ENDING, end)
    old = {signo: signal.signal(signo, handler) for signo, handler in wanted.items()}
    try:
        tty.setraw(0, termios.TCSADRAIN)
        session.resized = True  # it may have changed since the command was asked for
        yield
    finally:
        terminal.restore()
        for signo, handler in old.items():
            signal.signal(signo, handler)


def interactive(options: PlatformOptions) -> Json:
    """Return what is asked for a command that is used from here."""
    asked: Json = {"input": "open"} if options.interactive else {}
    if options.tty:
        size = os.get_terminal_size(0) if os.isatty(0) else os.terminal_size((80, 24))
        rows, columns = (min(1000, max(1, side)) for side in (size.lines, size.columns))
        asked |= {"tty": True, "rows": rows, "columns": columns}
        if options.interactive and not os.isatty(0):
            tell_note("standard input is no terminal; it is typed at the program's all the same")
    return asked


def again(options: PlatformOptions, door: Door, task: Json) -> None:
    """Come back to a task's command. Raises StateError for what is none."""
    if task["routine"] != "island.exec@1":
        raise StateError(f"task {task['id']} has no command", f"it is {task['routine']}", "enisle task wait")
    if not task["arguments"].get("input"):
        tell_note("this command was started without -i: only its output comes back")
    attach(options, door, task, again=True)
