"""Lists of a guest that cannot be trusted: whole ones are whole, damaged ones end and say why."""

import random
import struct
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.introspect.lists import walk_list
from synthetic_kernel import DATA, Builder

BASE = 0xFFFF_8880_0000_0000


def _linked(order: list[int]) -> bytearray:
    """Return memory in which the nodes at 16 * n form one list, in this order."""
    memory = bytearray(16 * 4096)
    for position, number in enumerate(order):
        following, before = order[(position + 1) % len(order)], order[position - 1]
        struct.pack_into("<QQ", memory, 16 * number, BASE + 16 * following, BASE + 16 * before)
    return memory


def _walk(memory: bytes, head: int, most: int = 100_000):
    builder = Builder()
    builder.place(BASE, bytes(memory), DATA)
    return walk_list(builder.space(), BASE + 16 * head, most)


@given(st.permutations(range(40)))
@settings(max_examples=30, deadline=None)
def test_a_whole_list_is_told_in_order(order: list[int]) -> None:
    walk = _walk(_linked(order), order[0])
    assert walk.complete
    assert list(walk.nodes) == [BASE + 16 * number for number in order[1:]]


@given(st.integers(1, 38), st.integers(0, 1 << 64 - 1), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_changed_link_never_adds_and_is_told(position: int, value: int, back: bool) -> None:
    order = list(range(40))
    memory = _linked(order)
    place = 16 * position + 8 * back
    if struct.unpack_from("<Q", memory, place)[0] == value:
        return
    struct.pack_into("<Q", memory, place, value & (1 << 64) - 1)
    walk = _walk(memory, 0)
    assert not walk.complete
    assert set(walk.nodes) <= {BASE + 16 * number for number in order}
    assert list(walk.nodes) == [BASE + 16 * number for number in order[1 : len(walk.nodes) + 1]]


def test_a_loop_beside_the_head_is_told() -> None:
    memory = _linked(list(range(20)))
    struct.pack_into("<Q", memory, 16 * 15, BASE + 16 * 5)  # leads back
    struct.pack_into("<Q", memory, 16 * 5 + 8, BASE + 16 * 15)  # and even the back link agrees
    walk = _walk(memory, 0)
    assert not walk.complete
    assert len(walk.nodes) < 20


def test_a_list_without_end_is_cut() -> None:
    order = list(range(4000))
    random.Random(3).shuffle(order)
    began = time.process_time()
    walk = _walk(_linked(order), order[0], most=1000)
    assert (len(walk.nodes), walk.broken) == (1000, "more than 1000 entries")
    assert time.process_time() - began < 2


def test_a_head_that_is_not_mapped_is_told() -> None:
    assert _walk(bytes(4096), 1 << 30).broken.startswith("the head: nothing is mapped")
