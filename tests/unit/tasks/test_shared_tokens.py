"""Tokens of tasks that share a resource: they do not outdate each other; whoever holds it alone outdates them."""

from pathlib import Path

import pytest

from enisle.tasks import Journal, StaleToken

ISLAND = "lock.island.web"


def test_who_shares_does_not_outdate_another(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal.admit([], 7, "older", 1, [ISLAND])
        journal.admit([], 9, "newer", 1, [ISLAND])
        assert journal.admit([], 7, "older", 1, [ISLAND]) == 2


def test_who_holds_it_alone_outdates_all_before(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal.admit([], 9, "shares", 1, [ISLAND])
        with pytest.raises(StaleToken):
            journal.admit([ISLAND], 8, "alone", 1)
        journal.admit([ISLAND], 10, "alone", 1)
        with pytest.raises(StaleToken):
            journal.admit([], 9, "shares", 1, [ISLAND])
        journal.admit([], 11, "later", 1, [ISLAND])
