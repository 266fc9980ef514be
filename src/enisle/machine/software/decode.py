"""The decoder: bytes to an `Instruction` (Intel SDM 2A chapter 2 and appendix A, AMD APM 3 chapter 1).

Promises the length and the fields of every instruction that exists in 64-bit mode, and None for what is undefined or
cut short; of EVEX some undefined uses of vvvv, aaa and b pass as defined. Pure; any thread.
"""

from enisle.machine.software.instruction import Instruction
from enisle.machine.software.opcodes import (
    EVEX,
    LEGACY,
    NO_PREFIX,
    PREFIX_66,
    PREFIX_F2,
    PREFIX_F3,
    VEX,
    XOP,
    find,
)
from enisle.machine.software.shapes import (
    ADDRESS_SIZE,
    AMD_3DNOW,
    BYTE,
    CALL,
    CALL_INDIRECT,
    CONDITIONAL,
    DWORD,
    FAR,
    FS,
    GROUP_5,
    GS,
    HALT,
    IMMEDIATE_8,
    IMMEDIATE_Z,
    INTERRUPT,
    JUMP,
    JUMP_INDIRECT,
    LOCK,
    LOCKABLE_0,
    LOCKABLE_1,
    LOCKABLE_GROUPS,
    LONGEST,
    LOOP,
    MODRM_0,
    NEAR,
    NEXT,
    NO_MODRM_1,
    OPERAND_SIZE,
    PREFIXES,
    QWORD,
    REP,
    REPNE,
    RETURN,
    SYSTEM_CALL,
    SYSTEM_RETURN,
    TRANSACTION,
    TWO_BYTE_FLOW,
    UNDEFINED,
    VECTOR_IMMEDIATES,
    WORD,
)

__all__ = [
    "BYTE", "CALL", "CALL_INDIRECT", "CONDITIONAL", "DWORD", "EVEX", "FAR", "FS", "GS", "HALT", "INTERRUPT",
    "JUMP", "JUMP_INDIRECT", "LEGACY", "LONGEST", "LOOP", "NEXT", "NO_PREFIX", "PREFIXES", "PREFIX_66",
    "PREFIX_F2", "PREFIX_F3", "QWORD", "RETURN", "SYSTEM_CALL", "SYSTEM_RETURN", "TRANSACTION", "UNDEFINED",
    "VEX", "WORD", "XOP", "Instruction", "decode", "decode_at",
]  # fmt: skip


def decode(code: bytes, address: int = 0, short_branches: bool = False) -> Instruction | None:
    """Return the instruction that `code` begins with, None when it is undefined or the bytes end before it does.

    `short_branches`: 66 makes near branches 16 bits wide, as AMD's processors have it; Intel's ignore it.
    """
    return decode_at(code, 0, address, short_branches)


def decode_at(code: bytes, offset: int, address: int, short_branches: bool = False) -> Instruction | None:
    """Return the instruction at an offset of `code`, which is loaded at `address`; otherwise as `decode`."""
    instruction = Instruction(code[offset : offset + LONGEST], address)
    try:
        end = _parse(instruction, short_branches)
    except IndexError:
        return None
    if not end or end > len(instruction.code):
        return None
    instruction.length = end
    instruction.code = instruction.code[:end]
    features = find(instruction.encoding, instruction.map, instruction.opcode, _key(instruction))
    if features is None or not _is_defined(instruction):
        return None
    instruction.features = features
    return instruction


def _key(it: Instruction) -> tuple[int, ...]:
    used = int(it.vvvv != 0) if it.encoding in (VEX, XOP) else 0
    register = int(it.mod == 3)
    if not it.has_modrm:
        return (it.pp, it.w, it.l, used, 1, 0, 0)
    rm = it.modrm & 7
    if not register:
        rm = 4 if rm == 4 else 0
    return (it.pp, it.w, it.l, used, register, it.group, rm)


def _parse(it: Instruction, short_branches: bool) -> int:
    """Fill in the fields; return the length, 0 when the encoding is impossible."""
    at = _parse_prefixes(it)
    code = it.code
    first = code[at]
    if first in (0xC4, 0xC5, 0x62) or (first == 0x8F and code[at + 1] & 0x1F >= 8):
        if it.rex or it.lock or it.repeat or it.operand_size_prefix:
            return 0  # SDM 2A 2.3.2-2.3.4: #UD
        at = _parse_vector_prefix(it, at)
        if not at:
            return 0
    elif first == 0x0F:
        at += 1
        it.map = {0x38: 2, 0x3A: 3}.get(code[at], 1)
        at += it.map > 1
    it.opcode_offset, it.opcode = at, code[at]
    at += 1
    if _has_modrm(it):
        at = _parse_modrm(it, at)
    at = _parse_immediate(it, at, short_branches)
    it.kind = _kind(it)
    return at


