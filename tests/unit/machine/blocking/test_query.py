"""Answers about a processor under a value: what is hidden is unavailable, and the other way round."""

import random

import pytest

from enisle.abi import cpuid
from enisle.abi.cpuid import CpuidTable
from enisle.abi.x86_features import BITS, EAX, EBX, ECX, EDX, FEATURES, GATES, LEAF_1_EDX, XCR0_BITS, closed
from enisle.machine.blocking import levels
from enisle.machine.blocking.codes import table
from enisle.machine.blocking.instructions import LEVELS, Action, Instruction
from enisle.machine.blocking.query import Queries
from enisle.machine.blocking.value import BlockingValue
from unit.machine.blocking import making

OLD = frozenset(("fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "syscall", "lm", "nx", "tsc", "pni"))
EVERY_LEAF = [*range(0x21), *range(0x8000_0000, 0x8000_0029)]
SUBLEAVES = range(8)
SYNTHETIC_OF_LINUX = {"xtopology", "vmmcall", "tsc_known_freq", "extd_apicid", "pti", "ssbd", "ibrs", "ibpb", "stibp"}
BLOCK, EMULATE = Action.BLOCK, Action.EMULATE


@pytest.fixture(scope="module")
def host() -> CpuidTable:
    return cpuid.host_table()


def announced(queries: Queries) -> set[str]:
    """Return the features that CPUID tells of, leaf by leaf as a program would find them."""
    found: set[str] = set()
    for leaf in EVERY_LEAF:
        for subleaf in SUBLEAVES:
            answer = queries.cpuid(leaf, subleaf)
            for register in range(4):
                names = BITS.get((leaf, subleaf, register), {})
                found |= {name for bit, name in names.items() if answer[register] >> bit & 1}
    return found


def test_without_a_value_the_processor_speaks_for_itself(host: CpuidTable) -> None:
    queries = Queries(BlockingValue(), host)
    for leaf in (*EVERY_LEAF, *range(0x4000_0000, 0x4000_0004), 0x8FFF_FFFF, 0x7FFF_FFFF):
        for subleaf in (*SUBLEAVES, 40):
            assert queries.cpuid(leaf, subleaf) == host.get(leaf, subleaf)


def test_flags_are_what_linux_prints_of_this_host(host: CpuidTable) -> None:
    with open("/proc/cpuinfo", encoding="ascii") as file:
        printed = set(next(line for line in file if line.startswith("flags")).split(":")[1].split())
    flags = set(Queries(BlockingValue(), host).flags)
    assert printed - flags <= SYNTHETIC_OF_LINUX | {name for name in printed if name not in FEATURES}
    assert flags - printed <= {"ospke", "pku", "fsgsbase", "umip", "la57", "sgx"}, "what a system may leave off"


@pytest.mark.parametrize("name", levels.names()[1:])
def test_no_leaf_of_a_level_tells_more_than_the_level(name: str, host: CpuidTable) -> None:
    value = levels.level(name)
    queries = Queries(value, host)
    assert announced(queries) == set(queries.visible) <= value.features
    for leaf, gates in GATES.items():
        if queries.visible.isdisjoint(gates):
            assert all(queries.cpuid(leaf, subleaf) == (0, 0, 0, 0) for subleaf in SUBLEAVES), f"{leaf=:#x}"


def test_no_query_lists_what_is_blocked() -> None:
    """Random values on random processors: CPUID in every leaf and subleaf, XGETBV, sizes, AT_HWCAP and flags agree."""
    chance = random.Random(4)
    for _ in range(150):
        value, processor = making.value(chance), making.processor(making.features(chance))
        queries = Queries(value, processor)
        told = announced(queries)
        assert told == queries.visible
        assert told <= value.features
        assert closed(frozenset(told)) == told
        for instruction, names in LEVELS.items():
            for code, name in enumerate(names):
                assert name not in told or value.judge(instruction, code) < BLOCK
        if not value.masks_answer(7):
            assert queries.cpuid(7) == processor.get(7)
        check_state(queries)
        assert {f for f in queries.flags if f in FEATURES} == {f for f in told if FEATURES[f].printed}


def check_state(queries: Queries) -> None:
    """XCR0, leaf 0xD and sizes say the same."""
    xcr0 = queries.xgetbv(0)
    if "osxsave" not in queries.visible:
        assert xcr0 is None
        assert queries.cpuid(1)[ECX] >> FEATURES["osxsave"].bit & 1 == 0
    else:
        assert xcr0 == queries.xcr0 == queries.cpuid(0xD, 0)[EAX] & sum(1 << bit for bit in XCR0_BITS)
    if "xsave" not in queries.visible:
        assert queries.cpuid(0xD, 0) == (0, 0, 0, 0)
    elif queries.value.actions or queries.value.strict:
        ends = [576] + [sum(queries.cpuid(0xD, bit)[:2]) for bit in XCR0_BITS if bit >= 2 and queries.xcr0 >> bit & 1]
        assert queries.xsave_size == max(ends)
    if "xgetbv1" in queries.visible:
        assert queries.xgetbv(1, in_use=0b10) == queries.xcr0 & 0b10
    assert queries.hwcap == queries.cpuid(1)[EDX]
    assert queries.hwcap2 >> 1 == ("fsgsbase" in queries.visible)


def test_sizes_follow_the_components(host: CpuidTable) -> None:
    processor = making.processor(closed(frozenset(FEATURES)))
    queries = Queries(
        BlockingValue(features={"avx512f": BLOCK, "amx_tile": BLOCK, "apx_f": BLOCK, "pku": BLOCK, "mpx": BLOCK}),
        processor,
    )
    assert (queries.xcr0, queries.xsave_size) == (7, 832)
    assert queries.cpuid(0xD, 0)[:3] == (7, 832, 832)
    assert queries.cpuid(0xD, 1)[EBX] == 832
    assert queries.cpuid(0xD, 6) == (0, 0, 0, 0)
    assert Queries(BlockingValue(features={"avx": BLOCK}), processor).xsave_size >= 576


def test_where_xcr0_cannot_be_masked_there_is_room_for_all_that_is_stored() -> None:
    processor = making.processor(closed(frozenset(FEATURES) - {"apx_f"}))
    value = BlockingValue(features={"avx512f": BLOCK})
    masked, unmasked = Queries(value, processor), Queries(value, processor, processor.xcr0)
    assert unmasked.xcr0 == masked.xcr0
    assert unmasked.cpuid(0xD, 0)[EAX] == masked.cpuid(0xD, 0)[EAX]
    assert unmasked.cpuid(0xD, 6) == processor.get(0xD, 6)
    assert masked.cpuid(0xD, 6) == (0, 0, 0, 0)
    assert unmasked.cpuid(0xD, 1)[EBX] > masked.cpuid(0xD, 1)[EBX]
    assert unmasked.xsave_size == masked.xsave_size, "the frames of our own kernel need not"


def test_what_is_emulated_is_told_with_what_it_needs() -> None:
    old = making.processor(closed(OLD | {"xsave"}))
    queries = Queries(BlockingValue(features={"avx2": EMULATE, "sha_ni": EMULATE}), old)
    assert {"avx2", "avx", "osxsave", "xcr0_ymm", "sha_ni"} <= queries.visible
    assert (queries.xgetbv(0), queries.xsave_size) == (7, 832)
    assert queries.cpuid(7)[EBX] == 1 << 5 | 1 << 29
    assert announced(queries) == queries.visible
    blocked = BlockingValue.compose(BlockingValue(features={"avx": BLOCK}), queries.value)
    assert {"avx2", "avx"}.isdisjoint(Queries(blocked, old).visible)


def test_amd_repeats_bits_of_leaf_1_and_hides_them_too(host: CpuidTable) -> None:
    present = making.features(random.Random(5)) | {"mmx", "tsc"}
    processor = making.processor(closed(present), "AuthenticAMD")
    entries = dict(processor.entries)
    a, b, c, d = entries[0x8000_0001, 0]
    entries[0x8000_0001, 0] = a, b, c, d | entries[LEAF_1_EDX[:2]][EDX] & 0x0183_F3FF
    queries = Queries(BlockingValue(features={"tsc": BLOCK}), CpuidTable(entries, processor.xcr0))
    assert queries.cpuid(1)[EDX] >> 4 & 1 == queries.cpuid(0x8000_0001)[EDX] >> 4 & 1 == 0
    assert queries.cpuid(0x8000_0001)[EDX] >> 23 & 1 == 1


def test_leaves_beyond_the_last_answer_as_the_vendor_does() -> None:
    intel = making.processor(closed(frozenset(FEATURES)))
    amd = making.processor(closed(frozenset(FEATURES)), "AuthenticAMD")
    value = BlockingValue(features={"avx": BLOCK})
    assert Queries(value, intel).cpuid(0x3FFF_0000) == Queries(value, intel).cpuid(0x24)
    assert Queries(value, amd).cpuid(0x3FFF_0000) == (0, 0, 0, 0)


def test_raw_masks_hide_bits_without_a_name(host: CpuidTable) -> None:
    value = BlockingValue(masks={(4, 0, EAX): 0xFFFF_0000})
    assert Queries(value, host).cpuid(4)[EAX] == host.get(4)[EAX] & 0xFFFF_0000
    assert value.judge(Instruction.CPUID, 4) == EMULATE


def test_demands_that_cannot_be_met_are_named() -> None:
    old = making.processor(closed(OLD))
    assert Queries(levels.level("x86-64-v2"), old).missing == {"cx16", "lahf_lm", "popcnt", "ssse3", "sse4_1", "sse4_2"}
    assert not Queries(levels.level("x86-64-v1"), old).missing


def test_the_register_width_of_a_query_is_32_bits(host: CpuidTable) -> None:
    queries = Queries(BlockingValue(features={"avx": BLOCK}), host)
    assert queries.cpuid(7 | 1 << 40, 0xFF << 32) == queries.cpuid(7)
    assert queries.xgetbv(1 << 32) == queries.xgetbv(0)
    assert queries.xgetbv(2) is None
    assert BlockingValue(tables={Instruction.XGETBV: table(0, {0: BLOCK})}).judge(Instruction.XGETBV, 1 << 32) == BLOCK
