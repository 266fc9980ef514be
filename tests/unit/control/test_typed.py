"""Input of a command: once and in order, whatever of it is lost, repeated or late."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from enisle.control.typed import MAX_WRITERS, Typed
from enisle.errors import StateError


class Reading:
    """A command that takes as much at a time as it is told to."""

    def __init__(self, room: list[int] | None = None) -> None:
        self.read, self.ended, self.gone = bytearray(), 0, False
        self._room = room

    def write(self, content: bytes | memoryview, timeout: float | None = None) -> int:
        if self.gone:
            raise BrokenPipeError
        room = len(content) if self._room is None else self._room.pop(0) if self._room else 0
        self.read += content[:room]
        return min(room, len(content))

    def end_input(self) -> None:
        self.ended += 1

    def resize(self, rows: int, columns: int) -> None:
        raise AssertionError


@given(
    text=some.binary(min_size=1, max_size=60),
    room=some.lists(some.integers(0, 9), max_size=200),
    fates=some.lists(some.sampled_from(["sent", "lost", "answer lost", "twice", "an old one again"]), max_size=60),
    size=some.integers(1, 20),
)
def test_every_byte_arrives_once_and_in_order(text: bytes, room: list[int], fates: list[str], size: int) -> None:
    typed, command = Typed(), Reading(room)
    asked: list[tuple[int, bytes, bool]] = []
    at = 0
    for fate in (*fates, *["sent"] * (len(text) + len(room) + 2)):
        if not fates and not room:
            command._room = None
        piece = text[at : at + size]
        request = (at, piece, at + len(piece) == len(text))
        asked.append(request)
        if fate == "lost":
            continue
        if fate == "an old one again":
            request = asked[len(asked) // 2]
        told: dict[str, Any] = {}
        for _ in range(2 if fate == "twice" else 1):
            told = typed.take(command, "me", *request, wait_s=0)
        assert told["next"] <= len(text)
        assert text.startswith(command.read)
        if fate != "answer lost":
            at = told["next"]
    command._room = None
    while True:
        told = typed.take(command, "me", at, text[at : at + size], at + size >= len(text), wait_s=0)
        at = told["next"]
        if at == len(text) and not told["later"]:
            break
    assert bytes(command.read) == text
    assert command.ended == 1


def test_what_is_missing_is_asked_for_and_what_is_not_read_is_not_taken() -> None:
    typed, command = Typed(), Reading([3, 0, 9])
    with pytest.raises(StateError, match="byte 5"):
        typed.take(command, "me", 5, b"late")
    assert typed.take(command, "me", 0, b"abcdef", wait_s=0) == {"next": 3, "later": True}
    assert typed.take(command, "me", 0, b"abcdef", wait_s=0) == {"next": 6, "later": False}
    assert typed.take(command, "me", 2, b"c", wait_s=0) == {"next": 6, "later": False}
    assert command.read == b"abcdef"


def test_writers_count_for_themselves_and_the_oldest_is_forgotten() -> None:
    typed, command = Typed(), Reading()
    for number in range(MAX_WRITERS + 1):
        assert typed.take(command, f"w{number}", 0, b"x")["next"] == 1
    assert len(command.read) == MAX_WRITERS + 1
    with pytest.raises(StateError):
        typed.take(command, "w0", 1, b"y")
    assert typed.take(command, "w1", 1, b"y")["next"] == 2


def test_after_the_end_and_when_nobody_reads_nothing_is_taken() -> None:
    typed, command = Typed(), Reading()
    assert typed.take(command, "me", 0, b"ab", end=True)["next"] == 2
    assert typed.take(command, "me", 0, b"ab", end=True)["next"] == 2
    assert (command.read, command.ended) == (b"ab", 1)
    with pytest.raises(StateError, match="no more"):
        typed.take(command, "me", 2, b"c")
    typed, command = Typed(), Reading()
    command.gone = True
    with pytest.raises(StateError, match="no more"):
        typed.take(command, "me", 0, b"c")
    typed.close()
    typed.resize(command, 24, 80)  # of one that has ended: nothing to do
