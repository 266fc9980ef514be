"""Whether a machine may start under a value: what is missing, what is too weak, and when a value may change."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from enisle.abi.x86_features import FEATURES, closed
from enisle.errors import EnisleError, HostError, StateError
from enisle.machine.blocking import admission, levels, qemu
from enisle.machine.blocking.codes import CodeTable, table
from enisle.machine.blocking.instructions import REQUIRE, Action, Instruction, Refusal
from enisle.machine.blocking.query import Queries
from enisle.machine.blocking.successor import exchange, losses, require_successor
from enisle.machine.blocking.value import BlockingValue, SecondLevel
from enisle.machine.enforcement.tiers import Tier
from unit.machine.blocking import making

ALL = closed(frozenset(FEATURES))
BLOCK = Action.BLOCK


def test_tiers_are_ordered_as_policies_count_them() -> None:
    assert {name: least for name, least in REQUIRE.items() if name != "enforced"} == {
        "none": Tier.ADVISORY, "detect": Tier.DETECT, "step": Tier.STEP, "patch": Tier.PATCH, "hw": Tier.HW,
    }  # fmt: skip
    assert REQUIRE["enforced"] == Tier.STEP


@pytest.mark.parametrize("require", REQUIRE)
@pytest.mark.parametrize("tier", Tier)
def test_a_policy_refuses_weaker_tiers_and_names_them(require: str, tier: Tier) -> None:
    """A mask that the hypervisor drops leaves CPUID at a lower tier: `require` sees it, whatever the probe found."""
    value = BlockingValue(features={"rdrand": BLOCK}, require=require)
    tiers = dict.fromkeys(Instruction, Tier.HW) | {Instruction.CPUID: tier}
    if tier >= REQUIRE[require]:
        admission.check_tiers(value, ALL, tiers)
    else:
        with pytest.raises(HostError) as caught:
            admission.check_tiers(value, ALL, tiers)
        assert f"cpuid ({tier.name.lower()})" in caught.value.why
        assert "rdrand" not in caught.value.why


def test_what_the_processor_does_not_have_needs_no_holding() -> None:
    value = BlockingValue(features={"avx512f": BLOCK, "rdrand": Action.EMULATE}, require="hw")
    weak = dict.fromkeys(Instruction, Tier.HW) | {Instruction.AVX512: Tier.ADVISORY}
    admission.check_tiers(value, closed(ALL - {"avx512f"}), weak)
    with pytest.raises(HostError, match="cannot enforce"):
        admission.check_tiers(value, ALL, weak)


def test_a_processor_that_lacks_what_is_demanded_is_refused_by_name() -> None:
    old = making.processor(closed(levels.V2 | levels.NEUTRAL))
    with pytest.raises(HostError) as caught:
        admission.admit(Queries(levels.level("x86-64-v3"), old), "kvm")
    assert "avx2" in caught.value.why
    assert "sse4_2" not in caught.value.why
    admission.admit(Queries(levels.level("x86-64-v2"), old), "kvm")
    both = BlockingValue.compose(levels.level("x86-64-v3"), levels.level("x86-64-v2"))
    with pytest.raises(HostError, match="forbidden by another"):
        admission.admit(Queries(both, making.processor(ALL)), "kvm")


# ---- successors ------------------------------------------------------------------------------------------------------


def test_only_a_value_that_permits_no_less_may_follow() -> None:
    chance = random.Random(15)
    for _ in range(300):
        old, other = making.value(chance), making.value(chance)
        both = BlockingValue.compose(old, other)
        require_successor(both, old)  # what permits more may follow
        require_successor(old, old)
        if both.actions != old.actions and losses(old, both):
            with pytest.raises(StateError):
                require_successor(old, both)


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (BlockingValue(features={"aes": BLOCK}), "aes"),
        (BlockingValue(tables={Instruction.RDMSR: table(0, {0x10: BLOCK})}), "rdmsr: 0x10"),
        (BlockingValue(tables={Instruction.RDMSR: CodeTable(BLOCK)}), "every other code"),
        (BlockingValue(calls=table(0, {101: Refusal.EPERM})), "0x65"),
        (BlockingValue(seconds={157: SecondLevel(table(0, {15: Refusal.EPERM}))}), "system call 157"),
        (BlockingValue(masks={(4, 0, 0): 0xFF}), "0x4.0"),
        (BlockingValue(strict=True), "unnamed"),
    ],
)
def test_what_a_successor_would_take_away_is_named(new: BlockingValue, named: str) -> None:
    with pytest.raises(StateError) as caught:
        require_successor(BlockingValue(), new)
    assert named in caught.value.why
    require_successor(new, BlockingValue())


def test_a_value_is_frozen_by_the_first_run() -> None:
    machine: Any = SimpleNamespace(statistics=lambda: SimpleNamespace(exits=1), blocking=BlockingValue())
    with pytest.raises(StateError, match="frozen"):
        exchange(machine, BlockingValue())


# ---- QEMU ------------------------------------------------------------------------------------------------------------


def test_qemu_is_told_what_is_visible_and_nothing_else() -> None:
    queries = Queries(levels.level("x86-64-v2"), making.processor(ALL))
    words = qemu.cpu_words(queries).split(",")
    assert words[:2] == ["base", "vendor=GenuineIntel"]
    added = {word[1:] for word in words if word[0] == "+"}
    assert {"sse4.2", "lahf-lm", "pni", "popcnt"} <= added
    assert {"avx", "aes", "rdrand", "osxsave"}.isdisjoint(added)
    assert added == {qemu.name_of(name) for name in queries.visible}


@pytest.mark.qemu
def test_qemu_knows_every_name_of_every_level() -> None:
    import subprocess

    text = subprocess.run(["qemu-system-x86_64", "-cpu", "help"], capture_output=True, text=True, check=True).stdout
    known = qemu.parse_help(text)
    assert len(known) > 100
    for name in levels.LEVELS:
        queries = Queries(levels.level(name), making.processor(ALL))
        assert not qemu.unknown(queries, known)
        assert qemu.cpu_words(queries, known) == qemu.cpu_words(queries)


def test_every_refusal_tells_what_why_and_what_to_do() -> None:
    for value in (levels.level("x86-64-v4"), BlockingValue(features={"sse2": BLOCK})):
        with pytest.raises(EnisleError) as caught:
            admission.admit(Queries(value, making.processor(closed(levels.V1))), "emulated")
        assert all((caught.value.message, caught.value.why, caught.value.hint))
