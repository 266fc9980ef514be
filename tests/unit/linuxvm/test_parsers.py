"""What QEMU prints and writes, read: recorded from QEMU 7.2 with two processors, whole, cut short and damaged.

`stream.gz` is such a stream without the sections of the firmware's memory.
"""

import gzip
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import GuestError
from enisle.linuxvm.memory_map import Range, join, parse_memory_map
from enisle.linuxvm.registers import ProcessorRegisters, parse_registers
from enisle.linuxvm.vmstate import parse_msrs

RECORDED = Path(__file__).parent / "recorded"
REGISTERS = (RECORDED / "registers.txt").read_text()
STREAM = gzip.decompress((RECORDED / "stream.gz").read_bytes())
MAPS = {name: (RECORDED / f"mtree-{name}.txt").read_text() for name in ("256m", "3g")}


def test_registers_of_every_processor_are_read() -> None:
    first, second = parse_registers(REGISTERS)
    assert (first.number, second.number) == (0, 1)
    assert first.rip == second.rip == 0xFFFFFFFFA400CF9B
    assert (first.rflags, first.cpl, first.halted) == (0x246, 0, True)
    assert first.general["r8"] == 0xFFFFFFFFFFCA1FC2
    assert first.general["rdx"] == 0x4000000000000000
    assert second.control["cr3"] == 0xDA10000
    assert first.control["efer"] == 0xD01
    assert first.control["cr4"] == 0x751EB0
    assert first.segments["gs"].base == 0xFF33B6B7CF600000
    assert (first.segments["cs"].selector, first.segments["cs"].flags) == (0x10, 0x00AF9B00)
    assert (first.idt.base, first.idt.limit) == (0xFFFFFE0000000000, 0xFFF)
    assert second.gdt.base == 0xFFFFFE000003C000


def test_flat_registers_have_one_name_each() -> None:
    flat = parse_registers(REGISTERS)[1].flat()
    assert (flat["cr3"], flat["cs"], flat["idt_limit"]) == (0xDA10000, 0x10, 0xFFF)
    assert (flat["gs_base"], flat["tr_base"], flat["r12"]) == (0xFF33B6B7CF700000, 0xFFFFFE000003E000, 1)


def test_a_processor_outside_long_mode_is_read_too() -> None:
    narrow = re.sub(r"\bR([A-D]X|[SD]I|[BS]P|IP|FL)=[0-9a-f]{0,8}([0-9a-f]{8})", r"E\1=\2", REGISTERS)
    narrow = re.sub(r"\bR\d+ ?=[0-9a-f]+", "", narrow)
    narrow = re.sub(r"(?m)^([A-Z]{2,3} ?=[0-9a-f ]{0,5})[0-9a-f]{8}([0-9a-f]{8} )", r"\1\2", narrow)
    first = parse_registers(narrow)[0]
    assert first.rip == 0xA400CF9B
    assert (first.general["rsp"], first.general["r8"]) == (0xA5003E90, 0)


@given(st.integers(0, len(REGISTERS)))
def test_registers_cut_short_are_never_made_up(length: int) -> None:
    whole = parse_registers(REGISTERS)
    try:
        found = parse_registers(REGISTERS[:length])
    except GuestError:
        return
    # Beyond a processor's last register that is read nothing is missing; a number may be cut in the very last one.
    assert len(found) <= 2
    assert found[:-1] == whole[: len(found) - 1]
    assert isinstance(found[-1], ProcessorRegisters)


@given(st.text(alphabet="CPU#0123456789ABCDEFabcdefRIXSL= \n", max_size=400))
def test_any_text_is_registers_or_an_error(text: str) -> None:
    try:
        assert parse_registers("CPU#0\n" + text)
    except GuestError:
        pass


def test_a_map_below_the_hole_is_one_range() -> None:
    assert parse_memory_map(MAPS["256m"], "ram") == (Range(0, 256 << 20, 0),)


