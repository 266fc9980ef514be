"""Page tables of a guest: translations against a model, and tables that mean harm."""

import os
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.introspect import Segments, Unmapped
from enisle.introspect.paging import AddressSpace
from synthetic_kernel import DATA, TEXT, Builder

PAGES = st.dictionaries(st.integers(0, 255), st.sampled_from([TEXT, DATA]), min_size=1, max_size=20)


@given(PAGES, st.sampled_from([4, 5]), st.sampled_from([0, 0xFFFF_FFFF_8000_0000, 0xFFFF_8880_0000_0000]))
@settings(max_examples=40, deadline=None)
def test_every_mapped_page_and_no_other_is_found(pages: dict[int, int], levels: int, base: int) -> None:
    builder = Builder(levels)
    placed = {number: builder.place(base + number * 4096, b"%5d" % number, flags) for number, flags in pages.items()}
    space = builder.space()
    for number, gpa in placed.items():
        assert space.translate(base + number * 4096 + 7) == gpa + 7
        assert space.read(base + number * 4096, 5) == b"%5d" % number
    for number in set(range(256)) - pages.keys():
        with pytest.raises(Unmapped):
            space.translate(base + number * 4096)
    regions = list(space.regions(base, base + (1 << 20)))
    assert [region.start for region in regions] == sorted(base + number * 4096 for number in pages)
    assert {region.start: region.executable for region in regions} == {
        base + number * 4096: flags == TEXT for number, flags in pages.items()
    }


@pytest.mark.parametrize("shift", [21, 30])
def test_large_pages_cover_their_whole_size(shift: int) -> None:
    builder = Builder()
    builder.map(0xFFFF_FFFF_8000_0000, 1 << 30, DATA, shift)
    space = builder.space()
    inside = 0xFFFF_FFFF_8000_0000 + (1 << shift) - 5
    assert space.translate(inside) == (1 << 30) + (1 << shift) - 5
    assert [region.size for region in space.regions(0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000)] == [1 << shift]


def test_rights_are_those_of_the_whole_path() -> None:
    builder = Builder()
    builder.place(0xFFFF_FFFF_8000_0000, b"x", TEXT | 2)
    table = builder.root + (0xFFFF_FFFF_8000_0000 >> 39 & 511) * 8
    entry = struct.unpack_from("<Q", builder.memory, table)[0]
    struct.pack_into("<Q", builder.memory, table, entry & ~2 | 1 << 63)
    (region,) = builder.space().regions(0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_8000_1000)
    assert (region.writable, region.executable) == (False, False)


@pytest.mark.parametrize("address", [0x0001_0000_0000_0000, 0x8000_0000_0000_0000, 0xFF00_0000_0000_0000])
def test_addresses_that_are_not_canonical_are_unmapped(address: int) -> None:
    builder = Builder()
    builder.place(0, b"x", DATA)
    with pytest.raises(Unmapped):
        builder.space().translate(address)


def test_reads_cross_pages_and_stop_at_holes() -> None:
    builder = Builder()
    builder.place(0x10_0000, b"a" * 4096 + b"b" * 4096, DATA)
    space = builder.space()
    assert space.read(0x10_0FFE, 4) == b"aabb"
    assert space.string(0x10_1FFE) == b"bb"
    with pytest.raises(Unmapped):
        space.read(0x10_1FFE, 4)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_table_that_is_its_own_child_ends_at_the_budget(levels: int) -> None:
    memory = bytearray(1 << 20)
    for index in range(512):
        struct.pack_into("<Q", memory, 0x1000 + index * 8, 0x1003)
    space = AddressSpace(Segments(memoryview(memory), [(0, len(memory), 0)]), 0x1000, levels)
    began = time.process_time()
    regions = space.regions(0, 1 << 64, budget=200)
    assert sum(1 for _ in regions) <= 200 * 512
    assert regions.truncated
    assert time.process_time() - began < 2


def test_random_memory_ends() -> None:
    space = AddressSpace(Segments(memoryview(os.urandom(4 << 20)), [(0, 4 << 20, 0)]), 0x1000, 4)
    assert sum(1 for _ in space.regions(1 << 63, 1 << 64, budget=300)) < 300 * 512
