"""`enisle cpu` without islands: what it prints, writes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from enisle.cli.main import main

CLI = pytest.MonkeyPatch


def run(*words: str) -> int:
    return main(["cpu", *words])


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that must succeed and return its JSON."""

    def ask(*words: str) -> Any:
        assert run(*words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return ask


@pytest.fixture
def dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "host.json")
    assert run("dump", "--output", path) == 0
    assert path in capsys.readouterr().out
    return path


def test_a_dump_tells_what_the_host_is(told: Any, dump: str) -> None:
    record = told("dump")
    assert {"vendor", "brand", "model", "features", "xcr0", "entries", "digest"} <= set(record)
    assert "sse2" in record["features"]
    assert json.loads(Path(dump).read_text())["digest"] == record["digest"]


def test_people_and_programs_read_every_verb(dump: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["dump"],
        ["strip", dump],
        ["baseline", dump],
        ["show", "x86-64-v2"],
        ["diff", dump, "x86-64-v2"],
        ["levels"],
    ):
        assert run(*words) == 0, words
        text = capsys.readouterr().out
        assert text
        assert "{" not in text
        assert run(*words, "--json") == 0, words
        json.loads(capsys.readouterr().out)


def test_levels_tell_which_the_host_can_be(told: Any) -> None:
    rows = {row["name"]: row for row in told("levels")}
    assert list(rows) == ["host", "x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
    assert rows["x86-64-v1"]["possible"]
    assert "sse4_2" in rows["x86-64-v2"]["demands" if rows["x86-64-v2"]["possible"] else "missing"]


def test_a_baseline_of_a_host_is_what_the_host_can_be(told: Any, dump: str, tmp_path: Path) -> None:
    output = str(tmp_path / "domain.json")
    value = told("baseline", dump, "host", "--name", "rack1", "--output", output)
    assert value["name"] == "rack1"
    assert told("show", output)["digest"] == value["digest"]
    assert set(value["demands"]) <= set(told("dump")["features"])
    assert told("diff", output, output)["same"]


def test_a_signed_value_is_asked_for_its_signature(
    told: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other, output = (str(tmp_path / name) for name in ("key", "other", "v.json"))
    Path(key).write_bytes(b"a" * 32)
    Path(other).write_bytes(b"b" * 32)
    assert run("show", "x86-64-v2", "--key", key, "--output", output) == 0
    assert run("show", output, "--key", key) == 0
    capsys.readouterr()
    assert run("show", output, "--key", other) == 2
    assert "not signed with this key" in capsys.readouterr().err


def test_values_compose(told: Any) -> None:
    both = told("show", "x86-64-v3", "--cpu", "x86-64-v2", "--cpu-require", "detect")
    assert "avx" not in both["shows"]
    assert both["require"] == "detect"


def test_a_difference_names_both_sides(told: Any) -> None:
    record = told("diff", "x86-64-v2", "x86-64-v3")
    assert "avx2" in record["only_second"]
    assert record["only_first"] == []
    assert not record["same"]
    assert any("avx2" in line for line in record["first_loses"])


def test_stripping_leaves_what_differs(told: Any, dump: str) -> None:
    assert all(entries == [] for entries in told("strip", dump, "host").values())
    assert told("strip", dump)[dump]


def test_qemu_gets_words_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "x86-64-v2", "--qemu") == 0
    text = capsys.readouterr().out
    assert text.startswith("base,vendor=")
    assert "+sse4.2" in text
    assert "+avx" not in text


BAD = {
    "no verb": ([], 2, "cpu does what?"),
    "another verb": (["frob"], 2, "cpu cannot 'frob'"),
    "a word too many": (["dump", "x"], 2, "takes no 'x'"),
    "one side of a difference": (["diff", "host"], 2, "compares two"),
    "a file that is not there": (["baseline", "nothere"], 3, "there is no nothere"),
    "a value that is not there": (["show", "x86-64-v9"], 3, "x86-64-v4"),
    "no dumps": (["strip"], 2, "no dumps"),
    "another processor": (["dump", "--processor", "z80"], 2, "z80"),
    "another requirement": (["show", "host", "--cpu-require", "maybe"], 2, "enforced"),
    "islands on the bare host": (["verify", "--processor", "host"], 2, "bare host"),
    "a key that is not there": (["show", "host", "--key", "nothere"], 3, "nothere"),
    "a place that cannot be written": (["dump", "--output", "/proc/nothere/x"], 5, "cannot write"),
}


@pytest.mark.parametrize("what", BAD)
def test_nonsense_is_refused_in_three_lines(
    what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: CLI
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, expected = BAD[what]
    assert run(*words) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert expected in told.err
    assert "Traceback" not in told.err


def test_a_dump_cut_off_is_refused(dump: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(dump).write_text(Path(dump).read_text()[:500])
    assert run("baseline", dump) == 2
    assert "cut off" in capsys.readouterr().err
