"""What a call may ask for, as the platform's door and its hosts read it."""

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from enisle.control.calls import BASE64, MAX_STDIN, check_call
from enisle.errors import EnisleError, InvalidRequest


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"argv": []},
        {"argv": "ls"},
        {"argv": [1]},
        {"argv": ["a\0b"]},
        {"argv": ["x" * (40 << 10)]},
        {"env": {"A=B": "c"}},
        {"env": {"A": 1}},
        {"env": ["A=B"]},
        {"cwd": "tmp"},
        {"cwd": "/a\0b"},
        {"stdin": "\ud800"},
        {"stdin": "?", "encoding": "base64"},
        {"stdin": "x" * (MAX_STDIN + 1)},
        {"encoding": "utf-7"},
        {"memory": "lots"},
        {"memory": 5},
        {"processors": -1},
        {"processors": True},
        {"network": "pigeon"},
        {"timeout_s": 61},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"timeout_s": "10"},
        {"mounts": ["/:/"]},
        {"root": "/"},
        {"island": "web"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_call({"argv": ["true"], **wrong} if wrong and "argv" not in wrong else wrong)
    assert refused.value.message


def test_what_is_left_out_has_a_default_and_a_tenant_sees_nothing_of_the_host() -> None:
    asked = check_call({"argv": ["true"]}, "acme")
    assert (asked.timeout_s, asked.stdin, asked.env, asked.spec.configuration()) == (10.0, b"", {}, {})
    own = {"memory": "64M", "processors": 1}
    assert check_call({"argv": ["true"], **own}, "acme").spec.configuration() == own
    assert check_call({"argv": ["true"], "network": "host"}).spec.network == "host"
    with pytest.raises(InvalidRequest, match="acme cannot ask for network"):
        check_call({"argv": ["true"], "network": "host"}, "acme")


@given(some.binary(max_size=200))
def test_input_arrives_as_it_was(content: bytes) -> None:
    told = {"argv": ["cat"], "encoding": BASE64, "stdin": base64.b64encode(content).decode()}
    assert check_call(told).stdin == content


@given(some.text(some.characters(exclude_categories=["Cs"]), max_size=200))
def test_input_may_be_text(text: str) -> None:
    assert check_call({"argv": ["cat"], "stdin": text}).stdin == text.encode()


@given(
    some.dictionaries(
        some.sampled_from(["argv", "env", "cwd", "stdin", "encoding", "memory", "processors", "network", "timeout_s"]),
        some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.lists(some.text()),
    )
)
def test_nonsense_is_an_error_with_words_and_nothing_else(arguments: dict[str, Any]) -> None:
    with contextlib.suppress(EnisleError):
        assert all(isinstance(word, str) for word in check_call(arguments).argv)
