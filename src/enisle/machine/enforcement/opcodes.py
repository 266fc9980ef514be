"""The trapped opcodes: which bytes are looked for in a page that is to be executed, derived from a blocking value.

A trap names an opcode from its 0F escape on, with the ModRM bytes that count and the mandatory prefixes that make it
what it is; the decoder's own tables say which encodings belong to a feature. Only legacy encodings are traps: the bytes
of VEX and EVEX prefixes are too common in data and displacements to be looked for (see `tiers`).
"""

import re
from collections.abc import Collection, Iterable

from enisle.machine.blocking.instructions import LEVELS, OF_FEATURE, Instruction
from enisle.machine.software import decode as decoder
from enisle.machine.software.opcodes import LEGACY, OPERAND, PP, REG, RM, rules
from enisle.records import Record

ESCAPES = {1: b"\x0f", 2: b"\x0f\x38", 3: b"\x0f\x3a"}
LONGEST = 4
"""Bytes of the longest trap: escape, opcode, ModRM."""
PREFIX_RUN = 14
"""Prefixes that may stand before an opcode: an instruction has at most 15 bytes."""
PREFIXES = decoder.PREFIXES | frozenset(range(0x40, 0x50))
MANDATORY = {0x66: 1, 0xF3: 2, 0xF2: 3}
"""The bit of `Trap.prefixes` that a prefix stands for; bit 0 is "none needed"."""

CODED: dict[Instruction, tuple[tuple[int, bytes], ...]] = {
    Instruction.CPUID: ((0xA2, b""),),
    Instruction.XGETBV: ((0x01, b"\xd0"),),
    Instruction.XSETBV: ((0x01, b"\xd1"),),
    Instruction.RDMSR: ((0x32, b""),),
    Instruction.WRMSR: ((0x30, b""),),
    Instruction.RDPMC: ((0x33, b""),),
    Instruction.RDTSC: ((0x31, b""),),
    Instruction.RDTSCP: ((0x01, b"\xf9"),),
    Instruction.VMCALL: ((0x01, b"\xc1\xd9"),),  # VMCALL of VMX, VMMCALL of SVM
}
"""Opcode of map 1, and the ModRM bytes that select the instruction, of classes told apart by more than features."""
BY_MODRM = {
    (opcode, modrm): kind for kind, places in CODED.items() for opcode, modrms in places for modrm in modrms or (-1,)
}

GROUP_7 = (1, 0x01)
HARMLESS = frozenset({(1, 0xBC), (1, 0xBD), (1, 0x0D), (1, 0x1A), (1, 0x1B), (1, 0x1E), (1, 0x09)})
"""Encodings that a processor without the feature executes as something else and programs use knowing that: TZCNT and
LZCNT as BSF and BSR, PREFETCHW, MPX and shadow-stack hints as NOP, WBNOINVD as WBINVD (SDM 2)."""


class Trap(Record):
    """One opcode to look for. `modrm`: the bytes that may follow it, empty when all do."""

    map: int
    opcode: int
    modrm: bytes = b""
    prefixes: int = 1


def traps_of(
    instructions: Iterable[Instruction], features: Iterable[str], native: Collection[Instruction] = ()
) -> tuple[Trap, ...]:
    """Return what to look for so that no coded instruction and no legacy encoding of a feature escapes.

    `native`: classes that fault in ring 3 by themselves.
    """
    found = {Trap(1, opcode, modrm) for kind in instructions if kind in CODED for opcode, modrm in CODED[kind]}
    wanted = frozenset(features)
    for number in ESCAPES:
        for opcode, alternatives in rules(LEGACY, number).items():
            if (number, opcode) in HARMLESS:
                continue
            for allowed, needed in alternatives:
                if wanted.intersection(needed):
                    modrm = _modrm(allowed)
                    if (number, opcode) == GROUP_7:
                        modrm = bytes(byte for byte in modrm if BY_MODRM.get((opcode, byte)) not in native)
                    if modrm or (number, opcode) != GROUP_7:
                        found.add(Trap(number, opcode, modrm, allowed[PP]))
    return tuple(sorted(found))


def _modrm(allowed: tuple[int, ...]) -> bytes:
    """Return the ModRM bytes that a rule admits, empty when it admits all of them."""
    chosen = bytes(
        byte
        for byte in range(256)
        if allowed[OPERAND] >> (byte >> 6 == 3) & 1
        and allowed[REG] >> (byte >> 3 & 7) & 1
        and (byte >> 6 != 3 or allowed[RM] >> (byte & 7) & 1)
    )
    return b"" if len(chosen) == 256 else chosen


def expression(traps: Iterable[Trap]) -> "re.Pattern[bytes]":
    """Return the search for what may be a trap: its first two bytes, the second of which is no escape byte.

    So matches never overlap, whatever the ModRM byte behind one is: it may be the next one's escape (0F 38 F0 0F A2).
    """
    second = {ESCAPES[trap.map][1] if trap.map > 1 else trap.opcode for trap in traps}
    assert ESCAPES[1][0] not in second, "3DNow! is no trap"
    return re.compile(rb"\x0f[" + b"".join(b"\\x%02x" % byte for byte in sorted(second)) + b"]", re.DOTALL)


def kind_of(instruction: decoder.Instruction) -> Instruction | None:
    """Return the class of a decoded instruction when it is one that is told apart by its opcode."""
    if instruction.encoding != LEGACY or instruction.map != 1:
        return None
    found = BY_MODRM.get((instruction.opcode, instruction.modrm if instruction.has_modrm else -1))
    return found or BY_MODRM.get((instruction.opcode, -1))


def levels_of(instruction: decoder.Instruction) -> list[tuple[Instruction, int]]:
    """Return class and code of each feature that a decoded instruction needs."""
    return [OF_FEATURE[feature] for feature in instruction.features if feature in OF_FEATURE]


def features_of(kind: Instruction) -> tuple[str, ...]:
    return LEVELS.get(kind, ())
