"""Export tables: found by what cannot be chance, right to the last entry."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.introspect.exports import Exports, find_exports
from synthetic_kernel import DATA, READ_ONLY, START, TEXT, Builder, ksymtab

RODATA = START + 0x10_0000
NAMES = RODATA + 0x2_0000


def _symbols(count: int, seed: int = 1) -> dict[bytes, int]:
    chance = random.Random(seed)
    return {b"symbol_%05d" % chance.randrange(10**5): START + chance.randrange(0x1000) for _ in range(count)}


def _find(symbols: dict[bytes, int], stride: int = 12, flags: int = READ_ONLY, extra: bytes = b"") -> Exports:
    builder = Builder()
    builder.place(START, bytes(0x1000), TEXT)
    table, names = ksymtab(RODATA + 0x100, NAMES, symbols, stride)
    content = bytes(0x100) + table + extra
    builder.place(RODATA, content.ljust(0x2_0000, b"\0") + names, flags)
    if flags != READ_ONLY:
        builder.place(START + 0x8000, bytes(0x4000), READ_ONLY)
    return find_exports(builder.image(START, START + 0x100_0000))


@pytest.mark.parametrize("stride", [12, 8])
def test_all_exports_are_found_at_their_addresses(stride: int) -> None:
    symbols = _symbols(800)
    found = _find(symbols, stride)
    assert found.by_name == {name.decode(): value for name, value in symbols.items()}
    assert [table.stride for table in found.tables] == [stride]


@given(st.integers(101, 400), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_tables_of_any_length_are_found(count: int, seed: int) -> None:
    symbols = _symbols(count, seed)
    if len(symbols) > 100:
        assert len(_find(symbols).by_name) == len(symbols)


def test_values_of_per_cpu_variables_wrap_around() -> None:
    symbols = _symbols(300) | {b"per_cpu_one": 0x1FB80, b"per_cpu_two": 0}
    found = _find(symbols)
    assert (found.by_name["per_cpu_one"], found.by_name["per_cpu_two"]) == (0x1FB80, 0)


def test_names_may_be_the_tails_of_others() -> None:
    symbols = _symbols(300)
    builder = Builder()
    builder.place(START, bytes(0x1000), TEXT)
    table, names = ksymtab(RODATA + 0x100, NAMES, symbols)
    names = names.replace(b"\0", b"Z", 1)  # the first name now begins inside another
    builder.place(RODATA, (bytes(0x100) + table).ljust(0x2_0000, b"\0") + names, READ_ONLY)
    found = find_exports(builder.image(START, START + 0x100_0000))
    assert found.by_name == {name.decode(): value for name, value in symbols.items()}


def test_tables_in_writable_memory_are_not_believed() -> None:
    assert _find(_symbols(400), flags=DATA).by_name == {}


def test_a_name_with_two_values_is_forgotten() -> None:
    exports = Exports()
    for name, value in (("one", START), ("two", START + 8), ("one", START + 16)):
        exports.add(name, value)
    exports.settle()
    assert exports.by_name == {"two": START + 8}
    assert exports.conflicts == {"one"}


def test_disordered_names_are_no_table() -> None:
    symbols = _symbols(400)
    builder = Builder()
    builder.place(START, bytes(0x1000), TEXT)
    table, names = ksymtab(RODATA, NAMES, symbols)
    entries = [table[at : at + 12] for at in range(0, len(table), 12)]
    random.Random(2).shuffle(entries)
    builder.place(RODATA, b"".join(entries).ljust(0x2_0000, b"\0") + names, READ_ONLY)
    assert find_exports(builder.image(START, START + 0x100_0000)).by_name == {}


@given(st.binary(min_size=1, max_size=64), st.integers(0, 4095))
@settings(max_examples=30, deadline=None)
def test_any_bytes_are_looked_through_without_trouble(pattern: bytes, shift: int) -> None:
    builder = Builder()
    builder.place(START, (bytes(shift) + pattern * (16384 // len(pattern)))[:16384], READ_ONLY)
    assert find_exports(builder.image(START, START + 0x100_0000)).by_name == {}
