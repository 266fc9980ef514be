"""`enisle call`: what is sent, what is printed, what it exits with."""

import base64
import contextlib
import json
from typing import Any

import pytest

from enisle.cli import reach
from enisle.cli.options import parse
from enisle.cli.platform import platform
from enisle.cli.reach import Unreachable
from enisle.errors import InvalidRequest, StateError
from fake_platform import FakeDoor


def told(state: str = "done", **result: Any) -> dict[str, Any]:
    outcome = {
        "exit_code": 0,
        "timed_out": False,
        "seconds": 0.1,
        "stdout": base64.b64encode(b"out\xff\n").decode(),
        "stderr": base64.b64encode(b"err\n").decode(),
        "truncated": False,
        "encoding": "base64",
        "reason": None,
    }
    done = outcome | result if state == "done" else None
    failure = {"message": "the call ends its worker", "why": "it was begun 3 times", "hint": ""}
    return {"id": "c1", "state": state, "runs": 1, "result": done, "failure": failure if state == "failed" else None}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeDoor:
    door = FakeDoor()
    monkeypatch.setattr(reach, "reach", lambda options: contextlib.nullcontext(door))
    monkeypatch.setattr("enisle.cli.call.read_stdin", lambda *_: b"in")
    return door


def do(*words: str) -> int:
    return platform(parse(["call", *words]))


def test_a_call_is_sent_waited_for_and_passed_on(door: FakeDoor, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    door.tell("POST", "/v1/calls", Unreachable("gone", "", ""), told("waiting"))
    door.tell("GET", "/v1/calls/c1", told("waiting"), told(exit_code=7, truncated=True))
    assert do("--timeout", "5", "--env", "A=B", "--memory", "64M", "--", "sh", "-c", "x") == 7
    seen = capfdbinary.readouterr()
    assert (seen.out, seen.err.split(b"\n")[-3]) == (b"out\xff\n", b"err")
    assert b"note: not all of its output was kept" in seen.err
    (_, _, query, body), again = door.asked[0], door.asked[1]
    assert body == {
        "argv": ["sh", "-c", "x"],
        "env": {"A": "B"},
        "timeout_s": 5.0,
        "memory": "64M",
        "stdin": base64.b64encode(b"in").decode(),
        "encoding": "base64",
    }
    assert (query, again[3], door.keys[0]) == ({"wait": 25.0}, body, door.keys[1]), "the same call, asked for again"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (told(timed_out=True, exit_code=137), 124, "killed"),
        (told("failed"), 125, "the call ends its worker"),
        (told(exit_code=127, reason={"message": "cannot find 'x'", "why": "", "hint": ""}), 127, "cannot find 'x'"),
    ],
)
def test_what_went_wrong_has_words_and_a_code(
    answer: Any, code: int, words: str, door: FakeDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    door.tell("POST", "/v1/calls", answer)
    assert do("--", "x") == code
    assert words in capsys.readouterr().err


def test_json_is_the_call_and_the_exit_code_the_programs(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    door.tell("POST", "/v1/calls", told(exit_code=3))
    assert do("--json", "--no-stdin", "--", "x") == 3
    assert json.loads(capsys.readouterr().out)["result"]["exit_code"] == 3
    assert door.asked[0][3] == {"argv": ["x"], "encoding": "text"}


@pytest.mark.parametrize("words", [(), ("--timeout", "61", "x"), ("--timeout", "nan", "x"), ("--env", "A", "x")])
def test_what_cannot_be_is_refused_before_anybody_is_asked(words: tuple[str, ...], door: FakeDoor) -> None:
    with pytest.raises(InvalidRequest):
        do(*words)
    assert not door.asked


def test_a_full_queue_is_told_at_once(door: FakeDoor) -> None:
    door.tell("POST", "/v1/calls", StateError("the queue is full", "10000 calls wait", "try again in a moment"))
    with pytest.raises(StateError, match="full"):
        do("--", "x")
