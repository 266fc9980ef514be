"""Looking at pages: every trap is found, none is left executable, and code is told from what only looks like it."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.abi.types import PAGE
from enisle.machine.blocking.instructions import Instruction
from enisle.machine.enforcement.opcodes import CODED, traps_of
from enisle.machine.enforcement.scan import Scanner
from enisle.machine.software.decode import decode

FEATURES = [
    "aes",
    "pclmulqdq",
    "sha_ni",
    "rdrand",
    "rdseed",
    "rdpid",
    "rdtscp",
    "fsgsbase",
    "movbe",
    "adx",
    "gfni",
    "clflushopt",
    "clwb",
    "xsave",
    "xsaveopt",
    "xsavec",
    "popcnt",
    "cx16",
    "sse4_1",
    "sse4_2",
    "ssse3",
]
TRAPS = traps_of(CODED, FEATURES)
SANE = bytes.fromhex("4889c8 4801d0 488d4408 10 31c9 0fb6c0 85c0")
"""mov, add, lea, xor, movzx, test: a few instructions of ordinary code."""
ALL = Scanner(TRAPS)
INSTRUCTIONS = (
    "0fa2 660fa2 f30fa2 480fa2 0f31 0f01f9 0fc7f0 f30fc7f8 660f38dcc1 66450f38dcc1"
    " 0f38cbc1 660f3a44c100 f30fb8c1 f3480faec0 0f01d0 0f33 0f01c1 0f01d9 0f38f007"
)


def page(code: bytes, at: int = 1024) -> bytes:
    """Return a page of sane code with `code` at `at`, ending in a return."""
    filler = (SANE * (PAGE // len(SANE) + 1))[: at - at % len(SANE)]
    start = filler + b"\x90" * (at - len(filler)) + code
    return (start + SANE * (PAGE // len(SANE)))[: PAGE - 1] + b"\xc3"


@pytest.mark.parametrize("before", ["0f38f8", "0f38f0", "0f3a0f", "0fc7", "0fae", "0f38", "0f"])
def test_a_trap_right_behind_another_is_found(before: str) -> None:
    """What looks like the ModRM byte of one opcode may be where the next one starts."""
    traps = traps_of([Instruction.CPUID], [*FEATURES, "movdir64b"])
    content = b"\x90" * 30 + bytes.fromhex(before) + b"\x0f\xa2\x90\x90"
    assert 30 + len(before) // 2 in Scanner(traps).matches(content)


@pytest.mark.parametrize(
    "code",
    INSTRUCTIONS.split(),
)
def test_an_instruction_in_code_is_replaced_and_nothing_else(code: str) -> None:
    instruction = bytes.fromhex(code)
    content = page(instruction)
    look = ALL.look(content)
    assert look
    assert look.patched
    changed = [offset for offset in range(PAGE) if look.patched[offset] != content[offset]]
    assert len(changed) == 1, changed
    assert 1024 <= changed[0] < 1024 + len(instruction)
    assert look.patched[changed[0] - 1 : changed[0] + 1] == b"\x0f\x0b"
    assert not ALL.matches(look.patched)


@pytest.mark.parametrize("code", ["b80fa2c300", "488d050fa2c300", "3d900fa2c3", "48b890900fa2c3909090"])
def test_a_trap_inside_an_instruction_takes_the_whole_of_it(code: str) -> None:
    instruction = bytes.fromhex(code)
    look = Scanner(traps_of([Instruction.CPUID], ())).look(page(instruction))
    assert look
    assert look.patched
    assert look.patched[1024 : 1024 + len(instruction)] == b"\xcc" * len(instruction)


@pytest.mark.parametrize(("code", "other"), [("c1c90f01d1", "c1c90f03ca"), ("c1c00f31c8", "c1c00f33c1")])
def test_two_innocent_instructions_get_their_other_encoding(code: str, other: str) -> None:
    """A rotation by 15 and an addition, as hash functions have them: as fast as before, and no trap."""
    traps = traps_of([Instruction.XSETBV, Instruction.RDTSC], ())
    look = Scanner(traps).look(page(bytes.fromhex(code)))
    assert look
    assert look.patched
    assert look.patched[1024:1029] == bytes.fromhex(other)
    first, second = decode(bytes.fromhex(code)[3:]), decode(bytes.fromhex(other)[3:])
    assert first is not None
    assert second is not None
    assert {first.reg, first.rm} == {second.reg, second.rm}
    assert (first.reg, first.rm) == (second.rm, second.reg)


def test_data_is_left_alone_and_its_page_stepped() -> None:
    constants = b"".join(struct.pack("<I", 0x9E3779B9 * n & 0xFFFF_FFFF) for n in range(64))
    content = page(constants[:128] + b"\x0f\xa2" + constants[128:])
    look = Scanner(traps_of([Instruction.CPUID], ())).look(content)
    assert look
    assert look.patched is None


def test_a_trap_across_two_pages_is_seen_from_both() -> None:
    for cut in range(1, 3):
        opcode = b"\x0f\x01\xd0"
        assert ALL.crosses(b"\x90" * 60 + opcode[:cut], opcode[cut:] + b"\x90" * 60)
    assert not ALL.crosses(b"\x90" * 64, b"\x0f\xa2")
    assert not ALL.crosses(b"\x90\x0f\xa2", b"\x90")


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            [*(bytes.fromhex(c) for c in ("0fa2", "0f31", "0f", "a2", "0f38", "dc", "0f01", "d0", "66", "f3"))]
        )
        | st.binary(max_size=12),
        max_size=60,
    )
)
def test_whatever_the_bytes_nothing_executable_holds_a_trap(pieces: list[bytes]) -> None:
    content = page(b"".join(pieces)[:2000])
    look = Scanner(TRAPS).look(content)
    assert look
    if look.patched is not None:
        assert not ALL.matches(look.patched)
        outside = bytearray(look.patched)
        for site in look.sites:
            outside[site.offset : site.offset + site.length] = content[site.offset : site.offset + site.length]
        assert bytes(outside) == content, "something beside the sites was changed"


@settings(max_examples=300, deadline=None)
@given(content=st.binary(min_size=4, max_size=200))
def test_the_search_finds_what_a_look_at_every_offset_finds(content: bytes) -> None:
    """Against decoding: an instruction that starts anywhere and is a coded one has its opcode among the matches."""
    found = set(ALL.matches(content))
    for offset in range(len(content)):
        instruction = decode(content[offset : offset + 15])
        if instruction is None or instruction.encoding != "legacy" or instruction.map != 1:
            continue
        if instruction.opcode in (0xA2, 0x31, 0x33, 0x32, 0x30):
            assert offset + instruction.opcode_offset - 1 in found


def test_known_pages_cost_no_second_look() -> None:
    scanner = Scanner(TRAPS)
    content = page(b"\x0f\xa2")
    assert scanner.look(content) is scanner.look(bytes(content))
    assert (scanner.scanned, scanner.remembered) == (1, 1)


def test_nothing_to_look_for_finds_nothing() -> None:
    scanner = Scanner(())
    look = scanner.look(page(b"\x0f\xa2"))
    assert look
    assert look.sites == ()
