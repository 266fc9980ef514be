"""Which memory an instruction touches: its operand's address, decoded from the guest's own bytes (SDM 2A 2.1-2.3).

A hypervisor that cannot back a page says so without an address. Only what can name memory is decoded.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from enisle.abi.x86 import R8, RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP
from enisle.errors import LinuxError

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

LONGEST_INSTRUCTION = 15
U64 = (1 << 64) - 1
ORDER = (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, *range(R8, R8 + 8))
"""General registers by their number in an instruction."""
PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
FS_PREFIX, GS_PREFIX, OPERAND_SIZE = 0x64, 0x65, 0x66
BYTE_IMMEDIATE = frozenset(b"\x6b\x80\x82\x83\xc0\xc1\xc6")
WORD_IMMEDIATE = frozenset(b"\x69\x81\xc7")
BYTE_IMMEDIATE_0F = frozenset(b"\x70\x71\x72\x73\xa4\xac\xba\xc2\xc4\xc5\xc6")


def addresses(thread: "Thread") -> Iterator[int]:
    """Yield the addresses the instruction at RIP may touch, the likeliest first."""
    gpr = thread.gpr
    try:
        code = thread.mm.read(gpr[RIP], LONGEST_INSTRUCTION)
    except LinuxError:
        code = b""
    yield gpr[RIP]
    if (operand := _operand(thread, code)) is not None:
        yield operand
    yield gpr[RDI]  # string instructions
    yield gpr[RSI]
    yield gpr[RSP] - 8 & U64  # push, call
    yield gpr[RSP]


def _operand(thread: "Thread", code: bytes) -> int | None:
    """Return the address of the ModRM operand, None when there is none."""
    at, segment, short, rex = 0, 0, False, 0
    while at < len(code) and code[at] in PREFIXES:
        if code[at] in (FS_PREFIX, GS_PREFIX):
            segment = thread.processor.fs_base if code[at] == FS_PREFIX else thread.processor.gs_base
        short = short or code[at] == OPERAND_SIZE
        at += 1
    if at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    try:
        at, rex, immediate = _skip_opcode(code, at, rex, short)
        address = _effective(thread, code, at, rex, immediate)
    except IndexError:
        return None
    return None if address is None else (address + segment) & U64


def _skip_opcode(code: bytes, at: int, rex: int, short: bool) -> tuple[int, int, int]:
    """Return where ModRM is, the extension bits (as REX has them) and how long the immediate is."""
    first = code[at]
    if first == 0xC5:  # two-byte VEX
        return at + 3, 0, int(code[at + 2] in BYTE_IMMEDIATE_0F)
    if first in (0xC4, 0x62):  # three-byte VEX, EVEX: inverted X and B at the top of the second byte
        opcode = at + 3 if first == 0xC4 else at + 4
        immediate = code[at + 1] & 7 == 3 or (code[at + 1] & 7 == 1 and code[opcode] in BYTE_IMMEDIATE_0F)
        return opcode + 1, ~code[at + 1] >> 5 & 3, int(immediate)
    if first == 0x0F:
        if code[at + 1] in (0x38, 0x3A):
            return at + 3, rex, int(code[at + 1] == 0x3A)
        return at + 2, rex, int(code[at + 1] in BYTE_IMMEDIATE_0F)
    immediate = 0
    if first in BYTE_IMMEDIATE or (first == 0xF6 and not code[at + 1] & 0x30):
        immediate = 1
    elif first in WORD_IMMEDIATE or (first == 0xF7 and not code[at + 1] & 0x30):
        immediate = 2 if short else 4
    return at + 1, rex, immediate


def _effective(thread: "Thread", code: bytes, at: int, rex: int, immediate: int) -> int | None:
    gpr, mod, rm = thread.gpr, code[at] >> 6, code[at] & 7
    at += 1
    if mod == 3:
        return None
    base = 0
    if rm == 4:
        sib = code[at]
        at += 1
        index = sib >> 3 & 7 | (rex & 2) << 2
        base = gpr[ORDER[index]] << (sib >> 6) if index != 4 else 0
        rm = sib & 7
        if not (rm == 5 and mod == 0):
            base += gpr[ORDER[rm | (rex & 1) << 3]]
    elif rm == 5 and mod == 0:
        base = gpr[RIP] + at + 4 + immediate
    else:
        base = gpr[ORDER[rm | (rex & 1) << 3]]
    size = 1 if mod == 1 else 4 if mod == 2 or (rm == 5 and mod == 0) else 0
    if at + size > len(code):
        return None
    return base + int.from_bytes(code[at : at + size], "little", signed=True) & U64
