"""Following tasks and output with a platform that blocks, breaks off and comes back."""

import base64
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.cli import following
from enisle.cli.following import Patience, Screen, detached, follow, interruptible
from enisle.cli.reach import Unreachable
from enisle.cli.streaming import last_lines, show_log, stream_output
from enisle.cli.watch import persistent
from enisle.errors import HostError, NotFound
from fake_platform import FakeDoor, ended, task

ID = task()["id"]
PATH = f"/v1/tasks/{ID}"
HOLDER = "feedfeedfeedfeedfeedfeed"
BLOCKED = task(state="blocked", blocked={"resource": "island/web", "by": HOLDER, "position": 1, "since": 1000.0})
LOST = Unreachable("the platform does not answer", "connection refused", "enisle up")


@pytest.fixture(autouse=True)
def without_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following.time, "sleep", lambda seconds: None)


def chunk(number: int, text: str, stream: str = "stdout") -> dict[str, Any]:
    return {"n": number, "stream": stream, "data": base64.b64encode(text.encode()).decode(), "time": 0.0}


def piece(*chunks: dict[str, Any], after: int, over: bool = False) -> dict[str, Any]:
    return {"chunks": list(chunks), "next": after, "ended": over, "truncated": False}


def test_who_blocks_is_told_once_where_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    door = FakeDoor()
    door.tell("GET", PATH, BLOCKED, BLOCKED, BLOCKED, task(), ended())
    door.tell("GET", f"/v1/tasks/{HOLDER}", task(id=HOLDER, progress={"fraction": 0.5, "phase": "x", "left_s": None}))
    assert follow(door, BLOCKED, Screen())["state"] == "done"
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "held by feedfeedfeed island.exec web" in told.err
    assert " 50% x" in told.err


def test_a_holder_that_may_not_be_seen_does_not_end_the_wait() -> None:
    door = FakeDoor()
    door.tell("GET", PATH, BLOCKED, ended())
    door.tell("GET", f"/v1/tasks/{HOLDER}", NotFound("there is no such task"))
    assert follow(door, BLOCKED, Screen(quiet=True))["state"] == "done"


def test_on_a_terminal_it_is_drawn_and_taken_away_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    door = FakeDoor()
    door.tell("GET", PATH, BLOCKED, ended())
    door.tell("GET", f"/v1/tasks/{HOLDER}", task(id=HOLDER))
    follow(door, BLOCKED, Screen())
    told = capsys.readouterr().err
    assert "waits for island/web" in told
    assert told.endswith("\r\x1b[K")
    assert "\n" not in told


def test_a_platform_that_comes_back_is_asked_again() -> None:
    door = FakeDoor()
    door.tell("GET", PATH, LOST, LOST, ended())
    assert follow(door, task(), Screen(quiet=True))["state"] == "done"


def test_one_that_stays_away_is_given_up_and_how_to_come_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(0, 10_000, 7))
    monkeypatch.setattr(following.time, "monotonic", lambda: float(next(moments)))
    door = FakeDoor()
    door.tell("GET", PATH, LOST)
    with pytest.raises(HostError) as caught:
        follow(door, task(), Screen(quiet=True))
    assert caught.value.hint == f"enisle task wait {ID}"
    assert not isinstance(caught.value, Unreachable)


def test_leaving_tells_how_to_come_back_and_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, interruptible(lambda: detached(task(), "output")):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    told = capsys.readouterr().err
    assert f"enisle task output {ID} --follow" in told
    assert f"enisle task cancel {ID}" in told
    assert "enisle task ls" in detached(None)


def test_output_goes_where_it_was_written_in_its_order(capfd: pytest.CaptureFixture[str]) -> None:
    door = FakeDoor()
    first, second = chunk(0, "out"), chunk(1, "err", "stderr")
    door.tell("GET", f"{PATH}/output", piece(first, after=1), LOST, piece(second, after=2), piece(after=2, over=True))
    stream_output(door, PATH, to_the_end=True)
    told = capfd.readouterr()
    assert told.out == "out"
    assert told.err == "enisle: note: the platform does not answer; trying again\nerr"
    assert [asked[2]["after"] for asked in door.asked] == [0, 1, 1, 2]


def test_output_that_is_not_there_yet_is_waited_for_while_the_task_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    door = FakeDoor()
    absent = NotFound("there is no output of it")
    door.tell("GET", f"{PATH}/output", absent, piece(chunk(0, "late"), after=1), piece(after=1, over=True))
    door.tell("GET", PATH, task())
    stream_output(door, PATH, to_the_end=True)
    assert capfd.readouterr().out == "late"


def test_output_of_a_task_whose_host_died_is_not_waited_for_for_ever() -> None:
    door = FakeDoor()
    door.tell("GET", f"{PATH}/output", piece(chunk(0, "x"), after=1), piece(after=1))
    door.tell("GET", PATH, task(), ended("failed"))
    stream_output(door, PATH, to_the_end=True)
    assert len(door.asked) < 10


@given(st.lists(st.text("ab\n", max_size=6), max_size=12), st.integers(1, 8))
def test_the_tail_of_a_log_is_its_last_lines_however_it_was_cut(parts: list[str], count: int) -> None:
    chunks = [chunk(index, text) for index, text in enumerate(parts)]
    found = b"".join(data for _, data in last_lines(chunks, count)).decode()
    assert found == "".join("".join(parts).splitlines(keepends=True)[-count:])


def test_following_a_log_begins_with_its_tail_and_misses_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    log = [chunk(0, "one\n"), chunk(1, "two\n"), chunk(2, "three\n"), chunk(3, "four\n")]

    def answer(query: dict[str, Any]) -> dict[str, Any]:
        known = log if query["after"] >= 3 else log[:3]
        shown = known[query["after"] :]
        if query.get("tail"):
            shown = shown[-query["tail"] :]
        return piece(*shown, after=len(known), over=len(known) == 4)

    door = FakeDoor()
    door.tell("GET", "/v1/islands/web/logs", answer)
    show_log(door, "/v1/islands/web/logs", 2, to_the_end=True)
    assert capfd.readouterr().out in ("two\nthree\nfour\n", "three\nfour\n")


def test_a_watch_goes_on_from_the_start_when_the_platform_was_lost() -> None:
    door = FakeDoor()
    door.event_runs = [[("task", "a", {}), LOST], [LOST], [("task", "b", {})], [KeyboardInterrupt()]]
    events = persistent(door)
    assert [(name, identity) for name, identity, _ in (next(events) for _ in range(5))] == [
        ("task", "a"),
        ("reset", ""),
        ("reset", ""),
        ("task", "b"),
        ("reset", ""),
    ]
    with pytest.raises(KeyboardInterrupt):
        next(events)


def test_patience_ends_only_with_what_it_is_for() -> None:
    door = FakeDoor()
    door.tell("GET", "/x", NotFound("no"))
    with pytest.raises(NotFound):
        Patience(door, Screen(quiet=True)).get("/x")
