"""As whom an engine is reached: one URL says it, for the store and for questions, of one server or several."""

import pytest

from enisle.tasks import is_own, spread
from enisle.tasks.connection import questions_url


@pytest.mark.parametrize(
    ("url", "asked", "own"),
    [
        ("nats://enisle:p@127.0.0.1:4?state=/a/b", "nats://questions:p@127.0.0.1:4?state=/a/b", True),
        ("nats://enisle:p@a,b:5?questions=asker", "nats://asker:p@a,b:5?questions=asker", False),
        ("tls://enisle:p@a,b", "tls://enisle:p@a,b", False),
        ("nats://a:4222?questions=asker", "nats://a:4222?questions=asker", False),
    ],
)
def test_questions_are_asked_as_another_user_where_there_is_one(url: str, asked: str, own: bool) -> None:
    assert (questions_url(url), is_own(url)) == (asked, own)


def test_each_of_several_servers_is_spoken_to_as_the_first_says() -> None:
    assert spread([questions_url("nats://enisle:p@a,b:5?questions=asker")]) == [
        "nats://asker:p@a",
        "nats://asker:p@b:5?questions=asker",
    ]
