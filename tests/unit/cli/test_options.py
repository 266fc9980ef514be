"""Words become options."""

import io
import sys

import pytest

from enisle.cli.grammar import help_of
from enisle.cli.local_options import LOCAL
from enisle.cli.options import ABOUT, NOUNS, RUN_VERB, TOP, parse
from enisle.cli.output import say
from enisle.errors import InvalidRequest


def test_options_end_at_the_program_or_at_two_dashes() -> None:
    options = parse(["run", "--trace", "--memory", "1G", "ls", "--json", "--", "-l"])
    assert options.command == ["ls", "--json", "--", "-l"]
    assert (options.trace, options.json, options.memory) == (True, False, "1G")
    assert parse(["run", "--", "--stats"]).command == ["--stats"]
    assert parse(["run", "-"]).command == ["-"]


def test_a_value_stands_behind_its_option_or_an_equals_sign() -> None:
    options = parse(["run", "--mount=/a=b:/c", "--mount", "/d:/e", "--timeout=2.5", "--processors", "3", "true"])
    assert options.mounts == ["/a=b:/c", "/d:/e"]
    assert (options.timeout, options.processors, options.variables) == (2.5, 3, [])
    assert parse(["run", "--timeout", "-3", "true"]).timeout == -3
    assert parse(["run", "true"]).mounts == []


def test_debug_may_stand_before_and_behind_the_verb() -> None:
    assert parse(["--debug", "run", "true"]).debug
    assert parse(["run", "--debug", "true"]).debug
    assert not parse(["run", "true"]).debug


@pytest.mark.parametrize(
    "words",
    [["run", "--mem", "1G", "true"], ["run", "-x", "true"], ["run", "--env"], ["run", "--processes", "1.5", "x"]],
)
def test_words_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        parse(words)


@pytest.mark.parametrize("verb", [TOP, RUN_VERB, *LOCAL.values()], ids=lambda verb: verb.usage)
def test_help_tells_every_option_within_a_hundred_columns(verb: object) -> None:
    text = help_of(verb)  # type: ignore[arg-type]
    assert all(option.flag in text for _, group in verb.groups for option in group)  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 100


def test_every_verb_has_a_page() -> None:
    assert {"run", "help"} | set(LOCAL) | NOUNS == set(ABOUT)


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["rnu", "ls"], "run"), (["run", "--memroy", "1G", "ls"], "--memory"), (["isnpect", "page-tables"], "inspect")],
)
def test_who_mistypes_is_told_what_there_is(words: list[str], meant: str) -> None:
    with pytest.raises(InvalidRequest) as found:
        parse(words)
    assert found.value.why == f"did you mean {meant}?"


def test_what_an_encoding_has_no_sign_for_is_printed_as_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("a…b\n")
    assert written.getvalue() == b"a?b\n"


def test_help_is_a_verb_too(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["help"], ["help", "run"], ["help", "cpu"]):
        with pytest.raises(SystemExit) as ended:
            parse(words)
        assert ended.value.code == 0
    assert capsys.readouterr().out.count("usage: enisle ") == 3
