"""Random blocking values and processors for the tests of this folder."""

import random

from enisle.abi.cpuid import Answer, CpuidTable, Leaf
from enisle.abi.x86_features import FEATURES, NAMES, STANDARD_LAYOUT, U32, XCR0_BITS, closed
from enisle.machine.blocking.codes import CodeTable, table
from enisle.machine.blocking.instructions import Action, Instruction, Refusal
from enisle.machine.blocking.value import TABLES, BlockingValue, SecondLevel

ORDERED = sorted(NAMES)
CODES = [instruction for instruction in TABLES if instruction is not Instruction.CPUID]


def codes(chance: random.Random, largest: int) -> CodeTable:
    entries = {chance.randrange(6): chance.randrange(largest + 1) for _ in range(chance.randrange(5))}
    return table(chance.choice((0, 0, largest)), entries)


def value(chance: random.Random) -> BlockingValue:
    """Return a value with something of everything."""
    wanted = chance.sample(ORDERED, chance.choice((0, 1, 3, 20)))
    return BlockingValue(
        chance.choice(("a", "b", "")),
        features={name: chance.choice((Action.BLOCK, Action.EMULATE)) for name in wanted},
        strict=chance.random() < 0.3,
        masks={(chance.choice((2, 4, 6)), 0, chance.randrange(4)): chance.getrandbits(32)},
        tables={instruction: codes(chance, 2) for instruction in chance.sample(CODES, 3)},
        calls=codes(chance, Refusal.EXCEPTION),
        seconds={16: SecondLevel(codes(chance, 4)), 56: SecondLevel(flags(chance), True)},
        demands=chance.sample(ORDERED, 2),
        require=chance.choice(("none", "detect", "enforced", "hw")),
    )


def flags(chance: random.Random) -> CodeTable:
    return table(0, {1 << chance.randrange(8): chance.randrange(5) for _ in range(3)})


def features(chance: random.Random) -> frozenset[str]:
    """Return what a processor might have: consistent, and never nothing."""
    share = chance.choice((0.2, 0.5, 0.9, 1.0))
    basic = {"fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "syscall", "lm", "nx", "tsc"}
    chosen = {name for name in ORDERED if chance.random() < share}
    return closed(frozenset(chosen | basic))


def processor(
    present: frozenset[str], vendor: str = "GenuineIntel", layout: dict[int, tuple[int, int]] | None = None
) -> CpuidTable:
    """Return a CPUID table with exactly these features."""
    entries: dict[Leaf, list[int]] = {(leaf, 0): [0, 0, 0, 0] for leaf in range(0x25)}
    entries |= {(0x8000_0000 + leaf, 0): [0, 0, 0, 0] for leaf in range(0x23)}
    name = vendor.encode()
    words = [int.from_bytes(name[at : at + 4], "little") for at in (0, 4, 8)]
    entries[0, 0] = [0x24, words[0], words[2], words[1]]
    entries[1, 0][0] = 0x000A_0671
    entries[0x8000_0000, 0][0] = 0x8000_0022
    xcr0 = 0
    for feature in present:
        leaf, subleaf, register = FEATURES[feature].place
        entries.setdefault((leaf, subleaf), [0, 0, 0, 0])[register] |= 1 << FEATURES[feature].bit
        if feature.startswith("xcr0_"):
            xcr0 |= 1 << FEATURES[feature].bit
    for bit in XCR0_BITS:
        if xcr0 >> bit & 1 and bit >= 2:
            offset, size = (layout or STANDARD_LAYOUT).get(bit, STANDARD_LAYOUT[bit])
            entries[0xD, bit] = [size, offset, 0, 0]
    table: dict[Leaf, Answer] = {place: (a & U32, b & U32, c & U32, d & U32) for place, (a, b, c, d) in entries.items()}
    return CpuidTable(table, xcr0)
