"""Keys on their way to a command: what leaves, what waits, what is sent again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from enisle.cli import typed as module
from enisle.cli.reach import Unreachable
from enisle.cli.typed import Typed
from enisle.errors import HostError


class Host:
    """Takes input as `control.typed` does: a few bytes at a time; some requests or answers are lost."""

    url = "http://fake"

    def __init__(self, fates: list[str] | None = None) -> None:
        self.read, self.ended = b"", False
        self._fates = fates or []

    def upload(self, path: str, query: Any, content: bytes, key: str, method: str = "PUT") -> Any:
        assert (path, method) == ("/v1/tasks/t1/input", "POST")
        fate = self._fates.pop(0) if self._fates else ""
        if fate == "lost":
            raise Unreachable("nobody answers")
        rest = content[len(self.read) - query["offset"] :]
        taken = rest[:3] if fate == "slow" else rest
        self.read += taken
        self.ended = self.ended or ("end" in query and taken == rest)
        if fate == "answer lost":
            raise Unreachable("it broke")
        return {"next": len(self.read), "later": taken != rest}


def typing(host: Host, keys: bool = True) -> Typed:
    return Typed(host, "t1", keys)  # pyright: ignore[reportArgumentType]


@given(
    pieces=some.lists(some.binary(min_size=1, max_size=9)),
    fates=some.lists(some.sampled_from(["", "lost", "answer lost", "slow"]), max_size=40),
)
def test_what_was_typed_arrives_whatever_is_lost(pieces: list[bytes], fates: list[str]) -> None:
    host = Host(fates)
    typed = typing(host, keys=False)
    for piece in pieces:
        assert not typed.add(piece)
        typed.send()
    typed.add(b"")
    assert not typed.has_room
    while typed.waits:
        typed.send()
    assert (host.read, host.ended) == (b"".join(pieces), True)


@given(some.lists(some.sampled_from([b"a", b"\x10", b"\x11", b"b\x10", b"\x11c"])))
def test_only_the_two_keys_after_each_other_leave(pieces: list[bytes]) -> None:
    host = Host()
    typed, text = typing(host), b"".join(pieces)
    left = False
    for piece in pieces:
        left = left or typed.add(piece)
        if left:
            break
    assert left == (b"\x10\x11" in text)
    if not left:
        typed.add(b"")
    while typed.waits:
        typed.send()
    assert host.read == text.partition(b"\x10\x11")[0]
    assert host.ended == (not left)


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    typed = typing(Host(["lost"] * 9))
    typed.add(b"x")
    assert not typed.send()
    now[0] += module.PATIENCE_S + 1
    with pytest.raises(HostError):
        typed.send()
