"""Fencing tokens of an island: an older order is refused, also after a restart and beside a torn write."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.control.fence import PLACE, Fence
from enisle.control.wire import StaleToken


def test_an_older_token_is_refused_by_the_next_keeper_too(tmp_path: Path) -> None:
    fence = Fence(str(tmp_path / "token"))
    fence.admit(7, shared=False)
    with pytest.raises(StaleToken, match="replaced"):
        fence.admit(6, shared=False)
    fence.close()
    again = Fence(str(tmp_path / "token"))
    with pytest.raises(StaleToken):
        again.admit(6, shared=True)
    again.admit(7, shared=False)


def test_those_who_share_do_not_outdate_each_other(tmp_path: Path) -> None:
    fence = Fence(str(tmp_path / "token"))
    fence.admit(5, shared=False)
    fence.admit(9, shared=True)
    fence.admit(7, shared=True)
    with pytest.raises(StaleToken):
        fence.admit(8, shared=False)
    fence.admit(10, shared=False)
    with pytest.raises(StaleToken):
        fence.admit(9, shared=True)


@settings(deadline=None)  # it waits for the disk
@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.booleans()), max_size=12),
    st.integers(0, 2 * PLACE.size - 1),
    st.booleans(),
)
def test_a_torn_write_never_lowers_what_was_there_before_it(
    tmp_path_factory: pytest.TempPathFactory, orders: list[tuple[int, bool]], torn: int, spoilt: bool
) -> None:
    """Of the last write only a beginning may have come to the disk, or a byte of it may be another."""
    path = tmp_path_factory.mktemp("fence") / "token"
    fence = Fence(str(path))
    before, last, older = (0, 0), (0, 0), path.read_bytes()
    for token, shared in orders:
        content = path.read_bytes()
        try:
            fence.admit(token, shared)
        except StaleToken:
            continue
        if (fence.alone, fence.highest) != last:
            before, last, older = last, (fence.alone, fence.highest), content
    fence.close()
    newer = path.read_bytes()
    content = bytearray(newer[:torn] + older[torn:])
    written = {place // PLACE.size for place in range(len(newer)) if newer[place] != older[place]}
    if spoilt and torn // PLACE.size in written:
        content[torn] ^= 0x55
    path.write_bytes(content)
    found = Fence(str(path))
    assert (found.alone, found.highest) in (before, last)
    found.close()
