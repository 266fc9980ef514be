"""AVX instructions in what an emulated processor executes: replaced where code leaves no doubt, never in data."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.abi.types import PAGE
from enisle.machine.emulated_traps import CodeTraps, replaced, suspects
from enisle.machine.software.decode import VEX, decode_at

SANE = bytes.fromhex("4889c8 4801d0 488d4408 10 31c9 0fb6c0 85c0")
"""mov, add, lea, xor, movzx, test."""
AVX = {"vaddps xmm": "c5f058c2", "vpaddd ymm": "c5f5fec2", "vfmadd ymm": "c4e27598c2", "vzeroupper": "c5f877"}
VECTOR_CODE = re.compile(rb"\xc5[\xf8-\xff][\x6f\x74\x7f\xd7\xeb\xda]")
"""What AVX2 string functions consist of: vmovdqu, vpcmpeqb, vpmovmskb, vpor, vpminub."""
LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")


def page(code: bytes, at: int = 1024) -> bytes:
    filler = (SANE * (PAGE // len(SANE) + 1))[: at - at % len(SANE)]
    start = filler + b"\x90" * (at - len(filler)) + code
    return (start + SANE * (PAGE // len(SANE)))[: PAGE - 1] + b"\xc3"


@pytest.mark.parametrize("name", AVX)
def test_an_instruction_among_code_is_replaced(name: str) -> None:
    code = bytes.fromhex(AVX[name])
    content = page(code)
    result, places = replaced(content)
    assert places == (1024,)
    assert result == content[:1024] + b"\x0f\x0b" + content[1026:]
    assert suspects(result) == ()


@pytest.mark.parametrize(
    "code", ["b8c5f058c2", "488d05c5f058c2", "48b8c5f058c2909090c3", "3dc5f058c2", "89c5", "83c5f8"]
)
def test_what_only_looks_like_one_stays(code: str) -> None:
    content = page(bytes.fromhex(code))
    assert replaced(content) == (content, ())


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=64, max_size=512), st.integers(0, PAGE - 512))
def test_nothing_but_starts_of_vector_instructions_is_touched(noise: bytes, at: int) -> None:
    content = (page(b"")[:at] + noise + page(b"")[at + len(noise) :])[:PAGE]
    result, places = replaced(content)
    rest = bytearray(result)
    for place in places:
        instruction = decode_at(content, place, 0)
        assert instruction is not None
        assert instruction.encoding == VEX
        rest[place : place + 2] = content[place : place + 2]
    assert rest == content
    assert set(places) <= set(suspects(content))


@pytest.mark.skipif(not LIBC.exists(), reason="no libc at Debian's place")
def test_few_places_are_left_in_the_code_of_libc() -> None:
    """What is left makes the processor stop, at a price; what is replaced costs nothing."""
    content = LIBC.read_bytes()
    pages = (content[start : start + PAGE] for start in range(0, len(content) - PAGE, PAGE))
    texts = [text for text in pages if len(VECTOR_CODE.findall(text)) > 100][:6]
    assert texts
    traps = CodeTraps(lambda: None)
    before = after = 0
    for text in texts:
        before += len(suspects(text))
        result, places = traps.replace(text)
        after += len(suspects(result))
        assert traps.replace(text) == (result, places)
    assert before > 1000
    assert after < before / 20, (before, after)
