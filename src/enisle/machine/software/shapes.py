"""Shapes of instructions: prefixes, which opcodes have ModRM and immediates, kinds of control flow (SDM 2A appendix A).

Data of the decoder.
"""

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
