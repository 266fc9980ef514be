"""`enisle vm`, `enisle introspect`: which words are about this computer, which about a platform, and what that gets."""

import contextlib
import json
from typing import Any

import pytest

from enisle.cli import introspect_away, reach
from enisle.cli.completion import completion, offered
from enisle.cli.grammar import Options, Verb, help_of
from enisle.cli.introspect import introspect
from enisle.cli.options import parse
from enisle.cli.platform import platform
from enisle.cli.vm import vm
from enisle.cli.vm_options import TOP, VERBS
from enisle.control.vm_work import _plain
from enisle.errors import EnisleError, InvalidRequest, NotFound
from enisle.introspect import Fact, Witness
from fake_platform import FakeDoor, ended

AWAY = ("--context", "office")
MACHINE: dict[str, Any] = {
    "name": "m1",
    "host": "h1",
    "tenant": "default",
    "state": "running",
    "memory": 64 << 20,
    "processors": 2,
    "accelerator": "tcg",
    "kernel": "/vmlinuz",
    "age": 65.0,
    "holder": None,
    "notes": [],
}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeDoor:
    """The platform that every verb of this test finds."""
    door = FakeDoor()

    def reached(options: Options) -> contextlib.nullcontext[FakeDoor]:
        return contextlib.nullcontext(door)

    monkeypatch.setattr(reach, "reach", reached)
    monkeypatch.setattr(introspect_away, "reach", reached)
    return door


def of_machine(**changes: Any) -> dict[str, Any]:
    return ended(resources=[{"kind": "vm", "id": "m1", "mode": "exclusive"}], **changes)


@pytest.mark.parametrize("verb", [TOP, *VERBS.values()], ids=lambda verb: verb.usage)
def test_help_of_machines_fits_a_hundred_columns(verb: Verb) -> None:
    assert max(map(len, help_of(verb).splitlines())) <= 100


def test_what_is_typed_before_or_behind_the_verb_names_the_platform(
    door: FakeDoor, capsys: pytest.CaptureFixture[str]
) -> None:
    door.tell("GET", "/v1/vms", {"items": [MACHINE]})
    row = "m1\trunning\th1\t1m05s\t64.0M\t2 tcg\t-\t/vmlinuz\n"
    for words in ((*AWAY, "vm", "ls"), ("vm", "ls", *AWAY), ("vm", *AWAY, "ps"), ("--tenant", "a", "vm", "ls")):
        assert vm(parse(words)) == 0
        assert capsys.readouterr().out == row
    vm(parse(("vm", "ls", "--json", "--url", "http://fake")))
    assert json.loads(capsys.readouterr().out) == [MACHINE]


