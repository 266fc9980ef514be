"""The quick way through code says of every offset what the decoder says."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.machine.enforcement.strides import MODRM, NEVER, UNKNOWN, is_plausible, sizes, stride
from enisle.machine.software.decode import decode_at

LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")
TAIL = bytes(range(0x80, 0x8F))


def plain(content: bytes, offset: int) -> int:
    instruction = decode_at(content, offset, 0)
    return instruction.length if instruction and is_plausible(instruction) else 0


@pytest.mark.parametrize("rex", [b"", b"\x48"])
def test_every_opcode_and_operand_byte(rex: bytes) -> None:
    for escape in (b"", b"\x0f"):
        for opcode in range(256):
            for modrm in range(256):
                code = rex + escape + bytes((opcode, modrm))
                for sib in (b"\x25", b"\x64"):
                    assert stride(code + sib + TAIL, 0) == plain(code + sib + TAIL, 0), (code + sib).hex()


@settings(max_examples=500)
@given(st.binary(min_size=1, max_size=24))
def test_any_bytes_and_any_end(content: bytes) -> None:
    for offset in range(len(content)):
        assert stride(content, offset) == plain(content, offset)


@pytest.mark.skipif(not LIBC.exists(), reason="no libc at Debian's place")
def test_real_code_and_what_stands_between() -> None:
    content = LIBC.read_bytes()[0x40000:0x48000]
    assert [stride(content, at) for at in range(len(content))] == [plain(content, at) for at in range(len(content))]


def test_most_code_needs_no_decoder() -> None:
    assert sizes(0)[0x89] == MODRM
    assert sizes(0)[0xE8] == 4
    assert sizes(0)[0x0F] == UNKNOWN
    assert sizes(0)[0xF4] == NEVER
    assert sizes(1)[0xB6] == MODRM
