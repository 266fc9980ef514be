"""The decoder: bytes to an `Instruction` (Intel SDM 2A chapter 2 and appendix A, AMD APM 3 chapter 1).

Promises the length and the fields of every instruction that exists in 64-bit mode, and None for what is undefined or
cut short; of EVEX some undefined uses of vvvv, aaa and b pass as defined. Pure; any thread.
"""

from enisle.machine.software.opcodes import (
    EVEX,
    LEGACY,
    NO_PREFIX,
    PREFIX_66,
    PREFIX_F2,
    PREFIX_F3,
    VEX,
    XOP,
    Features,
    find,
)

LONGEST = 15
BYTE, WORD, DWORD, QWORD = 1, 2, 4, 8

# Kinds of control flow: what comes after the instruction.
NEXT = "next"
JUMP, CALL, CONDITIONAL, LOOP = "jump", "call", "conditional", "loop"
JUMP_INDIRECT, CALL_INDIRECT, RETURN = "jump indirect", "call indirect", "return"
FAR, INTERRUPT, SYSTEM_CALL, SYSTEM_RETURN, HALT, UNDEFINED = "far", "interrupt", "syscall", "sysret", "halt", "ud"
TRANSACTION = "transaction"

OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
SEGMENTS = frozenset(b"\x26\x2e\x36\x3e\x64\x65")
PREFIXES = SEGMENTS | frozenset(b"\x66\x67\xf0\xf2\xf3")
FS, GS = 0x64, 0x65

IMMEDIATE_8 = (
    frozenset((*range(4, 0x40, 8), *range(0x70, 0x80), *range(0xB0, 0xB8), *range(0xE0, 0xE8)))
    | frozenset(b"\x6a\x6b\x80\x82\x83\xa8\xc0\xc1\xc6\xcd\xd4\xd5\xeb"),
    frozenset(b"\x0f\x70\x71\x72\x73\xa4\xac\xba\xc2\xc4\xc5\xc6"),
)
IMMEDIATE_Z = (
    frozenset((*range(5, 0x40, 8), 0x68, 0x69, 0x81, 0xA9, 0xC7, 0xE8, 0xE9)),
    frozenset(range(0x80, 0x90)),
)
"""Opcodes of maps 0 and 1 with an immediate of one byte; of the operand's size but at most four bytes."""
MODRM_0 = frozenset(
    (
        *(row + column for row in range(0, 0x40, 8) for column in range(4)),
        *b"\x63\x69\x6b\xc0\xc1\xc4\xc5\xc6\xc7\xd0\xd1\xd2\xd3\xf6\xf7\xfe\xff",
        *range(0x80, 0x90),
        *range(0xD8, 0xE0),
    )
)
NO_MODRM_1 = frozenset(
    b"\x05\x06\x07\x08\x09\x0b\x0e\x30\x31\x32\x33\x34\x35\x37\x77\xa0\xa1\xa2\xa8\xa9\xaa"
) | frozenset((*range(0x80, 0x90), *range(0xC8, 0xD0)))
VECTOR_IMMEDIATES = frozenset(b"\x70\x71\x72\x73\xc2\xc4\xc5\xc6")
"""Opcodes of VEX and EVEX map 1 with an immediate; every one of map 3 has one, none of map 2."""
LOCKABLE_0 = frozenset(
    (*(row + column for row in range(0, 0x38, 8) for column in range(2)), *b"\x80\x81\x83\x86\x87\xf6\xf7\xfe\xff")
)
LOCKABLE_1 = frozenset(b"\xab\xb0\xb1\xb3\xba\xbb\xc0\xc1\xc7")
LOCKABLE_GROUPS = {
    (0, 0x80): 0x7F, (0, 0x81): 0x7F, (0, 0x83): 0x7F, (0, 0xF6): 0x0C, (0, 0xF7): 0x0C, (0, 0xFE): 3, (0, 0xFF): 3,
    (1, 0xBA): 0xE0, (1, 0xC7): 2,
}  # fmt: skip
"""Values of ModRM.reg for which LOCK is allowed in a group (SDM 2A, LOCK)."""
NEAR = {0xE8: CALL, 0xE9: JUMP, 0xEB: JUMP, 0xC2: RETURN, 0xC3: RETURN, 0xCA: FAR, 0xCB: FAR, 0xCF: FAR} | {
    0xCC: INTERRUPT, 0xCD: INTERRUPT, 0xF1: INTERRUPT, 0xF4: HALT, 0xE3: CONDITIONAL,
    0xE0: LOOP, 0xE1: LOOP, 0xE2: LOOP,
}  # fmt: skip
GROUP_5 = {2: CALL_INDIRECT, 3: FAR, 4: JUMP_INDIRECT, 5: FAR}
TWO_BYTE_FLOW = {
    0x05: SYSTEM_CALL, 0x34: SYSTEM_CALL, 0x07: SYSTEM_RETURN, 0x35: SYSTEM_RETURN,
    0x0B: UNDEFINED, 0xB9: UNDEFINED, 0xFF: UNDEFINED,
}  # fmt: skip
AMD_3DNOW = frozenset(
    b"\x0c\x0d\x1c\x1d\x8a\x8e\x90\x94\x96\x97\x9a\x9e\xa0\xa4\xa6\xa7\xaa\xae\xb0\xb4\xb6\xb7\xbb\xbf"
)
"""Suffixes of 0F 0F (AMD APM 3 table A-14)."""
RELATIVE = frozenset((JUMP, CALL, CONDITIONAL, LOOP, TRANSACTION))


