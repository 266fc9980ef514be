"""Changes of code that a kernel makes itself are told from others."""

import struct

import pytest

from enisle.introspect.patching import NOP5, PatchSites
from synthetic_kernel import DATA, READ_ONLY, START, TEXT, Builder

TABLE, SITES, KEYS = START + 0x4000, START + 0x6000, START + 0x8000
PLACES = [START + 16 * number for number in range(100)]
TRACING = START + 0xC00
CALLS = START + 0x2000
"""A hundred static calls, 16 bytes apart; every key has two of them."""
FUNCTION, OTHER, THUNK = START + 0x2800, START + 0x2900, START + 0x2A00
TRAMPOLINE, KNOWN, LONELY = START + 0x3000, START + 0x3008, START + 0x3010
"""Trampolines: one in the table for modules, a tracepoint's, and one that nothing tells the key of."""
OUTSIDE = 0xFFFF_FFFF_C046_4000
RET = b"\xc3\xcc\xcc\xcc\xcc"
ZERO = b"\x2e\x2e\x2e\x31\xc0"


def _key(number: int) -> int:
    return KEYS + 0x800 + 16 * (number // 2)


def _branch(opcode: int, at: int, target: int) -> bytes:
    return bytes([opcode]) + struct.pack("<i", target - at - 5)


def _sites(now: dict[int, int] | None = None) -> PatchSites:
    """Return the places of an image with a hundred jump labels, each leading 8 bytes on, and a hundred static calls.

    `now` are the functions of keys that have changed since.
    """
    builders = [_image({}), _image(now or {})]
    images = [builder.image(START, START + 0x10_0000) for builder in builders]
    return PatchSites(*images, tracing=TRACING)


def _image(changed: dict[int, int]) -> Builder:
    builder = Builder()
    code = bytearray(NOP5.ljust(16, b"\x90") * 1024)
    for number in range(100):
        at = CALLS + 16 * number
        code[at - START : at - START + 5] = _code(number, at)
    for at in (TRAMPOLINE, KNOWN, LONELY):
        code[at - START : at - START + 8] = _branch(0xE9, at, FUNCTION) + b"\x0f\xb9\xcc"
    builder.place(START, bytes(code), TEXT)
    entries = b""
    for number, place in enumerate(PLACES):
        at = TABLE + 16 * number
        entries += struct.pack("<iiq", place - at, place + 8 - at - 4, KEYS + 16 * number - at - 8)
    builder.place(TABLE, entries, READ_ONLY)
    places = [(CALLS + 16 * number, _key(number)) for number in range(100)] + [(TRAMPOLINE, _key(0))]
    table = b"".join(
        struct.pack("<ii", at - SITES - 8 * n, key - SITES - 8 * n - 4) for n, (at, key) in enumerate(places)
    )
    builder.place(SITES, table, READ_ONLY)
    data = bytearray(0x2000)
    for number in range(100):
        struct.pack_into("<Q", data, _key(number) - KEYS, changed.get(_key(number), _function(number)))
    struct.pack_into("<QQ", data, 0x1800, _key(0), KNOWN)  # a tracepoint: its key, its trampoline
    builder.place(KEYS, bytes(data), DATA)
    return builder


def _function(number: int) -> int:
    return {0: FUNCTION, 1: 0, 2: THUNK + 0x80}.get(number // 2, FUNCTION + 16 * number // 2)


def _code(number: int, at: int) -> bytes:
    match number // 2:
        case 1:
            return _branch(0xE9, at, THUNK) if number % 2 else NOP5
        case 2:
            return ZERO
        case _:
            return _branch(0xE8, at, _function(number))


def _explain(at: int, old: bytes, new: bytes, trampoline: int = 0, now: dict[int, int] | None = None) -> str | None:
    before, after = (bytes(8) + code.ljust(16, b"\x90") for code in (old, new))
    return _sites(now).explain(at, before, after, lambda target: target == trampoline)


def test_the_tables_are_found_whole_and_end_where_they_end() -> None:
    sites = _sites()
    assert sites.jumps == {place: place + 8 for place in PLACES}
    assert sites.calls == {CALLS + 16 * number: _key(number) for number in range(100)}


def test_a_jump_label_may_be_switched_and_nothing_else_be_put_there() -> None:
    place = PLACES[5]
    assert _explain(place, NOP5, _branch(0xE9, place, place + 8)) == "jump label"
    assert _explain(place, NOP5, _branch(0xE9, place, place + 24)) is None
    assert _explain(place, NOP5, _branch(0xE9, place, OUTSIDE)) is None
    assert _explain(place, NOP5, b"\xcc") is None


@pytest.mark.parametrize("opcode", [0xE8, 0xE9])
def test_a_static_call_may_lead_where_its_key_says_and_nowhere_else(opcode: int) -> None:
    place, key = CALLS, _key(0)
    old, new = _branch(0xE8, place, FUNCTION), _branch(opcode, place, OTHER)
    assert _explain(place, old, new, now={key: OTHER}) == "static call"
    assert _explain(place, old, new) is None
    assert _explain(place, old, new, now={_key(2): OTHER}) is None
    assert _explain(place, old, _branch(opcode, place, OUTSIDE), now={key: OUTSIDE}) is None


def test_a_static_call_of_nothing_is_a_nop_a_return_or_this_kernels_thunk() -> None:
    place = CALLS
    old = _branch(0xE8, place, FUNCTION)
    for new in (NOP5, RET, _branch(0xE9, place, THUNK)):
        assert _explain(place, old, new, now={_key(0): 0}) == "static call"
        assert _explain(place, old, new) is None
    assert _explain(place, old, _branch(0xE9, place, OTHER), now={_key(0): 0}) is None


def test_code_in_place_of_a_call_is_of_the_function_it_was_seen_for() -> None:
    old = _branch(0xE8, CALLS, FUNCTION)
    assert _explain(CALLS, old, ZERO[:4] + b"\xc1", now={_key(0): THUNK + 0x80}) is None
    assert _explain(CALLS, old, ZERO, now={_key(0): THUNK + 0x80}) == "static call"
    assert _explain(CALLS, old, ZERO, now={_key(0): OTHER}) is None


@pytest.mark.parametrize("place", [TRAMPOLINE, KNOWN])
def test_a_trampoline_follows_its_key(place: int) -> None:
    old, new = (_branch(0xE9, place, target) + b"\x0f\xb9\xcc" for target in (FUNCTION, OTHER))
    assert _explain(place, old, new, now={_key(0): OTHER}) == "static call trampoline"
    assert _explain(place, old, new, now={_key(2): OTHER}) is None
    assert _explain(place, old, RET + b"\x0f\xb9\xcc", now={_key(0): 0}) == "static call trampoline"
    assert _explain(place, old, RET + b"\x0f\xb9\xcc") is None


def test_a_trampoline_whose_key_is_not_told_leads_where_some_key_does() -> None:
    old, new = (_branch(0xE9, LONELY, target) + b"\x0f\xb9\xcc" for target in (FUNCTION, OTHER))
    assert _explain(LONELY, old, new, now={_key(6): OTHER}) == "static call trampoline"
    assert _explain(LONELY, old, new) is None


@pytest.mark.parametrize(("target", "good"), [(TRACING + 0x100, True), (START + 0x100, False), (OUTSIDE, True)])
def test_tracing_calls_its_own_code_or_its_own_trampoline(target: int, good: bool) -> None:
    place = START + 0xF00
    call = _branch(0xE8, place, target)
    trampoline = OUTSIDE
    assert (_explain(place, NOP5, call, trampoline) is not None) == good
    assert (_explain(place, call, NOP5, trampoline) is not None) == good
    assert (_explain(place, NOP5, call) is not None) == (good and target != OUTSIDE)


def test_tracing_may_turn_its_own_calls() -> None:
    place = START + 0xC80
    old, new = (_branch(0xE8, place, START + offset) for offset in (0x100, 0x200))
    assert _explain(place, old, new) == "function tracing"
    assert _explain(place, old, _branch(0xE8, place, OUTSIDE)) is None
    jump, other, away = (_branch(0xE9, place, at) for at in (TRACING, TRACING + 0x200, START + 0x100))
    assert _explain(place, jump, other) == "function tracing"
    assert _explain(place, jump, away) is None


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
