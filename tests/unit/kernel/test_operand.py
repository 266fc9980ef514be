"""Operands of real instructions, as an assembler encodes them."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi.x86 import GPR_COUNT, R9, R12, R13, RAX, RBX, RDI, RIP, RSP
from enisle.kernel import operand

HERE = 0x40_0000


def fake_thread(code: bytes) -> Any:
    gpr = [0x1000_0000 * (index + 1) for index in range(GPR_COUNT)]
    gpr[RIP] = HERE
    mm = SimpleNamespace(read=lambda address, size: code.ljust(size, b"\x90")[:size])
    return SimpleNamespace(gpr=gpr, mm=mm, processor=SimpleNamespace(fs_base=0x7000_0000_0000, gs_base=0))


@pytest.mark.parametrize(
    ("code", "registers", "offset", "stores"),
    [
        ("8b 00", [RAX], 0, False),  # mov eax, [rax]
        ("c6 43 07 01", [RBX], 7, True),  # mov byte [rbx+7], 1
        ("48 89 84 24 80 00 00 00", [RSP], 0x80, True),  # mov [rsp+0x80], rax
        ("41 8b 45 00", [R13], 0, False),  # mov eax, [r13+0]
        ("43 89 04 8c", [R12, R9, R9, R9, R9], 0, True),  # mov [r12+r9*4], eax
        ("8b 05 10 00 00 00", [], HERE + 6 + 0x10, False),  # mov eax, [rip+0x10]
        ("c7 05 10 00 00 00 01 00 00 00", [], HERE + 10 + 0x10, True),  # mov dword [rip+0x10], 1
        ("80 3d 10 00 00 00 01", [], HERE + 7 + 0x10, False),  # cmp byte [rip+0x10], 1
        ("8b 04 25 00 10 00 00", [], 0x1000, False),  # mov eax, [0x1000]
        ("64 48 8b 04 25 28 00 00 00", [], 0x7000_0000_0028, False),  # mov rax, fs:[0x28]
        ("0f b6 47 ff", [RDI], -1, False),  # movzx eax, byte [rdi-1]
        ("66 0f 7f 43 10", [RBX], 16, True),  # movdqa [rbx+16], xmm0
        ("c5 fe 7f 07", [RDI], 0, True),  # vmovdqu [rdi], ymm0
        ("c4 c1 7e 6f 45 20", [R13], 32, False),  # vmovdqu ymm0, [r13+32]
    ],
)
def test_operands_are_where_the_processor_looks(code: str, registers: list[int], offset: int, stores: bool) -> None:
    thread = fake_thread(bytes.fromhex(code))
    addresses, found = operand.touched(thread)
    assert addresses[0] == HERE
    assert hex(addresses[1]) == hex(sum(thread.gpr[index] for index in registers) + offset)
    assert found == stores


@given(st.binary(max_size=15))
def test_any_bytes_are_decoded(code: bytes) -> None:
    addresses, _ = operand.touched(fake_thread(code))
    assert len(addresses) in (5, 6)
    assert all(0 <= address < 1 << 64 for address in addresses)
