"""How long an instruction is and whether a compiler would write it: the quick half of telling code from data.

Deciding about a page decodes at every offset before a match, mostly to go on to the next one. Most of what stands
there is a REX prefix at most, one opcode that exists with any operands, ModRM and an immediate: for that a table of
sizes does, made from the decoder's own. Everything else is the decoder's. Pure; any thread.
"""

from functools import cache

from enisle.machine.software import decode as decoder
from enisle.machine.software.decode import decode_at
from enisle.machine.software.opcodes import ANY, LEGACY, OPERAND, PP, REG, RM, VVVV, L, Rule, W, rules
from enisle.machine.software.shapes import IMMEDIATE_8, IMMEDIATE_Z, MODRM_0, NEAR, NO_MODRM_1

IMPLAUSIBLE = frozenset((decoder.FAR, decoder.SYSTEM_RETURN, decoder.HALT))
IMPLAUSIBLE_0 = frozenset(b"\x00\x6c\x6d\x6e\x6f\x9b\xc8\xd7\xe4\xe5\xe6\xe7\xec\xed\xee\xef\xf1\xfa\xfb")
"""Opcodes that programs do not use: IN, OUT, CLI, STI, WAIT, XLAT, ENTER, ICEBP; and ADD of bytes, which is what the
zeros of displacements and immediates look like."""
MODRM, MEMORY, NEVER, UNKNOWN = 0x10, 0x20, 0xFE, 0xFF
"""Beside an immediate's size: there is ModRM; it must name memory. Or: no such code; ask the decoder."""
SPECIAL = (
    decoder.PREFIXES
    | frozenset(b"\x0f\x62\x8f\xc2\xc4\xc5\xc7\xc8\xf6\xf7")
    | frozenset((*range(0x40, 0x50), *range(0xA0, 0xA4), *range(0xB8, 0xC0))),
    frozenset(b"\x07\x0f\x20\x21\x22\x23\x35\x38\x3a\x78"),
)
"""Opcodes of maps 0 and 1 that are prefixes, or whose length or existence depends on more than their operands."""


@cache
def sizes(number: int) -> bytes:
    """Return what follows each opcode of map 0 or 1: the immediate's size and marks, NEVER, or UNKNOWN."""
    known = rules(LEGACY, number)
    return bytes(_size(number, opcode, known.get(opcode, ())) for opcode in range(256))


def _size(number: int, opcode: int, alternatives: tuple[Rule, ...]) -> int:
    if not number and (opcode in IMPLAUSIBLE_0 or NEAR.get(opcode) in IMPLAUSIBLE):
        return NEVER
    if opcode in SPECIAL[number]:
        return UNKNOWN
    if not number and not alternatives:
        return NEVER
    marks = [_marks(allowed) for allowed, _ in alternatives if allowed[PP] & 1]  # without a mandatory prefix
    if len(marks) != 1 or marks[0] == UNKNOWN:
        return UNKNOWN
    has_modrm = opcode not in NO_MODRM_1 if number else opcode in MODRM_0
    size = 1 if opcode in IMMEDIATE_8[number] else 4 if opcode in IMMEDIATE_Z[number] else 0
    return size | marks[0] | (MODRM if has_modrm else 0)


def _marks(allowed: tuple[int, ...]) -> int:
    """Return what a rule asks of the operands, UNKNOWN when that is more than memory."""
    any_fields = all(allowed[field] == ANY[field] for field in (W, L, VVVV, REG, RM))
    return {ANY[OPERAND]: 0, 1: MEMORY}.get(allowed[OPERAND], UNKNOWN) if any_fields else UNKNOWN


@cache
def operands() -> bytes:
    """Return by ModRM byte how long it is with its displacement, +1 for a SIB byte; 0x80 marks SIB without a base."""
    found = bytearray()
    for modrm in range(256):
        mod, rm = modrm >> 6, modrm & 7
        length = 1 + (rm == 4 and mod != 3) + (0, 1, 4, 0)[mod] + (4 if mod == 0 and rm == 5 else 0)
        found.append(length | (0x80 if mod == 0 and rm == 4 else 0))
    return bytes(found)


def stride(content: bytes, offset: int) -> int:
    """Return the length of the instruction at an offset, 0 where there is none or none that a compiler would write."""
    one, two, modrms = sizes(0), sizes(1), operands()
    try:
        at = offset
        opcode = content[at]
        if opcode & 0xF0 == 0x40:
            at += 1
            opcode = content[at]
        if opcode == 0x0F:
            at += 1
            size = two[content[at]]
        else:
            size = one[opcode]
        if size == NEVER:
            return 0
        if size != UNKNOWN:
            at += 1
            if size & MODRM:
                modrm = content[at]
                length = modrms[modrm]
                if length & 0x80 and content[at + 1] & 7 == 5:
                    length += 4
                if size & MEMORY and modrm >= 0xC0:
                    return 0
                at += length & 0x7F
            at += size & 0xF
            return at - offset if at <= len(content) else 0
    except IndexError:
        return 0  # cut short
    instruction = decode_at(content, offset, 0)
    return instruction.length if instruction and is_plausible(instruction) else 0


def is_plausible(instruction: "decoder.Instruction") -> bool:
    """Return whether a compiler would write such an instruction."""
    if instruction.kind in IMPLAUSIBLE:
        return False
    if instruction.encoding == decoder.LEGACY and not instruction.map and instruction.opcode in IMPLAUSIBLE_0:
        return False
    return len(instruction.prefixes) <= 4 or instruction.opcode == 0x1F
