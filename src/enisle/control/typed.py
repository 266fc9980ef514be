"""What is sent to a running command as its input: each writer's bytes once and in order, whatever is lost or repeated.

A writer counts its bytes from 0 and says where a piece begins; the answer says where the next does. What was taken
already is left out, what the command does not read now is not taken. Guarded by a lock; any thread may ask.
"""

import threading
import time
from collections import OrderedDict
from typing import Protocol

from enisle.control.wire import Json
from enisle.errors import StateError

MAX_WRITERS = 64
"""Writers remembered; the one that was silent for longest is forgotten, and begins anew."""
TAKE_S = 2.0
"""How long a piece waits for the command to read."""


class Reader(Protocol):
    """As much of a running command as its input needs."""

    def write(self, content: bytes | memoryview, timeout: float | None = None) -> int: ...
    def end_input(self) -> None: ...
    def resize(self, rows: int, columns: int) -> None: ...


class Typed:
    """The open input of one command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: OrderedDict[str, int] = OrderedDict()
        self._ended = False

    def close(self) -> None:
        """Take no more, and return when nobody uses the command any more: it has ended."""
        with self._lock:
            self._ended = True

    def resize(self, reader: Reader, rows: int, columns: int) -> None:
        """Change the size of the command's terminal. Raises StateError, InvalidRequest."""
        with self._lock:
            if not self._ended:
                reader.resize(rows, columns)

    def take(
        self, reader: Reader, writer: str, offset: int, content: bytes, end: bool = False, wait_s: float = TAKE_S
    ) -> Json:
        """Take a writer's piece that begins at `offset`, and with `end` the end after it; return {"next", "later"}.

        `later`: not all of it was taken; ask again from `next`. Raises StateError when bytes before it are missing, and
        when nobody reads any more.
        """
        deadline = time.monotonic() + wait_s
        if not self._lock.acquire(timeout=wait_s):
            return {"next": offset, "later": True}  # another piece waits for the command to read
        try:
            return self._take(reader, writer, offset, content, end, deadline)
        finally:
            self._lock.release()

    def _take(self, reader: Reader, writer: str, offset: int, content: bytes, end: bool, deadline: float) -> Json:
        taken = self._taken.get(writer, 0)
        if offset > taken:
            raise StateError(
                f"input from byte {offset} cannot be taken", f"byte {taken} is the next", "send that first"
            )
        rest = memoryview(content)[taken - offset :]
        if self._ended and rest:
            raise StateError("the command takes no more input", "its input has ended", "")
        try:
            while rest and (written := reader.write(rest, max(0.0, deadline - time.monotonic()))):
                rest = rest[written:]
                taken += written
            if end and not rest and not self._ended:
                self._ended = True
                reader.end_input()
        except BrokenPipeError:
            raise StateError("the command takes no more input", "it has closed it, or ended", "") from None
        finally:
            self._remember(writer, taken)
        return {"next": taken, "later": bool(rest)}

    def _remember(self, writer: str, taken: int) -> None:
        self._taken[writer] = taken
        self._taken.move_to_end(writer)
        if len(self._taken) > MAX_WRITERS:
            self._taken.popitem(last=False)
