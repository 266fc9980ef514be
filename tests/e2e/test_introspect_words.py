"""Words that `enisle introspect` cannot use are told in three lines: what, why, and what to type."""

from pathlib import Path

import pytest

from commandline import enisle

WRONG: dict[str, tuple[int, str]] = {
    "": (2, "needs a target and a view"),
    "web": (2, "needs a target and a view"),
    "web foo": (2, "there is no view 'foo'"),
    "web ps extra": (2, "ps takes no 'extra'"),
    "web watch": (2, "watch needs a function"),
    "web ps --baseline x": (2, "ps has no use for --baseline"),
    "web facts --live": (2, "facts has no use for --live"),
    "web ps --count 3": (2, "ps has no use for --count"),
    "web check --record": (2, "--record needs a file"),
    "web check --watch": (2, "check is not shown again and again"),
    "web ps --watch --interval 0": (2, "--interval must be more than 0"),
    "web watch sys:read --seconds -1": (2, "watching cannot end before it begins"),
    "nothere ps": (3, "there is nothing to look into called 'nothere'"),
    "{empty} ps": (3, "holds no saved guest"),
    "{image} ps": (2, "comes without registers"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words_are_told_with_a_reason_and_a_hint(words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "image").write_bytes(bytes(8192))
    places = {"empty": str(tmp_path / "empty"), "image": str(tmp_path / "image")}
    refused = enisle("introspect", *(word.format(**places) for word in words.split()))
    code, said = WRONG[words]
    assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    lines = refused.stderr.splitlines()
    assert len(lines) == 3, refused.stderr
    assert lines[0].startswith("enisle: ")
    assert lines[2].startswith("  hint: ")
