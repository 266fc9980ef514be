"""Which memory an instruction touches: its operand's address, decoded from the guest's own bytes (SDM 2A 2.1-2.3).

A hypervisor that cannot back a page says so without an address. Only what can name memory is decoded.
"""

from typing import TYPE_CHECKING

from enisle.abi.x86 import R8, RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP
from enisle.errors import LinuxError
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

LONGEST_INSTRUCTION = 15
U64 = (1 << 64) - 1
ORDER = (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, *range(R8, R8 + 8))
"""General registers by their number in an instruction."""
PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
FS_PREFIX, GS_PREFIX, OPERAND_SIZE = 0x64, 0x65, 0x66
ONE_BYTE, TWO_BYTE = 0, 1
BYTE_IMMEDIATES = (
    frozenset(b"\x6b\x80\x82\x83\xc0\xc1\xc6"),
    frozenset(b"\x70\x71\x72\x73\xa4\xac\xba\xc2\xc4\xc5\xc6"),
)
WORD_IMMEDIATES = frozenset(b"\x69\x81\xc7")
STORES = (
    frozenset(b"\x00\x01\x08\x09\x10\x11\x18\x19\x20\x21\x28\x29\x30\x31\x80\x81\x83\x86\x87\x88\x89\x8f")
    | frozenset(b"\xa4\xa5\xaa\xab\xc0\xc1\xc6\xc7\xd0\xd1\xd2\xd3\xfe"),
    frozenset(b"\x11\x13\x17\x29\x2b\x7e\x7f\xa4\xa5\xab\xac\xad\xb0\xb1\xb3\xbb\xc0\xc1\xc3\xc7\xd6\xe7"),
)
"""Opcodes that write their memory operand."""
COMPARE = 7
"""Extension of 80-83 that only reads."""


class Instruction(Record):
    """As much of an instruction as tells its operand: `modrm` is where that byte stands."""

    map: int
    opcode: int
    modrm: int
    rex: int
    segment: int
    short: bool

    def immediate(self, code: bytes) -> int:
        """Return the bytes after the operand, which a RIP-relative address counts from."""
        if self.map > TWO_BYTE:
            return int(self.map == 3)
        test = not self.map and self.opcode in (0xF6, 0xF7) and not code[self.modrm] & 0x30
        if self.opcode in BYTE_IMMEDIATES[self.map] or (test and self.opcode == 0xF6):
            return 1
        return (2 if self.short else 4) if test or (not self.map and self.opcode in WORD_IMMEDIATES) else 0


def decode(code: bytes) -> Instruction:
    """Decode up to the ModRM byte. Raises IndexError where the bytes end too early."""
    at = segment = rex = 0
    short = False
    while code[at] in PREFIXES:
        segment = code[at] if code[at] in (FS_PREFIX, GS_PREFIX) else segment
        short = short or code[at] == OPERAND_SIZE
        at += 1
    if code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    first = code[at]
    if first == 0xC5:  # two-byte VEX
        return Instruction(TWO_BYTE, code[at + 2], at + 3, 0, segment, short)
    if first in (0xC4, 0x62):  # three-byte VEX, EVEX: inverted X and B at the top of the second byte
        opcode = at + (3 if first == 0xC4 else 4)
        return Instruction(code[at + 1] & 7, code[opcode], opcode + 1, ~code[at + 1] >> 5 & 3, segment, short)
    if first != 0x0F:
        return Instruction(ONE_BYTE, first, at + 1, rex, segment, short)
    second = code[at + 1]
    if second in (0x38, 0x3A):
        return Instruction(2 if second == 0x38 else 3, code[at + 2], at + 3, rex, segment, short)
    return Instruction(TWO_BYTE, second, at + 2, rex, segment, short)


def touched(thread: "Thread") -> tuple[list[int], bool]:
    """Return the addresses the instruction at RIP may touch, likeliest first, and whether it stores."""
    gpr = thread.gpr
    addresses = [gpr[RIP]]
    stores = False
    try:
        code = thread.mm.read(gpr[RIP], LONGEST_INSTRUCTION)
        instruction = decode(code)
        stores = _stores(instruction, code)
        operand = _effective(thread, instruction, code)
        if operand is not None:
            addresses.append(operand)
    except (LinuxError, IndexError):
        pass
    # String instructions; push and call; pop and ret.
    return [*addresses, gpr[RDI], gpr[RSI], gpr[RSP] - 8 & U64, gpr[RSP]], stores


def _stores(instruction: Instruction, code: bytes) -> bool:
    if instruction.map > TWO_BYTE or instruction.opcode not in STORES[instruction.map]:
        return False
    compare = not instruction.map and 0x80 <= instruction.opcode <= 0x83 and code[instruction.modrm] >> 3 & 7 == COMPARE
    return not compare


def _effective(thread: "Thread", instruction: Instruction, code: bytes) -> int | None:
    """Return the address of the ModRM operand, None for a register."""
    gpr, at, rex = thread.gpr, instruction.modrm + 1, instruction.rex
    mod, rm = code[at - 1] >> 6, code[at - 1] & 7
    if mod == 3:
        return None
    absolute = rm == 5 and mod == 0
    address = 0
    if rm == 4:
        sib = code[at]
        at += 1
        index = sib >> 3 & 7 | (rex & 2) << 2
        address = gpr[ORDER[index]] << (sib >> 6) if index != 4 else 0
        absolute = sib & 7 == 5 and mod == 0
        if not absolute:
            address += gpr[ORDER[sib & 7 | (rex & 1) << 3]]
    elif absolute:
        address = gpr[RIP] + at + 4 + instruction.immediate(code)
    else:
        address = gpr[ORDER[rm | (rex & 1) << 3]]
    size = 1 if mod == 1 else 4 if mod == 2 or absolute else 0
    displacement = int.from_bytes(code[at : at + size], "little", signed=True)
    processor = thread.processor
    base = {0: 0, FS_PREFIX: processor.fs_base, GS_PREFIX: processor.gs_base}[instruction.segment]
    return address + displacement + base & U64
