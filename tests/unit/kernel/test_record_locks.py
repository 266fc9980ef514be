"""Record locks as ranges, against a model that knows every single byte."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from enisle.abi.linux_fs import F_RDLCK, F_UNLCK, F_WRLCK, FLOCK, OFFSET_MAX
from enisle.kernel.locks import RecordLock, cover, find_conflict, pack, put

OWNERS = ("a", "b", "c")
BYTES = 24

requests = st.lists(
    st.builds(
        lambda owner, kind, start, size: RecordLock(owner, 1, kind, start, min(start + size, BYTES - 1)),
        st.sampled_from(OWNERS),
        st.sampled_from((F_RDLCK, F_WRLCK, F_UNLCK)),
        st.integers(0, BYTES - 1),
        st.integers(0, 10),
    ),
    max_size=25,
)


def held(locks: list[RecordLock]) -> dict[tuple[object, int], int]:
    """Return (owner, byte) → kind, and check that no owner has two locks on a byte."""
    found: dict[tuple[object, int], int] = {}
    for lock in locks:
        for byte in range(lock.start, lock.end + 1):
            assert (lock.owner, byte) not in found, f"{lock.owner} holds byte {byte} twice"
            found[lock.owner, byte] = lock.kind
    return found


@given(requests)
def test_every_byte_is_held_as_the_requests_say(wanted: list[RecordLock]) -> None:
    locks: list[RecordLock] = []
    model: dict[tuple[object, int], int] = {}
    for request in wanted:
        span = range(request.start, request.end + 1)
        others = {model.get((owner, byte)) for owner in OWNERS if owner != request.owner for byte in span} - {None}
        excluded = bool(others) and (F_WRLCK in others or request.kind == F_WRLCK)
        if request.kind != F_UNLCK:
            assert bool(find_conflict(locks, request)) == excluded
            if excluded:
                continue
        locks = put(locks, request)
        for byte in span:
            model.pop((request.owner, byte), None)
            if request.kind != F_UNLCK:
                model[request.owner, byte] = request.kind
        assert held(locks) == model


@given(requests)
def test_neighbouring_locks_of_one_kind_are_one(wanted: list[RecordLock]) -> None:
    locks: list[RecordLock] = []
    for request in wanted:
        locks = put(locks, request)
    for one in locks:
        for other in locks:
            if one is not other and one.owner == other.owner and one.kind == other.kind:
                assert one.end + 1 != other.start


@given(requests, st.integers(0, BYTES - 1), st.integers(0, BYTES - 1))
def test_the_host_holds_the_strongest_lock_of_every_byte(wanted: list[RecordLock], one: int, other: int) -> None:
    locks: list[RecordLock] = []
    for request in wanted:
        locks = put(locks, request)
    model = held(locks)
    start, end = min(one, other), max(one, other)
    pieces = cover(locks, start, end)
    assert pieces[0][1] == start
    assert pieces[-1][2] == end
    assert all(before[2] + 1 == after[1] and before[0] != after[0] for before, after in pairwise(pieces))
    for kind, first, last in pieces:
        for byte in range(first, last + 1):
            kinds = {model[owner, byte] for owner in OWNERS if (owner, byte) in model}
            assert kind == (F_WRLCK if F_WRLCK in kinds else F_RDLCK if kinds else F_UNLCK)


def test_a_lock_to_the_end_of_all_files_has_length_zero() -> None:
    assert FLOCK.unpack(pack(F_WRLCK, 5, OFFSET_MAX)) == (F_WRLCK, 0, 5, 0, 0)
    assert FLOCK.unpack(pack(F_RDLCK, 5, 5)) == (F_RDLCK, 0, 5, 1, 0)
