"""Fencing tokens of an island: an older order is refused, also after a restart and beside a torn write."""

from pathlib import Path

import pytest
from hypothesis import given
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


@given(st.lists(st.tuples(st.integers(0, 2**62), st.booleans()), max_size=12), st.integers(0, 2 * PLACE.size - 1))
def test_a_torn_write_never_lowers_what_was_there_before_it(
    tmp_path_factory: pytest.TempPathFactory, orders: list[tuple[int, bool]], torn: int
) -> None:
    path = tmp_path_factory.mktemp("fence") / "token"
    fence = Fence(str(path))
    before, last = (0, 0), (0, 0)
    for token, shared in orders:
        try:
            fence.admit(token, shared)
        except StaleToken:
            continue
        if (fence.alone, fence.highest) != last:
            before, last = last, (fence.alone, fence.highest)
    fence.close()
    turn = fence._turn  # the place written last is the other one
    content = bytearray(path.read_bytes())
    if torn // PLACE.size != turn:
        content[torn] ^= 0x55
    path.write_bytes(content)
    found = Fence(str(path))
    assert (found.alone, found.highest) in (before, last)
    found.close()
