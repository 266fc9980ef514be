"""Blocking values: what they judge, how they compose, and that they do not change."""

import random

import pytest

from enisle.abi.x86_features import NAMES, dependents_of
from enisle.machine.blocking.codes import CodeTable, table
from enisle.machine.blocking.instructions import CODES, LEVELS, Action, Instruction, Outcome, Refusal
from enisle.machine.blocking.value import PERFORMANCE, BlockingValue, SecondLevel
from unit.machine.blocking import making

ALLOW, EMULATE, BLOCK = Action.ALLOW, Action.EMULATE, Action.BLOCK
PAIRS = 1000


def blocking(*names: str) -> BlockingValue:
    return BlockingValue(features=dict.fromkeys(names, BLOCK))


def test_without_rules_everything_is_allowed() -> None:
    value = BlockingValue()
    assert not value.trapped()
    assert value.features == NAMES
    assert all(value.judge(instruction, code) == ALLOW for instruction in Instruction for code in (0, 1, 7))


def test_what_needs_a_blocked_feature_is_blocked_with_it() -> None:
    value = blocking("avx")
    assert value.judge(Instruction.AVX2) == value.judge(Instruction.AVX512, 3) == value.judge(Instruction.FMA) == BLOCK
    assert value.judge(Instruction.AES) == ALLOW
    assert value.features.isdisjoint(dependents_of("avx"))
    assert {"avx", "xcr0_ymm", "avx512f", "vaes"}.isdisjoint(value.features)


def test_a_class_and_its_feature_are_one() -> None:
    value = blocking("rdrand")
    assert value.judge(Instruction.RDRAND) == BLOCK
    assert value.judge(Instruction.RDSEED) == ALLOW
    assert value.trapped() == {Instruction.RDRAND, Instruction.CPUID}
    assert value.judge(Instruction.CPUID, 1) == EMULATE, "the answer of leaf 1 is masked"
    assert value.judge(Instruction.CPUID, 4) == ALLOW


def test_a_family_blocked_by_code_hides_what_announces_it() -> None:
    everything = CodeTable(BLOCK)
    value = BlockingValue(tables={Instruction.RDPMC: everything})
    assert {"perfctr_core", "perfmon_v2"}.isdisjoint(value.features)
    assert value.judge(Instruction.CPUID, 0xA) == EMULATE
    value = BlockingValue(tables={Instruction.XGETBV: table(ALLOW, {1: BLOCK})})
    assert "xgetbv1" not in value.features
    assert "avx" in value.features
    assert (value.judge(Instruction.XGETBV, 0), value.judge(Instruction.XGETBV, 1)) == (ALLOW, BLOCK)
    value = BlockingValue(tables={Instruction.XGETBV: table(ALLOW, {0: BLOCK})})
    assert {"osxsave", "avx", "pku", "amx_tile"}.isdisjoint(value.features)
    assert "msr" not in BlockingValue(tables={Instruction.RDMSR: everything, Instruction.WRMSR: everything}).features


@pytest.mark.parametrize(
    ("instruction", "garbage"),
    [(Instruction.RDMSR, 1 << 32), (Instruction.CPUID, 0xDEAD_BEEF << 32), (Instruction.RDPMC, 1 << 63),
     (Instruction.XSETBV, 0xFFFF_FFFF << 32)],
)  # fmt: skip
def test_only_the_architected_width_of_a_code_counts(instruction: Instruction, garbage: int) -> None:
    value = BlockingValue(tables={instruction: table(ALLOW, {5: BLOCK})})
    assert value.judge(instruction, 5 | garbage) == BLOCK
    assert value.judge(instruction, 6 | garbage) == ALLOW


def test_a_hypercall_has_all_64_bits() -> None:
    value = BlockingValue(tables={Instruction.VMCALL: table(ALLOW, {1 << 40: BLOCK})})
    assert value.judge(Instruction.VMCALL, 1 << 40) == BLOCK
    assert value.judge(Instruction.VMCALL, 0) == ALLOW


def test_a_neighbour_of_a_blocked_code_stays_allowed() -> None:
    value = BlockingValue(tables={Instruction.RDMSR: table(BLOCK, {0x10: ALLOW, 0x8B: EMULATE})})
    assert [value.judge(Instruction.RDMSR, code) for code in (0xF, 0x10, 0x11, 0x8B)] == [BLOCK, ALLOW, BLOCK, EMULATE]


