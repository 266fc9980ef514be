"""What can never work as a task, told before anything is stored."""

import pytest

from enisle.errors import InvalidRequest
from enisle.tasks import PINNED, Request, Resource

BAD = {
    "no such name": {"routine": "sleep"},
    "wild name": {"routine": "platform.sleep@1; rm"},
    "a dot in a resource": {"resources": (Resource("island", "a.b"),)},
    "a wildcard": {"resources": (Resource("island", "*"),)},
    "a way up": {"resources": (Resource("island", "../a"),)},
    "a long name": {"resources": (Resource("island", "x" * 300),)},
    "an emoji": {"resources": (Resource("island", "🏝"),)},
    "twice the same": {"resources": (Resource("island", "a"), Resource("island", "a", "shared"))},
    "65 of them": {"resources": tuple(Resource("island", f"r{n}") for n in range(65))},
    "a wild mode": {"resources": (Resource("island", "a", "mine"),)},
    "2 MB": {"arguments": {"x": "y" * (2 << 20)}},
    "not a number": {"arguments": {"x": float("nan")}},
    "half a character": {"arguments": {"x": "\ud800"}},
    "a list": {"arguments": [1]},
    "minus a second": {"deadline_s": -1.0},
    "for ever": {"deadline_s": float("inf")},
    "never a number": {"deadline_s": float("nan")},
    "a billion attempts": {"attempts": 10**9},
    "pinned nowhere": {"placement": PINNED},
    "a host of two tokens": {"host": "a.b"},
}


@pytest.mark.parametrize("wrong", BAD)
def test_what_can_never_work_is_refused_before_it_is_stored(wrong: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Request(**({"routine": "platform.sleep@1"} | BAD[wrong])).check()  # pyright: ignore
    assert len(str(refusal.value)) < 500
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"x": deep}
    with pytest.raises(InvalidRequest):
        Request("platform.sleep@1", deep).check()