def test_a_map_around_the_hole_is_two_ranges_of_one_backend() -> None:
    # q35 gives 2 GiB below 4 GiB when there is more than fits.
    assert parse_memory_map(MAPS["3g"], "ram") == (Range(0, 2 << 30, 0), Range(4 << 30, 1 << 30, 2 << 30))


def test_a_map_without_the_backend_is_an_error() -> None:
    with pytest.raises(GuestError, match="no RAM"):
        parse_memory_map(MAPS["256m"], "other")
    with pytest.raises(GuestError):
        parse_memory_map("", "ram")


@given(st.data())
def test_a_damaged_map_is_ranges_or_an_error(data: st.DataObject) -> None:
    text = bytearray(MAPS["3g"].encode())
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=20)):
        text[at] = data.draw(st.integers(32, 126))
    try:
        ranges = parse_memory_map(bytes(text).decode(), "ram")
    except GuestError:
        return
    assert all(piece.size > 0 and piece.gpa >= 0 for piece in ranges)


@given(st.lists(st.integers(0, 40), unique=True))
def test_joined_ranges_cover_what_they_were_made_of(pages: list[int]) -> None:
    joined = join(Range(page << 12, 4096, page << 12) for page in pages)
    covered = {at >> 12 for piece in joined for at in range(piece.gpa, piece.gpa + piece.size, 4096)}
    assert covered == set(pages)
    assert all(left.gpa + left.size < right.gpa for left, right in itertools.pairwise(joined))


def test_model_specific_registers_are_read_from_the_stream() -> None:
    first, second = parse_msrs(STREAM)
    assert first[0xC000_0082] == second[0xC000_0082] == 0xFFFFFFFFA4200080
    assert first[0xC000_0081] == 0x23001000000000
    assert (first[0xC000_0103], second[0xC000_0103]) == (0, 1)
    assert second[0x175] == 0xFFFFFE000003E000
    assert second[0x1A0] == 0x40001  # told in a subsection


@given(st.integers(0, len(STREAM) - 1))
def test_a_stream_cut_short_is_an_error(length: int) -> None:
    with pytest.raises(GuestError):
        parse_msrs(STREAM[:length])


@given(st.data())
def test_a_damaged_stream_is_read_or_refused(data: st.DataObject) -> None:
    stream = bytearray(STREAM)
    # Half of the damage where it hurts most: the description and the sections of the processors.
    places = st.one_of(st.integers(0, len(stream) - 1), st.integers(stream.index(b"\x03cpu\0"), len(stream) - 1))
    for at in data.draw(st.lists(places, min_size=1, max_size=8)):
        stream[at] ^= data.draw(st.integers(1, 255))
    try:
        found = parse_msrs(bytes(stream))
    except GuestError:
        return
    assert all(0 <= value < 1 << 64 for own in found for value in own.values())


@pytest.mark.parametrize(
    "description",
    [
        b"[]",
        b"{}",
        b'{"devices": 3}',
        b'{"devices": [{"name": "cpu", "vmsd_name": "cpu"}]}',
        b'{"devices": [{"name": "cpu", "vmsd_name": "cpu", "instance_id": 7, "fields": []}]}',
        b'{"devices": [{"name": "cpu", "vmsd_name": "cpu", "instance_id": 0, "fields": 3}]}',
        b'{"devices": [{"name": "cpu", "vmsd_name": "cpu", "instance_id": 0, "fields": [{"size": -1}]}]}',
        b'{"devices": [{"name": "cpu", "vmsd_name": "cpu", "instance_id": 0, "fields": [{"size": "x"}]}]}',
        b'{"devices": [{"name": "cpu", "vmsd_name": "cpu", "instance_id": 0, "fields": [[]]}]}',
        b'{"devices": ' + b"[" * 100_000 + b"}",
    ],
)
def test_a_description_that_makes_no_sense_is_refused(description: bytes) -> None:
    cpu = b"\x04\0\0\0\1\x03cpu\0\0\0\0\0\0\0\x0c\x7e\0\0\0\1"
    with pytest.raises(GuestError):
        parse_msrs(b"QEVM\0\0\0\3" + cpu + b"\x06" + len(description).to_bytes(4, "big") + description)
