"""Output of programs, as it is written: each piece to the stream it belongs to, read from where the last look ended."""

from collections.abc import Sequence
from typing import Any

from enisle.cli.following import Patience, Screen, pass_on
from enisle.cli.output import tell_note
from enisle.cli.reach import Door
from enisle.cli.task_drawing import ENDED, Json
from enisle.errors import NotFound, StateError

WAIT_S = 10.0
"""How long one look waits for something to be written."""


def decode(chunk: Json) -> bytes:
    """Return the bytes of a piece."""
    import base64

    return base64.b64decode(chunk["data"])


class Stream:
    """The output below a path (a task's, an island's log), read piece by piece."""

    def __init__(self, door: Door, path: str) -> None:
        self._patience, self._path = Patience(door, Screen()), path
        self.next, self.ended, self._truncated = 0, False, False

    def read(self, wait_s: float, **query: int) -> list[Json]:
        """Return the next pieces; none when none came in time."""
        told = self._patience.get(self._path, {"after": self.next, "wait": wait_s, **query})
        self.next, self.ended = told["next"], told["ended"]
        if told["truncated"] and not self._truncated:
            self._truncated = True
            tell_note("not all of its output was kept: only so much is")
        return told["chunks"]


def show(chunks: Sequence[Json]) -> None:
    """Print pieces."""
    for chunk in chunks:
        pass_on(chunk["stream"], decode(chunk))


def stream_output(door: Door, task_path: str, to_the_end: bool, tail: int = 0) -> None:
    """Print a task's output so far, or until its program has ended; all of it, or from its last `tail` pieces on."""
    query = {"tail": tail} if tail else {}
    stream = Stream(door, f"{task_path}/output")
    while True:
        try:
            chunks = stream.read(WAIT_S if to_the_end else 0, **query)
            query = {}
        except (NotFound, StateError):
            # Not there yet, or its host is away: how the task is decides.
            if not to_the_end or _has_ended(door, task_path, 1.0):
                raise
            continue
        show(chunks)
        if not chunks and (stream.ended or not to_the_end):
            return
        if not chunks and _has_ended(door, task_path, 0):
            show(_rest(stream))
            return


def _rest(stream: Stream) -> list[Json]:
    found: list[Json] = []
    while chunks := stream.read(0):
        found += chunks
    return found


def _has_ended(door: Door, task_path: str, wait_s: float) -> bool:
    found: Any = door.ask("GET", task_path, {"wait": wait_s})
    return found["state"] in ENDED


def last_lines(chunks: Sequence[Json], count: int) -> list[tuple[str, bytes]]:
    """Return the last lines of a log, as (stream, bytes)."""
    left, found = count, list[tuple[str, bytes]]()
    for chunk in reversed(chunks):
        data = decode(chunk)
        if not data:
            continue
        # The newline that ends the very last line does not begin another.
        at = len(data) - 1 if not found and data.endswith(b"\n") else len(data)
        while left and (at := data.rfind(b"\n", 0, at)) >= 0:
            left -= 1
        if not left:
            found.append((chunk["stream"], data[at + 1 :]))
            break
        found.append((chunk["stream"], data))
    return found[::-1]


def show_log(door: Door, path: str, tail: int, to_the_end: bool) -> None:
    """Print a log, all of it or from `tail` lines before its end (-1: all), and what comes when asked to stay."""
    stream = Stream(door, path)
    if tail >= 0:
        for name, data in _tail(stream, tail):
            pass_on(name, data)
    while True:
        chunks = stream.read(WAIT_S if to_the_end else 0)
        show(chunks)
        if not chunks and (stream.ended or not to_the_end):
            return


def _tail(stream: Stream, count: int) -> list[tuple[str, bytes]]:
    chunks = stream.read(0, tail=max(64, 4 * count))
    lines = sum(decode(chunk).count(b"\n") for chunk in chunks)
    if chunks and chunks[0]["n"] > 0 and lines <= count:  # pieces may be small: then all is read
        stream.next = 0
        chunks = stream.read(0)
    return last_lines(chunks + _rest(stream), count) if count else []
