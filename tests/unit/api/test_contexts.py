"""Platforms by their names: one file, private, whole, and nobody's change is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from enisle.api import changed_contexts, contexts_file, find_context, load_contexts, require_context_name, use_context
from enisle.errors import HostError, InvalidRequest, NotFound

OFFICE = {"url": "https://office:4600", "token": "secret", "ca": ""}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_what_is_changed_is_kept_for_the_owners_eyes_only() -> None:
    assert load_contexts() == {"current": "", "contexts": {}}
    with changed_contexts() as known:
        known["contexts"]["office"] = dict(OFFICE)
    use_context("office")
    assert load_contexts() == {"current": "office", "contexts": {"office": OFFICE}}
    assert find_context() == find_context("office") == OFFICE
    assert contexts_file().stat().st_mode & 0o777 == 0o600
    assert contexts_file().parent.stat().st_mode & 0o777 == 0o700


def test_a_change_that_fails_changes_nothing() -> None:
    with pytest.raises(ZeroDivisionError), changed_contexts() as known:
        known["contexts"] = {"office": {**OFFICE, "port": 1 // 0}}
    assert load_contexts()["contexts"] == {}


def test_a_context_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(NotFound) as caught:
        find_context()
    assert "enisle up" in caught.value.hint
    with changed_contexts() as known:
        known["contexts"]["office"] = dict(OFFICE)
    for ask in (find_context, use_context):
        with pytest.raises(NotFound) as caught:
            ask("home")
        assert "office" in caught.value.why


@pytest.mark.parametrize("content", ["", "{", "[]", '{"contexts": []}', '{"contexts": {"a": 1}}', "{}"])
def test_a_file_that_makes_no_sense_is_told_and_kept(content: str) -> None:
    contexts_file().parent.mkdir()
    contexts_file().write_text(content)
    with pytest.raises(HostError) as caught:
        load_contexts()
    assert str(contexts_file()) in caught.value.message
    with pytest.raises(HostError), changed_contexts():
        pass
    assert contexts_file().read_text() == content


def test_of_many_that_change_it_at_once_all_are_kept() -> None:
    code = (
        "import sys\n"
        "from enisle.api import changed_contexts\n"
        "for number in range(10):\n"
        "    with changed_contexts() as known:\n"
        "        known['contexts'][f'{sys.argv[1]}-{number}'] = {'url': 'http://x', 'token': '', 'ca': ''}\n"
    )
    several = [subprocess.Popen([sys.executable, "-c", code, str(index)]) for index in range(4)]
    assert [one.wait(30) for one in several] == [0] * 4
    assert len(load_contexts()["contexts"]) == 40
    assert [path.name for path in contexts_file().parent.iterdir() if path.name.endswith(".json")] == ["contexts.json"]
    json.loads(contexts_file().read_text())


@pytest.mark.parametrize("name", ["", "a b", "../a", "-a", "a" * 65, "ä"])
def test_names_of_contexts_are_plain(name: str) -> None:
    with pytest.raises(InvalidRequest):
        require_context_name(name)