def test_system_calls_have_a_second_level() -> None:
    value = BlockingValue(
        calls=table(0, {101: Refusal.EPERM}),
        seconds={
            157: SecondLevel(table(0, {15: Refusal.ENOSYS})),
            41: SecondLevel(table(Refusal.SIGSYS, {1: 0})),
            56: SecondLevel(table(0, {1 << 28: Refusal.EPERM, 1 << 30: Refusal.EXCEPTION}), True),
        },
    )
    assert value.refusal(101 | 7 << 32, 99) == Refusal.EPERM
    assert (value.refusal(157, 15), value.refusal(157, 16)) == (Refusal.ENOSYS, Refusal.NONE)
    assert (value.refusal(41, 1), value.refusal(41, 2)) == (Refusal.NONE, Refusal.SIGSYS)
    assert value.refusal(56, 0x11) == Refusal.NONE
    assert value.refusal(56, 1 << 28 | 0x11) == Refusal.EPERM
    assert value.refusal(56, 1 << 28 | 1 << 30) == Refusal.EXCEPTION, "the strictest of the flags"
    assert value.judge(Instruction.SYSCALL, 157, 15) == BLOCK
    assert value.judge(Instruction.SYSCALL, 157, 16) == ALLOW


def test_flags_that_are_not_named_are_refused_by_default() -> None:
    codes = table(Refusal.EPERM, {1: 0, 2: 0})
    assert [codes.at_flags(flags) for flags in (0, 1, 3, 4, 5)] == [0, 0, 0, Refusal.EPERM, Refusal.EPERM]


def test_exceptions_are_those_of_the_manual_unless_chosen() -> None:
    value = BlockingValue(outcomes={Instruction.RDTSC: Outcome(13, 0x1234)})
    assert value.outcome(Instruction.RDTSC) == Outcome(13, 0x1234)
    assert value.outcome(Instruction.RDRAND) == Outcome(6)
    assert value.outcome(Instruction.RDMSR) == Outcome(13)
    assert blocking("osxsave").outcome(Instruction.XGETBV) == Outcome(6)
    assert BlockingValue(tables={Instruction.XGETBV: table(0, {1: BLOCK})}).outcome(Instruction.XGETBV) == Outcome(13)


def test_a_value_does_not_change() -> None:
    value = BlockingValue("v")
    for attribute in ("name", "strict", "tables", "actions", "demands"):
        with pytest.raises(AttributeError):
            setattr(value, attribute, None)


def test_the_digest_is_of_what_is_permitted_and_survives_the_way() -> None:
    chance = random.Random(1)
    values = [making.value(chance) for _ in range(100)]
    for value in values:
        again = BlockingValue.decode(value.encode())
        assert (again, again.digest, again.name) == (value, value.digest, value.name)
        assert BlockingValue.from_record(value.to_record(), "another name") == value
    assert len({value.digest for value in values}) == len({str(value.to_record()) for value in values})
    assert (
        BlockingValue("x", features={"avx": BLOCK}).digest
        == BlockingValue("y", features={"avx": BLOCK, "avx2": BLOCK}).digest
    ), "what follows need not be said"


def probes(chance: random.Random) -> list[tuple[Instruction, int, int]]:
    found = [(instruction, chance.randrange(7), 0) for instruction in Instruction if instruction in CODES]
    found += [(instruction, code, 0) for instruction, names in LEVELS.items() for code in range(len(names))]
    return [*found, *((Instruction.SYSCALL, number, 1 << chance.randrange(9)) for number in (16, 56, 3))]


def test_nothing_that_one_level_forbids_comes_back() -> None:
    """1,000 random pairs: every function is judged as the stricter of both levels judges it, or by what follows."""
    chance = random.Random(2)
    for _ in range(PAIRS):
        host, tenant = making.value(chance), making.value(chance)
        both = BlockingValue.compose(host, tenant)
        assert both.features <= host.features & tenant.features
        lost = host.features & tenant.features - both.features
        assert lost <= {"msr", *PERFORMANCE}, "hidden only when both together leave no code"
        for instruction, code, subcode in probes(chance):
            judged = both.judge(instruction, code, subcode)
            assert judged >= max(host.judge(instruction, code, subcode), tenant.judge(instruction, code, subcode))
            if instruction is Instruction.SYSCALL:
                assert both.refusal(code, subcode) == max(host.refusal(code, subcode), tenant.refusal(code, subcode))


def test_composition_is_a_meet() -> None:
    chance = random.Random(3)
    for _ in range(200):
        a, b, c = (making.value(chance) for _ in range(3))
        assert BlockingValue.compose(a, b) == BlockingValue.compose(b, a)
        assert BlockingValue.compose(BlockingValue.compose(a, b), c) == BlockingValue.compose(
            a, BlockingValue.compose(b, c)
        )
        assert BlockingValue.compose(a, a) == a == BlockingValue.compose(a, BlockingValue())


def test_a_template_cannot_grant_what_the_host_forbids() -> None:
    host = BlockingValue("host policy", features={"avx": BLOCK, "rdrand": BLOCK}, calls=table(0, {165: Refusal.EPERM}))
    tenant = BlockingValue("tenant", features={"rdrand": EMULATE, "avx2": EMULATE})
    both = BlockingValue.compose(host, tenant)
    assert both.judge(Instruction.RDRAND) == both.judge(Instruction.AVX2) == BLOCK
    assert both.refusal(165) == Refusal.EPERM
    assert BlockingValue.compose(tenant).judge(Instruction.RDRAND) == EMULATE
