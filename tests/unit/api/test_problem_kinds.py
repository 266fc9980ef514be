"""Each kind of failure has a status and a word of its own, however it is said."""

import pytest

from enisle.api.problems import document
from enisle.errors import EnisleError, GuestError, HostError, InvalidRequest, NotFound, StateError
from enisle.tasks import KeyTaken, Overloaded, Unavailable


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (InvalidRequest, 400, "invalid-request"),
        (KeyTaken, 422, "key-taken"),
        (NotFound, 404, "not-found"),
        (StateError, 409, "state-error"),
        (Overloaded, 429, "too-many"),
        (HostError, 503, "host-error"),
        (Unavailable, 503, "host-error"),
        (GuestError, 500, "guest-error"),
    ],
)
def test_a_failure_has_its_status_and_word(kind: type[EnisleError], status: int, word: str) -> None:
    told = document(kind("it failed", "for a reason", "do this"))
    assert (told["status"], told["kind"], told["detail"], told["hint"]) == (status, word, "it failed", "do this")
