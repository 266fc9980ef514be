"""What is kept of hosts, whatever their leases say: it settles, it tells the truth, and an operator's word stays."""

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.tasks import Picture, plan
from enisle.tasks.members import FACTS, GONE, LIVE, LOST, membership
from enisle.tasks.store import Value

facts = st.one_of(st.integers(), st.floats(), st.text(max_size=300), st.none(), st.lists(st.integers(), max_size=2))
leases = st.one_of(st.none(), st.dictionaries(st.sampled_from((*FACTS, "left", "host", "other")), facts))


@settings(max_examples=200, deadline=None)
@given(st.lists(leases, max_size=8))
def test_each_word_of_a_host_is_kept_once_and_what_it_is_follows_from_the_last(said: list[Value | None]) -> None:
    picture, drained = Picture(), {"why": "a new disk"}
    for number, lease in enumerate(said):
        picture.put_lease("h1", lease)
        for _ in range(2):
            batches = list(plan(picture, 100.0 + number))
            for batch in batches:
                for key, value in batch:
                    assert key == "member.h1"
                    picture.put_member("h1", value)
        assert not batches, "it does not settle"
        member = picture.members.get("h1")
        if lease is not None:
            assert member
            assert member["state"] == (GONE if lease.get("left") else LIVE)
            assert ("h1" in picture.live) == (member["state"] == LIVE)
            assert set(member["facts"]) <= set(FACTS)
        elif member:
            assert member["state"] in (GONE, LOST)
        if member and number == 2:
            picture.put_member("h1", {**member, "drained": drained})
            assert picture.drained == {"h1"}
    if "h1" in picture.drained:
        assert picture.members["h1"]["drained"] == drained


def test_a_host_that_falls_silent_is_lost_and_one_that_left_is_gone_with_what_they_told_last() -> None:
    here = membership("h1", {"processors": 4, "started": 5.0}, None, 6.0)
    told = {"host": "h1", "joined": 6.0, "facts": {"processors": 4, "started": 5.0}}
    assert here == told | {"state": LIVE, "since": 5.0}
    assert membership("h1", None, here, 9.0) == told | {"state": LOST, "since": 9.0}
    gone = membership("h1", {"processors": 4, "started": 5.0, "left": 8.0}, here, 8.1)
    assert gone == told | {"state": GONE, "since": 8.0}
    assert membership("h1", None, gone, 99.0) is None
    assert membership("h1", None, None, 99.0) is None