def test_variables_name_no_platform(
    door: FakeDoor, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENISLE_URL", "http://fake")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert vm(parse(("vm", "ls", "--json"))) == 0
    assert capsys.readouterr().out == "[]\n"
    assert door.asked == []


def test_changes_of_machines_are_tasks(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    door.tell("POST", "/v1/vms", of_machine())
    assert vm(parse((*AWAY, "vm", "run", "--kernel", "/k", "--name", "m1", "--disk", "/d:ro", "--host", "h1"))) == 0
    assert capsys.readouterr().out.startswith("started m1 in ")
    asked = {"kernel": "/k", "memory": "512M", "processors": 1, "disks": ["/d:ro"], "name": "m1", "host": "h1"}
    assert door.asked[-1] == ("POST", "/v1/vms", {}, asked)
    for verb, told in (("stop", "stopped m1 in "), ("pause", "paused m1 in "), ("resume", "resumed m1 in ")):
        door.tell("POST", f"/v1/vms/m1/{verb}", of_machine())
        assert vm(parse((*AWAY, "vm", verb, "m1"))) == 0
        assert capsys.readouterr().out.startswith(told)
    assert door.asked[-3][3] == {"timeout_s": 10.0}
    vm(parse((*AWAY, "vm", "stop", "--force", "m1")))
    assert door.asked[-1][3] == {"timeout_s": 0.0}
    door.tell("DELETE", "/v1/vms/m1", of_machine(state="failed", failure={"message": "it runs", "why": "", "hint": ""}))
    with pytest.raises(EnisleError, match="it runs"):
        vm(parse((*AWAY, "vm", "rm", "m1")))
    with pytest.raises(EnisleError):
        vm(parse((*AWAY, "vm", "rm", "--force", "m1")))
    assert door.asked[-1][2] == {"force": "true"}
    assert vm(parse((*AWAY, "vm", "pause", "--no-wait", "-q", "m1"))) == 0
    assert capsys.readouterr().out.endswith(f"{of_machine()['id']}\n")
    assert all(len(key) == 32 for (method, *_), key in zip(door.asked, door.keys, strict=True) if method != "GET")


@pytest.mark.parametrize(
    "words",
    [
        ("vm", "run"),
        ("vm", "run", "--kernel", "k", "--no-wait"),
        ("vm", "run", "--kernel", "k", "--host", "h1"),
        (*AWAY, "vm", "run", "--kernel", "k", "--gdb"),
        (*AWAY, "vm", "run", "--kernel", "k", "--port", "p"),
        (*AWAY, "vm", "run", "--kernel", "k", "--name", "a/b"),
        (*AWAY, "vm", "console", "m1"),
        ("vm", "console", "--url=http://x", "m1"),
        (*AWAY, "vm", "dump", "m1", "d"),
        (*AWAY, "vm", "stop"),
        (*AWAY, "vm", "show", "../m1"),
        ("vm", "pasue", "m1"),
        (*AWAY, "run", "true"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anybody_is_asked(door: FakeDoor, words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as found:
        vm(parse(words))
    assert found.value.hint
    assert door.asked == []


PROCESS = {
    "pid": 1,
    "ppid": 0,
    "tgid": 1,
    "uid": 0,
    "comm": "in\x1bit",
    "state": "S",
    "threads": [{"pid": 1}],
    "credentials": {"uid": 0, "gid": 0, "euid": 0, "egid": None, "fsuid": 0},
    "kernel_thread": False,
    "address": 4096,
}
MAPPED = {"process": "kernel", "start": 0x1000, "size": 0x1000, "writable": False, "executable": True, "user": False}
FACT = Fact("init_task", "address", 0x1000, "single", (Witness(0x1000, "exports", "data", 0, "exported"),))


def look(door: FakeDoor, view: str, rows: list[Any], *words: str) -> int:
    told = {"view": view, "rows": rows, "incomplete": ["some"], "notes": [], "paused_seconds": 0.5}
    task = of_machine()
    door.tell("POST", "/v1/vms/m1/introspect", task)
    door.tell("GET", f"/v1/tasks/{task['id']}/result", {"result": told})
    return introspect(parse((*AWAY, "introspect", *words, "m1", view)))


@pytest.mark.parametrize(
    ("view", "row", "line"),
    [
        ("ps", PROCESS, "1\t0\t1\t0\tS\t1\tin?it\n"),
        ("creds", PROCESS, "1\t0\t0\t0\t?\t0\tin\x1bit\n".replace("\x1b", "?")),
        ("maps", MAPPED, "kernel\t0x1000\t0x2000\t4.0K\tr-xs\n"),
        ("facts", _plain(FACT), "init_task\taddress\t0x1000\tsingle\t1\texported\n"),
    ],
)
def test_a_look_at_a_platform_prints_what_a_look_here_does(
    door: FakeDoor, view: str, row: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(door, view, [row]) == 0
    told = capsys.readouterr()
    assert (told.out, "incomplete: some" in told.err) == (line, True)
    assert door.asked[0][3] == {"view": view}
    assert look(door, view, [row], "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "view": view,
        "rows": [row],
        "incomplete": ["some"],
        "paused_seconds": 0.5,
    }


def test_a_check_that_finds_something_exits_with_one(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    finding = {"kind": "table", "subject": "sys_call_table", "message": "was changed"}
    assert look(door, "check", [{"findings": [finding], "notes": [], "checked": ["tables"]}]) == 1
    assert capsys.readouterr().out == "FOUND  table: sys_call_table: was changed\n1 findings\n"


@pytest.mark.parametrize(
    "words",
    [
        ("m1", "watch", "sys:openat"),
        ("m1", "ps", "--live"),
        ("m1", "ps", "--watch"),
        ("m1", "check", "--baseline", "f"),
        ("m/1", "ps"),
    ],
)
def test_views_that_are_only_here_say_so(door: FakeDoor, words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        introspect(parse((*AWAY, "introspect", *words)))
    assert door.asked == []


def test_processes_and_counters_of_islands(door: FakeDoor, capsys: pytest.CaptureFixture[str]) -> None:
    process = {"pid": 2, "ppid": 1, "state": "S", "name": "sle\x1bep", "threads": 1}
    door.tell("GET", "/v1/islands/web/processes", {"items": [process]})
    door.tell("GET", "/v1/islands/web/statistics", {"syscalls": 7, "backend": "kvm"})
    assert platform(parse(("island", "ps", "web"))) == 0
    assert capsys.readouterr().out == "2\t1\tS\t1\tsle?ep\n"
    assert platform(parse(("island", "ps", "-q", "web"))) == 0
    assert capsys.readouterr().out == "2\n"
    assert platform(parse(("island", "stats", "web"))) == 0
    assert capsys.readouterr().out == "syscalls\t7\nbackend\tkvm\n"
    assert platform(parse(("island", "stats", "--json", "web"))) == 0
    assert json.loads(capsys.readouterr().out) == {"syscalls": 7, "backend": "kvm"}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["isl"], ["island"]),
        (["island", "ex"], ["exec"]),
        (["vm", "--context", "office", "pa"], ["pause"]),
        (["run", "--network", ""], ["host", "none"]),
        (["run", "--mem"], ["--memory"]),
        (["run", "--mount", ""], []),
        (["help", "vm", "pa"], ["pause"]),
        (["island", "exec", "web", "--", "l"], []),
        (["completion", "f"], ["fish"]),
    ],
)
def test_a_shell_is_offered_what_may_stand_there(typed: list[str], expected: list[str]) -> None:
    assert offered(typed) == expected


def test_names_are_offered_too_and_none_when_nobody_answers(door: FakeDoor) -> None:
    door.tell("GET", "/v1/islands", {"items": [{"name": "web"}, {"name": "db"}]})
    assert offered(["island", "stop", "w"]) == ["web"]
    assert offered(["island", "create", "w"]) == []
    door.tell("GET", "/v1/hosts", NotFound("no", "", ""))
    assert offered(["host", "show", ""]) == []


def test_the_scripts_ask_enisle(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert completion(parse(["completion", shell])) == 0
        assert "enisle completion words -- " in capsys.readouterr().out
    with pytest.raises(InvalidRequest):
        completion(parse(["completion", "tcsh"]))
