"""`enisle audit` and `--tenant`: what is asked, and how acts are told."""

import json
from typing import Any

import pytest

from enisle.cli.audit import about
from enisle.cli.grammar import Options
from enisle.cli.http_door import HttpDoor
from enisle.cli.options import parse
from enisle.cli.platform import _ask, _read
from enisle.cli.platform_options import PlatformOptions
from enisle.errors import InvalidRequest

ACT = {
    "id": "1-a",
    "time": 1.0,
    "action": "unlock",
    "actor": "local",
    "tenant": "acme",
    "address": "192.0.2.7",
    "reason": "stuck\n",
    "about": {"resource": "island/web", "tasks": ["a1"]},
}


def typed(*words: str) -> PlatformOptions:
    options: Options = parse(words)
    found = PlatformOptions(options)
    found.verb = options.verb
    assert _read(found, list(options.words)) is None
    return found


def asked(monkeypatch: pytest.MonkeyPatch, *words: str, pages: Any) -> list[Any]:
    seen: list[Any] = []

    def ask(self: HttpDoor, method: str, path: str, query: Any = (), *_: Any) -> Any:
        seen.append((method, path, dict(query)))
        return pages.pop(0)

    monkeypatch.setattr(HttpDoor, "ask", ask)
    options = typed("--url", "http://127.0.0.1:1", *words)
    _ask(options, options.verb.partition(" ")[0])
    return seen


def test_the_audit_is_asked_for_in_pages_and_told_in_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("audit", "--actor", "local", "--limit", "2")
    pages = [{"items": [ACT], "next": "c"}, {"items": [ACT], "next": None}]
    seen = asked(monkeypatch, *words, pages=pages)
    assert seen == [
        ("GET", "/v1/audit", {"actor": "local", "limit": 2}),
        ("GET", "/v1/audit", {"actor": "local", "limit": 1, "cursor": "c"}),
    ]
    line = capsys.readouterr().out.splitlines()[0].split("\t")
    assert line[1:] == ["unlock", "local", "acme", "192.0.2.7", "island/web tasks=a1", "stuck?"]
    asked(monkeypatch, "audit", "--json", pages=[{"items": [ACT], "next": None}])
    assert json.loads(capsys.readouterr().out) == [ACT]


@pytest.mark.parametrize("words", [("audit", "--since", "yesterday"), ("audit", "--limit", "0")])
def test_what_cannot_be_asked_of_the_audit_is_told(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest):
        asked(monkeypatch, *words, pages=[])


def test_a_list_of_every_tenants_things_says_whose_each_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    island = {"name": "web", "tenant": "acme", "state": "running", "host": "h1", "program": [], "memory_used": 1}
    island |= {"memory_limit": 2, "age": 1.0, "created": 1.0, "exit_code": None, "holder": None, "backend": "kvm"}
    asked(monkeypatch, "--tenant", "*", "island", "ls", pages=[{"items": [island], "next": None}])
    assert capsys.readouterr().out.split("\t")[:2] == ["web", "acme"]
    asked(monkeypatch, "island", "ls", pages=[{"items": [island], "next": None}])
    assert capsys.readouterr().out.split("\t")[1] != "acme"


def test_a_submission_is_told_by_its_routine_and_what_it_holds() -> None:
    assert (
        about({"routine": "island.exec@1", "resources": ["island/web"], "task": "t"}) == "island.exec island/web task=t"
    )


def test_a_tenant_is_only_a_platforms() -> None:
    with pytest.raises(InvalidRequest, match="about this machine"):
        parse(["--tenant", "acme", "ps"])
