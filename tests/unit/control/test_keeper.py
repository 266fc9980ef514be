"""How an island's end is told: by whoever says it first, and nothing begins afterwards."""

import os
from typing import Any

import pytest

from enisle.control.keeper import Keeper
from enisle.errors import StateError


def test_the_first_word_about_an_end_counts_and_nothing_begins_after_it() -> None:
    """A program that ended says how; that its island is gone a moment later is no other end."""
    keeper: Any = object.__new__(Keeper)
    keeper._end, keeper._wake = None, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    keeper.end("exited", 3)
    keeper.end("lost", reason="its process died")
    assert (keeper._end["state"], keeper._end["exit_code"], keeper._end["reason"]) == ("exited", 3, "")
    with pytest.raises(StateError, match="ending"):
        keeper._start({"task": "t", "token": 1, "argv": ["true"]}, b"")
    os.close(keeper._wake)
