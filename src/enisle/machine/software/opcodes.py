"""Which instructions exist: the tables of encodings, parsed when first looked at.

A line is `OPCODES: RULE; RULE`, a rule is conditions and, last, the features needed (`*`: none). Conditions:
`np 66 F3 F2` mandatory prefix, `W0 W1`, `L0`…`L3` vector length, `V0`/`V1` vvvv unused/used, `mem`/`reg` operand,
`/n` ModRM.reg, `:n` ModRM.rm (`mem :4` has a SIB byte). `VL` and `VL1` are EVEX lengths L0-L2 and L1-L2, the short
ones need avx512vl too. `a|b` as a feature is a at L0 and b at L1.
"""

from functools import cache

LEGACY, VEX, EVEX, XOP = "legacy", "vex", "evex", "xop"
NO_PREFIX, PREFIX_66, PREFIX_F3, PREFIX_F2 = range(4)
"""Mandatory prefixes as VEX.pp has them (SDM 2A table 2-8)."""

Features = tuple[str, ...]
Rule = tuple[tuple[int, ...], Features]
"""Bit sets of the allowed pp, W, L, vvvv, operand kind, reg and rm."""
ANY: tuple[int, ...] = (0xF, 0x3, 0xF, 0x3, 0x3, 0xFF, 0xFF)
PP, W, L, VVVV, OPERAND, REG, RM = range(7)
CONDITIONS = {
    **{name: (PP, 1 << index) for index, name in enumerate(("np", "66", "F3", "F2"))},
    **{f"W{index}": (W, 1 << index) for index in range(2)},
    **{f"L{index}": (L, 1 << index) for index in range(4)},
    **{f"V{index}": (VVVV, 1 << index) for index in range(2)},
    "mem": (OPERAND, 1),
    "reg": (OPERAND, 2),
    **{f"/{index}": (REG, 1 << index) for index in range(8)},
    **{f":{index}": (RM, 1 << index) for index in range(8)},
}
LENGTHS = {"VL": ("L0|L1", "L2"), "VL1": ("L1", "L2")}


def _table(encoding: str, map_number: int) -> str:
    if encoding == LEGACY:
        from enisle.machine.software import table_legacy as legacy

        return (legacy.ONE_BYTE, legacy.TWO_BYTE, legacy.MAP_0F38, legacy.MAP_0F3A)[map_number]
    if encoding == EVEX:
        from enisle.machine.software import table_evex as evex

        tables = {1: evex.EVEX_0F, 2: evex.EVEX_0F38, 3: evex.EVEX_0F3A, 5: evex.EVEX_5, 6: evex.EVEX_6}
        return tables.get(map_number, "")
    from enisle.machine.software import table_vex as vex

    if encoding == VEX:
        return {1: vex.VEX_0F, 2: vex.VEX_0F38, 3: vex.VEX_0F3A}.get(map_number, "")
    return {8: vex.XOP_8, 9: vex.XOP_9, 10: vex.XOP_A}.get(map_number, "")


@cache
def rules(encoding: str, map_number: int) -> dict[int, tuple[Rule, ...]]:
    """Return the rules of every opcode of a map."""
    found: dict[int, tuple[Rule, ...]] = {}
    for line in _table(encoding, map_number).replace("\n    ", " ").strip().splitlines():
        opcodes, _, text = line.partition(": ")
        parsed = tuple(rule for part in text.split("; ") for rule in _rules(part.split()))
        for first, _, last in (span.partition("-") for span in opcodes.split(",")):
            for opcode in range(int(first, 16), int(last or first, 16) + 1):
                found[opcode] = parsed
    return found


def _rules(words: list[str]) -> list[Rule]:
    *conditions, features = words
    if "|" in features:
        short, long = features.split("|")
        return _rules([*conditions, "L0", short]) + _rules([*conditions, "L1", long])
    for word in conditions:
        if word in LENGTHS:
            short, long = LENGTHS[word]
            rest = [other for other in conditions if other != word]
            return _rules([*rest, short, features + "+avx512vl"]) + _rules([*rest, long, features])
    allowed = list(ANY)
    for word in conditions:
        choices = [CONDITIONS[choice] for choice in word.split("|")]
        allowed[choices[0][0]] = sum(bit for _, bit in choices)
    return [(tuple(allowed), () if features == "*" else tuple(features.split("+")))]


@cache
def find(encoding: str, map_number: int, opcode: int, fields: tuple[int, ...]) -> Features | None:
    """Return the features that an encoding needs, None when there is no such instruction.

    `fields` are pp, W, L, vvvv used, register operand, ModRM.reg and ModRM.rm.
    """
    for allowed, features in rules(encoding, map_number).get(opcode, ()):
        if all(bits >> value & 1 for bits, value in zip(allowed, fields, strict=True)):
            return features
    return None
