"""Words of the platform's verbs: what is refused before anybody is asked, and what is sent."""

import json
import subprocess
import sys

import pytest

from enisle.cli import platform as edge
from enisle.cli import reach
from enisle.cli.grammar import Verb, help_of
from enisle.cli.island_options import ISLAND
from enisle.cli.options import PLATFORM, parse
from enisle.cli.platform import NOUNS, platform
from enisle.cli.platform_options import CONTEXTS, HOST, SINGLE, TOKEN
from enisle.cli.task_options import TASK
from enisle.errors import EnisleError, InvalidRequest
from fake_platform import FakeDoor, ended, task

PAGES = [*NOUNS.values(), *SINGLE.values()]
PAGES += [verb for verbs in (ISLAND, TASK, HOST, TOKEN, CONTEXTS) for verb in verbs.values()]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeDoor:
    """The platform that every verb of this test finds."""
    import contextlib

    door = FakeDoor()
    monkeypatch.setattr(reach, "reach", lambda options: contextlib.nullcontext(door))
    return door


def do(*words: str) -> int:
    return platform(parse(words))


@pytest.mark.parametrize("verb", PAGES, ids=lambda verb: verb.usage)
def test_help_of_the_platform_fits_a_hundred_columns(verb: Verb) -> None:
    text = help_of(verb)
    assert all(option.flag in text for _, group in verb.groups for option in group)
    assert max(map(len, text.splitlines())) <= 100


def test_every_noun_has_a_page_and_every_verb_a_place() -> None:
    assert {*NOUNS, *SINGLE} == PLATFORM == {*edge.VERBS, *SINGLE}


@pytest.mark.parametrize(
    "words",
    [
        ("island",),
        ("island", "fly"),
        ("island", "exec"),
        ("island", "exec", "web"),
        ("island", "exec", "web", "--"),
        ("island", "exec", "../web", "ls"),
        ("island", "exec", "we.b", "ls"),
        ("island", "exec", "😀", "ls"),
        ("island", "exec", "x" * 65, "ls"),
        ("island", "exec", "--timeout", "-1", "web", "ls"),
        ("island", "exec", "--timeout", "nan", "web", "ls"),
        ("island", "exec", "--env", "novalue", "web", "ls"),
        ("island", "create", "a/b"),
        ("island", "create", "--host", "a*", "web"),
        ("island", "stop"),
        ("island", "rm", "web", ".."),
        ("island", "files"),
        ("island", "files", "cat", "web", "relative"),
        ("island", "files", "mv", "web", "/a"),
        ("task", "show"),
        ("task", "show", "../x"),
        ("task", "ls", "--limit", "0"),
        ("task", "ls", "--limit", "many"),
        ("task", "submit", "r@1", "novalue"),
        ("task", "submit", "r@1", "--resource", "disk"),
        ("task", "submit", "r@1", "--resource", "disk/a:maybe"),
        ("task", "unlock", "disk/a"),
        ("host", "declare-dead", "h1"),
        ("token", "new", "ci", "--scope", "everything"),
        ("token", "new", "ci", "--expires", "soon"),
        ("token", "new", "ci", "--expires", "0d"),
        ("token", "revoke"),
    ],
    ids=" ".join,
)
def test_what_cannot_work_is_refused_in_three_lines_and_nobody_is_asked(words: tuple[str, ...], door: FakeDoor) -> None:
    if words == ("island",):
        assert do(*words) == 2  # its help was printed
    else:
        with pytest.raises(InvalidRequest) as caught:
            do(*words)
        assert len(str(caught.value).splitlines()) == 3
    assert not door.asked


def test_a_program_keeps_its_options_to_itself(door: FakeDoor) -> None:
    path = "/v1/islands/web/exec"
    for words in (
        ("web", "ls", "-l", "--json"),
        ("web", "--", "ls", "-l", "--json"),
        ("--cwd", "/x", "web", "ls", "--", "a"),
    ):
        door.tell("POST", path, task())
        assert do("island", "exec", "--no-stdin", "--no-wait", *words) == 0
    assert [asked[3]["argv"] for asked in door.asked] == [["ls", "-l", "--json"]] * 2 + [["ls", "--", "a"]]
    assert door.asked[2][3]["cwd"] == "/x"


def test_an_island_is_made_as_the_words_say_and_what_they_do_not_say_is_left_out(door: FakeDoor) -> None:
    door.tell("POST", "/v1/islands", ended(routine="island.create@1"))
    words = ("--memory", "512M", "--env", "A=1=2", "--mount", "/a:/b:rw", "--cpu", "x86-64-v2", "--host", "h1")
    assert do("island", "create", *words, "web", "--", "sleep", "9") == 0
    assert do("island", "create") == 0
    expected = {
        "name": "web",
        "memory": "512M",
        "env": {"A": "1=2"},
        "mounts": ["/a:/b:rw"],
        "cpu": ["x86-64-v2"],
        "host": "h1",
        "program": ["sleep", "9"],
    }
    assert [asked[3] for asked in door.asked] == [expected, {}]
    assert len(set(door.keys)) == 2  # each wish can be repeated, and none is another