def _parse_prefixes(it: Instruction) -> int:
    code = it.code
    at = 0
    while code[at] in PREFIXES or code[at] & 0xF0 == 0x40:
        byte = code[at]
        at += 1
        if byte & 0xF0 == 0x40:
            it.rex = byte
            continue
        it.rex = 0  # counts only right before the opcode (SDM 2A 2.2.1)
        if byte == OPERAND_SIZE:
            it.operand_size_prefix = True
        elif byte == ADDRESS_SIZE:
            it.address_size = DWORD
        elif byte == LOCK:
            it.lock = True
        elif byte in (REP, REPNE):
            it.repeat = byte
        else:
            it.segment = byte
    it.prefixes = bytes(byte for byte in code[:at] if byte in PREFIXES)
    it.w = it.rex >> 3 & 1
    if it.repeat:
        it.pp = PREFIX_F3 if it.repeat == REP else PREFIX_F2
    elif it.operand_size_prefix:
        it.pp = PREFIX_66
    return at


def _parse_vector_prefix(it: Instruction, at: int) -> int:
    """Read VEX, XOP or EVEX; the inverted R, X and B become those of a REX prefix."""
    code = it.code
    first = code[at]
    if first == 0x62:
        return _parse_evex(it, at)
    it.encoding = XOP if first == 0x8F else VEX
    if first == 0xC5:
        it.map, last = 1, code[at + 1]
        it.rex = (~last >> 5 & 4) | 0x40
        at += 2
    else:
        it.map, last = code[at + 1] & 0x1F, code[at + 2]
        it.rex = (~code[at + 1] >> 5 & 7) | 0x40
        it.w = last >> 7
        at += 3
    it.vvvv, it.l, it.pp = ~last >> 3 & 15, last >> 2 & 1, last & 3
    return at


def _parse_evex(it: Instruction, at: int) -> int:
    first, second, third = it.code[at + 1], it.code[at + 2], it.code[at + 3]
    if first & 8 or not second & 4:
        return 0
    it.encoding, it.map = EVEX, first & 7
    it.rex = (~first >> 5 & 7) | (~first << 1 & 0x20) | 0x40  # bit 5: R'
    it.w, it.pp = second >> 7, second & 3
    it.vvvv = (~second >> 3 & 15) | (~third << 1 & 16)
    it.zeroing, it.l, it.broadcast, it.mask = third >> 7 == 1, third >> 5 & 3, third >> 4 & 1 == 1, third & 7
    return at + 4


def _has_modrm(it: Instruction) -> bool:
    if it.encoding == LEGACY:
        return it.opcode in MODRM_0 if it.map == 0 else it.map > 1 or it.opcode not in NO_MODRM_1
    return not (it.encoding == VEX and it.map == 1 and it.opcode == 0x77)


def _parse_modrm(it: Instruction, at: int) -> int:
    it.has_modrm, it.modrm_offset, it.modrm = True, at, it.code[at]
    it.mod, it.group = it.modrm >> 6, it.modrm >> 3 & 7
    rex = it.rex
    it.reg = it.group | (rex << 1 & 8) | (rex >> 1 & 16 if it.encoding == EVEX else 0)
    it.rm = it.modrm & 7 | (rex << 3 & 8)
    if it.encoding == LEGACY and it.map == 1 and 0x20 <= it.opcode <= 0x23:
        it.mod = 3  # MOV of control and debug registers has no memory form (SDM 2B, MOV)
    at += 1
    if it.mod == 3:
        it.rm |= rex << 3 & 16 if it.encoding == EVEX else 0
        return at
    if it.modrm & 7 == 4:
        at = _parse_sib(it, at)
    elif it.mod == 0 and it.modrm & 7 == 5:
        it.rip_relative = True
    else:
        it.base = it.rm
    absolute = it.mod == 0 and (it.rip_relative or it.base is None)
    it.displacement_size = DWORD if absolute else (0, BYTE, DWORD)[it.mod]
    it.displacement_offset = at if it.displacement_size else 0
    it.displacement = _signed(it.code, at, it.displacement_size)
    return at + it.displacement_size