class Instruction:
    """One instruction. Register numbers have their REX, VEX or EVEX bits in them; sizes and offsets are bytes."""

    __slots__ = (
        "address", "address_size", "base", "broadcast", "code", "displacement", "displacement_offset",
        "displacement_size", "encoding", "features", "group", "has_modrm", "immediate", "immediate2",
        "immediate_offset", "immediate_size", "index", "kind", "l", "length", "lock", "map", "mask", "mod", "modrm",
        "modrm_offset", "opcode", "opcode_offset", "operand_size_prefix", "pp", "prefixes", "reg", "repeat", "rex",
        "rip_relative", "rm", "scale", "segment", "vvvv", "w", "zeroing",
    )  # fmt: skip

    def __init__(self, code: bytes, address: int) -> None:
        self.code, self.address = code, address
        self.length = 0
        self.prefixes = b""
        """Legacy prefixes as they stand."""
        self.operand_size_prefix = self.lock = False
        self.repeat = self.segment = 0
        """The last of F2 and F3; the last segment prefix; 0 when there is none."""
        self.address_size = QWORD
        self.rex = 0
        self.encoding = LEGACY
        self.map = self.opcode = self.opcode_offset = 0
        """Opcode maps: 0 one byte, 1 0F, 2 0F38, 3 0F3A, 5 and 6 of EVEX, 8-10 of XOP."""
        self.pp, self.w, self.l, self.vvvv = NO_PREFIX, 0, 0, 0
        """As in VEX; `pp` of a legacy instruction is what its prefixes would be there."""
        self.mask, self.zeroing, self.broadcast = 0, False, False
        """EVEX.aaa, z and b."""
        self.has_modrm = False
        self.modrm = self.modrm_offset = self.mod = self.group = 0
        """`group` is ModRM.reg without extension."""
        self.reg = self.rm = 0
        self.base: int | None = None
        self.index: int | None = None
        self.scale = 1
        self.rip_relative = False
        self.displacement = self.displacement_offset = self.displacement_size = 0
        """Signed, but as it stands: EVEX scales its byte."""
        self.immediate = self.immediate2 = self.immediate_offset = self.immediate_size = 0
        """Signed; `immediate2` is the second byte of ENTER, EXTRQ and INSERTQ and not in `immediate_size`."""
        self.kind = NEXT
        self.features: Features = ()

    @property
    def is_memory(self) -> bool:
        """Whether ModRM names memory."""
        return self.has_modrm and self.mod != 3

    @property
    def next_address(self) -> int:
        return self.address + self.length & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def target(self) -> int | None:
        """Where a relative branch goes."""
        if self.kind not in RELATIVE:
            return None
        return self.next_address + self.immediate & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def bytes(self) -> bytes:
        return self.code[: self.length]

    def __repr__(self) -> str:
        return f"Instruction({self.bytes.hex()} at {self.address:#x}, {self.encoding} {self.map} {self.opcode:#04x})"


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
