"""Changes of code that a kernel makes itself are told from others."""

import struct

import pytest

from enisle.introspect.patching import NOP5, PatchSites
from synthetic_kernel import DATA, READ_ONLY, START, TEXT, Builder

TABLE, KEYS = START + 0x4000, START + 0x8000
PLACES = [START + 16 * number for number in range(100)]
OUTSIDE = 0xFFFF_FFFF_C046_4000


def _branch(opcode: int, at: int, target: int) -> bytes:
    return bytes([opcode]) + struct.pack("<i", target - at - 5)


def _sites() -> PatchSites:
    """Return the places of an image with a hundred jump labels, each leading 8 bytes on."""
    builder = Builder()
    builder.place(START, NOP5.ljust(16, b"\x90") * 256, TEXT)
    entries = b""
    for number, place in enumerate(PLACES):
        at = TABLE + 16 * number
        entries += struct.pack("<iiq", place - at, place + 8 - at - 4, KEYS + 16 * number - at - 8)
    builder.place(TABLE, entries, READ_ONLY)
    builder.place(KEYS, bytes(0x1000), DATA)
    return PatchSites(builder.image(START, START + 0x10_0000), tracing=START + 0xC00)


def _explain(at: int, old: bytes, new: bytes, trampoline: int = 0) -> str | None:
    before, after = (bytes(8) + code.ljust(16, b"\x90") for code in (old, new))
    return _sites().explain(at, before, after, lambda target: target == trampoline)


def test_the_table_of_jump_labels_is_found_whole() -> None:
    assert _sites().jumps == {place: place + 8 for place in PLACES}


def test_a_jump_label_may_be_switched_and_nothing_else_be_put_there() -> None:
    place = PLACES[5]
    assert _explain(place, NOP5, _branch(0xE9, place, place + 8)) == "jump label"
    assert _explain(place, NOP5, _branch(0xE9, place, place + 24)) is None
    assert _explain(place, NOP5, _branch(0xE9, place, OUTSIDE)) is None
    assert _explain(place, NOP5, b"\xcc") is None


@pytest.mark.parametrize("target", [START + 0x100, OUTSIDE])
def test_tracing_calls_the_kernel_or_its_own_trampoline(target: int) -> None:
    place = START + 0xF00
    call = _branch(0xE8, place, target)
    assert _explain(place, NOP5, call, trampoline=target) == "function tracing"
    assert _explain(place, call, NOP5) == "function tracing"
    assert (_explain(place, NOP5, call) is None) == (target == OUTSIDE)


def test_tracing_may_turn_its_own_calls() -> None:
    place = START + 0xC80
    old, new = (_branch(0xE8, place, START + offset) for offset in (0x100, 0x200))
    assert _explain(place, old, new) == "function tracing"
    assert _explain(place, old, _branch(0xE8, place, OUTSIDE)) is None


def test_other_changes_are_not_explained() -> None:
    place = START + 0x800
    call, jump = _branch(0xE8, place, START), _branch(0xE9, place, START)
    for old, new in (
        (call, _branch(0xE8, place, START + 64)),
        (NOP5, jump),
        (b"\x31\xc0", b"\x90\x90"),
        (call, b"\xcc"),
    ):
        assert _explain(place, old, new) is None