def _parse_sib(it: Instruction, at: int) -> int:
    sib = it.code[at]
    it.scale = 1 << (sib >> 6)
    it.base = None if it.mod == 0 and sib & 7 == 5 else sib & 7 | (it.rex << 3 & 8)
    index = sib >> 3 & 7 | (it.rex << 2 & 8)
    it.index = None if index == 4 and not _has_vector_index(it) else index
    return at + 1


def _has_vector_index(it: Instruction) -> bool:
    """Return whether the index register is a vector: then number 4 is one too (SDM 2A 2.3.12)."""
    if it.map != 2 or it.encoding not in (VEX, EVEX):
        return False
    return 0x90 <= it.opcode <= 0x93 or (
        it.encoding == EVEX and (0xA0 <= it.opcode <= 0xA3 or it.opcode in (0xC6, 0xC7))
    )


def _parse_immediate(it: Instruction, at: int, short_branches: bool) -> int:
    if it.encoding == LEGACY and it.map == 0 and 0xA0 <= it.opcode <= 0xA3:  # MOV moffs
        it.displacement_offset, it.displacement_size = at, it.address_size
        it.displacement = int.from_bytes(it.code[at : at + it.address_size], "little")
        return at + it.address_size
    size = _immediate_size(it, short_branches)
    if not size:
        return at
    it.immediate_offset, it.immediate_size = at, size
    it.immediate = _signed(it.code, at, size)
    at += size
    if it.encoding == LEGACY and ((it.map, it.opcode) == (0, 0xC8) or (it.map, it.opcode) == (1, 0x78)):
        it.immediate2 = it.code[at]
        at += 1
    return at


def _immediate_size(it: Instruction, short_branches: bool) -> int:
    opcode = it.opcode
    if it.encoding in (VEX, EVEX):
        return BYTE if it.map == 3 or (it.map == 1 and opcode in VECTOR_IMMEDIATES) else 0
    if it.encoding == XOP:
        return {8: BYTE, 10: DWORD}.get(it.map, 0)
    if it.map > 1:
        return BYTE if it.map == 3 else 0
    z = WORD if it.operand_size_prefix and not it.w else DWORD
    if opcode in IMMEDIATE_8[it.map]:
        return BYTE
    if opcode in IMMEDIATE_Z[it.map]:
        near = it.map == 1 or opcode in (0xE8, 0xE9)
        return DWORD if near and not short_branches else z
    if it.map == 1:
        return BYTE if opcode == 0x78 and it.pp in (PREFIX_66, PREFIX_F2) else 0
    if 0xB8 <= opcode <= 0xBF:
        return QWORD if it.w else z
    if opcode in (0xF6, 0xF7) and it.group < 2:
        return BYTE if opcode == 0xF6 else z
    return WORD if opcode in (0xC2, 0xCA, 0xC8) else 0


def _signed(code: bytes, at: int, size: int) -> int:
    if at + size > len(code):
        raise IndexError
    return int.from_bytes(code[at : at + size], "little", signed=True)


def _kind(it: Instruction) -> str:
    if it.encoding != LEGACY or it.map > 1:
        return NEXT
    if it.map == 1:
        return CONDITIONAL if 0x80 <= it.opcode <= 0x8F else TWO_BYTE_FLOW.get(it.opcode, NEXT)
    if 0x70 <= it.opcode <= 0x7F:
        return CONDITIONAL
    if it.opcode == 0xFF:
        return GROUP_5.get(it.group, NEXT)
    if it.opcode == 0xC7 and it.modrm == 0xF8:
        return TRANSACTION
    return NEAR.get(it.opcode, NEXT)


def _is_defined(it: Instruction) -> bool:
    """Return what the tables cannot tell: LOCK, the registers of MOV CR and DR, the suffixes of 3DNow!, EVEX.z."""
    if it.lock and not _may_lock(it):
        return False
    if it.zeroing and not it.mask:
        return False
    if it.encoding != LEGACY or it.map != 1:
        return True
    if it.opcode == 0x0F:
        return it.immediate & 0xFF in AMD_3DNOW
    if it.opcode in (0x20, 0x22):
        return it.reg in (0, 2, 3, 4, 8)
    return it.opcode not in (0x21, 0x23) or it.reg < 8


def _may_lock(it: Instruction) -> bool:
    """Return whether LOCK may stand before it: a read-modify-write of memory (SDM 2A, LOCK)."""
    if it.encoding != LEGACY or it.map > 1 or not it.is_memory:
        return False
    if it.opcode not in (LOCKABLE_1 if it.map else LOCKABLE_0):
        return False
    return LOCKABLE_GROUPS.get((it.map, it.opcode), 0xFF) >> it.group & 1 == 1