def test_all_are_submitted_before_any_is_waited_for_and_the_last_trouble_is_the_exit_code(
    door: FakeDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    door.tell("POST", "/v1/islands/a/stop", task(id="a" * 24))
    door.tell("POST", "/v1/islands/b/stop", task(id="b" * 24))
    door.tell(
        "GET",
        f"/v1/tasks/{'a' * 24}",
        ended("failed", failure={"message": "no", "why": "it is\n\x1b[31m so", "hint": "`x`"}),
    )
    door.tell("GET", f"/v1/tasks/{'b' * 24}", ended())
    assert do("island", "stop", "a", "b") == 1
    assert [asked[0] for asked in door.asked] == ["POST", "POST", "GET", "GET"]
    told = capsys.readouterr()
    assert told.out == "stopped b in 2.0 s\n"
    assert told.err == "enisle: no\n  it is??[31m so\n  hint: x\n"


@pytest.mark.parametrize(
    ("state", "code"), [("done", 0), ("failed", 1), ("cancelled", 130)], ids=lambda value: str(value)
)
def test_waiting_exits_with_how_the_task_ended(
    state: str, code: int, door: FakeDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = ended()["id"]
    door.tell("GET", f"/v1/tasks/{identity}", task(), ended(state, cancel="enough" * (state == "cancelled")))
    if state == "failed":
        with pytest.raises(EnisleError) as caught:
            do("task", "wait", "--json", identity)
        assert len(str(caught.value).splitlines()) == 3
        assert caught.value.exit_code == code
    else:
        assert do("task", "wait", "--json", identity) == code
    assert json.loads(capsys.readouterr().out)["state"] == state


def test_a_task_is_found_by_the_beginning_of_its_id(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    items = [task(id=f"{index:02}abcdef".ljust(24, "0")) for index in (11, 12, 22)]
    door.tell("GET", "/v1/tasks", {"items": items, "next": None})
    assert do("task", "show", "-q", "22") == 0
    assert capsys.readouterr().out == items[2]["id"] + "\n"
    for word, kind in (("1", "several"), ("33", "no task")):
        with pytest.raises(EnisleError) as caught:
            do("task", "show", word)
        assert kind in caught.value.message


def test_all_pages_of_a_long_list_are_read(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"": {"items": [task(id="1" * 24)] * 500, "next": "more"}, "more": {"items": [task()] * 100, "next": None}}
    door.tell("GET", "/v1/tasks", lambda query: pages[query.get("cursor", "")])
    assert do("task", "ls", "--limit", "900", "-q") == 0
    assert len(capsys.readouterr().out.splitlines()) == 600
    assert [asked[2] for asked in door.asked] == [{"limit": 500}, {"limit": 400, "cursor": "more"}]


def test_a_tasks_arguments_are_json_or_text(door: FakeDoor) -> None:
    door.tell("POST", "/v1/tasks", ended())
    do(
        "task",
        "submit",
        "platform.sleep@1",
        "seconds=1.5",
        "name=web",
        'deep={"a": [1]}',
        "--resource",
        "disk/a:shared",
    )
    body = door.asked[0][3]
    assert body["arguments"] == {"seconds": 1.5, "name": "web", "deep": {"a": [1]}}
    assert body["resources"] == [{"kind": "disk", "id": "a", "mode": "shared"}]


def test_a_token_alone_is_on_standard_output(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"id": "t1", "token": "secret", "expires": None}
    door.tell("POST", "/v1/tokens", made)
    assert do("token", "new", "ci", "--scope", "read", "--scope", "write", "--expires", "2h") == 0
    assert door.asked[0][3] == {"name": "ci", "scopes": ["read", "write"], "tenant": "default", "expires_s": 7200.0}
    told = capsys.readouterr()
    assert told.out == "secret\n"
    assert "secret" not in told.err


def test_verbs_import_no_library_of_the_platform() -> None:
    modules = "platform, http_door, island, task, host, token, context, watch"
    probe = f"import sys; from enisle.cli import {modules}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "enisle.cli.http_door" in found.stdout.split()
    heavy = {"asyncio", "httpx", "msgspec", "nats", "starlette", "uvicorn", "enisle.kernel", "enisle.machine"}
    assert not heavy & set(found.stdout.split())


def test_a_platform_is_not_named_to_a_verb_of_this_machine() -> None:
    for words in (("--context", "x", "run", "true"), ("--url", "http://x", "ps")):
        with pytest.raises(InvalidRequest) as caught:
            parse(words)
        assert "this machine" in caught.value.message


def test_the_platform_may_be_named_before_and_behind_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, str]] = []

    def reach_none(options: object) -> None:
        found.append((options.context, options.url))  # type: ignore[attr-defined]
        raise InvalidRequest("enough")

    monkeypatch.setattr(reach, "reach", reach_none)
    for words in (("--context", "a", "island", "ls"), ("island", "ls", "--context", "a"), ("--url", "u", "watch")):
        with pytest.raises(InvalidRequest):
            do(*words)
    assert found == [("a", ""), ("a", ""), ("", "u")]
