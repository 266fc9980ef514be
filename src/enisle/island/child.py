"""The island process seen from its caller: starts it, asks it, and finds out how it ended.

Any thread may ask; one thread of its own receives the answers. Promises: every request is answered, by the island or,
when that is gone, with the reason why.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from enisle import errors
from enisle.errors import EnisleError, GuestError, StateError
from enisle.island.channel import Channel, Message, pair
from enisle.island.configuration import Configuration, to_record

PATIENCE = 5.0
"""Seconds an island process has to end once its channel is closed."""
REPORT_BYTES = 8192


class Pending:
    """A request on its way, and the place of its answer. `wake` is an eventfd to write to as well, or -1."""

    def __init__(self, wake: int) -> None:
        self.answered = threading.Event()
        self.answer: Message = {}
        self.descriptors: list[int] = []
        self._wake = wake

    def settle(self, answer: Message, descriptors: list[int]) -> None:
        """Put the answer in its place."""
        self.answer, self.descriptors = answer, descriptors
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        self.answered.set()  # last: who sees it may close the eventfd

    def result(self) -> Any:
        """Wait for the answer and return it. Raises what the island raised."""
        self.answered.wait()
        if "error" in self.answer:
            raise rebuild(self.answer["error"])
        return self.answer["ok"]


class Child:
    """One island process and the conversation with it."""

    def __init__(self, configuration: Configuration) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, Pending] = {}
        """Guarded by _lock."""
        self._gone: EnisleError | None = None
        """Why it cannot be asked any more. Guarded by _lock."""
        ours, theirs = pair()
        with theirs:
            # A file without a name; `tempfile` makes one too, and costs a keeper four milliseconds to import.
            self._messages = open(os.memfd_create("enisle messages", os.MFD_CLOEXEC), "w+b")  # noqa: SIM115 - `close`
            self._process = _spawn(theirs.fileno(), self._messages.fileno())
        self._channel = Channel(ours)
        self._receiver = threading.Thread(target=self._receive, name="enisle-island", daemon=True)
        self._receiver.start()
        first = self._register(0, -1)
        self._send({"id": 0, "configuration": to_record(configuration)}, ())
        try:
            self.made: Message = first.result()
            """What the island said of itself: pid, backend, notes."""
        except BaseException:
            self.close()
            raise

    def call(self, message: Message, descriptors: Sequence[int] = ()) -> Any:
        """Send a request and return what it answers. Raises what the island raised."""
        return self.request(message, descriptors).result()

    def call_for_descriptor(self, message: Message) -> int:
        """Send a request that is answered with a descriptor; it is the caller's."""
        pending = self.request(message)
        pending.result()
        return pending.descriptors[0]

    def request(self, message: Message, descriptors: Sequence[int] = (), wake: int = -1) -> Pending:
        """Send a request without waiting; return the place of its answer."""
        number = next(self._numbers)
        pending = self._register(number, wake)
        self._send({"id": number, **message}, descriptors)
        return pending

    def _register(self, number: int, wake: int) -> Pending:
        pending = Pending(wake)
        with self._lock:
            if self._gone is not None:
                raise self._gone
            self._pending[number] = pending
        return pending

    def _send(self, message: Message, descriptors: Sequence[int]) -> None:
        try:
            self._channel.send(message, descriptors)
        except OSError:
            pass  # it is gone; the receiver settles every request and says why

    def _receive(self) -> None:
        while (received := self._channel.receive()) is not None:
            message, descriptors = received
            with self._lock:
                pending = self._pending.pop(message["id"], None)
            if pending is not None:
                pending.settle(message, descriptors)
        status = self._reap()
        with self._lock:
            self._gone = self._gone or self._post_mortem(status)
            waiting = list(self._pending.values())
            self._pending.clear()
        for pending in waiting:
            pending.settle({"error": as_message(self._gone)}, [])

    def _reap(self) -> int:
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _post_mortem(self, status: int) -> EnisleError:
        size = os.fstat(self._messages.fileno()).st_size
        tail = os.pread(self._messages.fileno(), REPORT_BYTES, max(0, size - REPORT_BYTES))
        report = tail.decode(errors="replace").strip() or "it left no report"
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        return GuestError(f"the island's process died ({how})", report, "make a new island")

    def close(self) -> None:
        """End the island process. May be called again."""
        with self._lock:
            self._gone = self._gone or StateError("the island is closed", hint="make a new one")
        self._channel.shutdown()
        self._receiver.join()
        self._channel.close()
        self._messages.close()

    @property
    def pid(self) -> int:
        """The process id on the host."""
        return self._process.pid


def _spawn(channel: int, messages: int) -> "subprocess.Popen[bytes]":
    # A session of its own: Ctrl-C in the caller's terminal is the caller's to handle.
    return subprocess.Popen(
        [*child_command(), str(channel)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=messages,
        pass_fds=[channel],
        start_new_session=True,
    )


def child_command() -> list[str]:
    """Return how an island process is started."""
    return [sys.executable, "-m", "enisle.island"]


def as_message(error: EnisleError) -> Message:
    """Return the record that `rebuild` reads."""
    parts = {"message": error.message, "why": error.why, "hint": error.hint, "exit_code": error.exit_code}
    return {"kind": type(error).__name__, **parts}


def rebuild(record: Message) -> Exception:
    """Return the error that the island process described."""
    kind = record["kind"]
    if kind == "OSError":
        return OSError(record["errno"], os.strerror(record["errno"]), record["filename"])
    if kind == "bug":
        why = f"{record['message']}\n{record['report']}"
        return GuestError("a bug in Enisle ended the island", why, "please report it with the lines above")
    error: EnisleError = getattr(errors, kind)(record["message"], record["why"], record["hint"])
    error.exit_code = record["exit_code"]
    return error
