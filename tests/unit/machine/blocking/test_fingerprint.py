"""Whether a guest may go on elsewhere: 200 mutated hosts against an oracle that knows what was changed."""

import random

import pytest

from enisle.abi.cpuid import CpuidTable
from enisle.abi.x86_features import FEATURES, STANDARD_LAYOUT, dependents_of
from enisle.errors import StateError
from enisle.machine.blocking import fingerprint, levels
from enisle.machine.blocking.baseline import OF_THE_SYSTEM
from enisle.machine.blocking.fingerprint import Comparison, Fingerprint
from enisle.machine.blocking.instructions import Action, Instruction
from enisle.machine.blocking.query import visible
from enisle.machine.blocking.value import BlockingValue
from unit.machine.blocking import making

SYSTEM = ("6.1.0", "0x2b000603")
FINDINGS = (("cpuid_fault", True), ("patch", True), ("tsd", True))
MUTATIONS = 200
V2 = levels.level("x86-64-v2")


def full() -> frozenset[str]:
    return frozenset(FEATURES) - {"apx_f", "xcr0_apx"}


def taken(features: frozenset[str], vendor: str = "GenuineIntel", **changes: object) -> Fingerprint:
    made = fingerprint.of(making.processor(features, vendor), "kvm", SYSTEM, FINDINGS)
    return made._replace(**changes)


class Mutant:
    """A host that differs from the one of the snapshot, and what must be said of it."""

    def __init__(self, chance: random.Random, value: BlockingValue) -> None:
        self.features, self.vendor, self.layout = full(), "GenuineIntel", dict(STANDARD_LAYOUT)
        self.system, self.findings, self.wrong, self.changed = SYSTEM, FINDINGS, set[str](), False
        needed = visible(value, full()) - OF_THE_SYSTEM
        for kind in chance.sample(
            ("feature", "vendor", "layout", "microcode", "kernel", "findings"), chance.randint(0, 3)
        ):
            self.changed = True
            getattr(self, f"change_{kind}")(chance, needed)

    def change_feature(self, chance: random.Random, needed: frozenset[str]) -> None:
        lost = chance.choice(sorted(full()))
        self.features -= {lost, *dependents_of(lost)}
        if ({lost} | dependents_of(lost)) & needed:
            self.wrong.add("missing")

    def change_vendor(self, chance: random.Random, needed: frozenset[str]) -> None:
        self.vendor = "AuthenticAMD"
        self.wrong.add("vendor")

    def change_layout(self, chance: random.Random, needed: frozenset[str]) -> None:
        self.layout[5] = (832, 64)
        if "xcr0_opmask" in needed:
            self.wrong.add("layout")

    def change_microcode(self, chance: random.Random, needed: frozenset[str]) -> None:
        self.system = (self.system[0], "0x2b000999")

    def change_kernel(self, chance: random.Random, needed: frozenset[str]) -> None:
        self.system = ("6.18.0", self.system[1])

    def change_findings(self, chance: random.Random, needed: frozenset[str]) -> None:
        self.findings = (("cpuid_fault", False), *FINDINGS[1:])

    def fingerprint(self) -> Fingerprint:
        table: CpuidTable = making.processor(self.features, self.vendor, self.layout)
        return fingerprint.of(table, "kvm", self.system, self.findings)


def signs(found: Comparison) -> set[str]:
    words = {"missing": "missing:", "vendor": "another vendor", "layout": "lie elsewhere"}
    return {sign for sign, word in words.items() if any(word in reason for reason in found.reasons)}


@pytest.mark.parametrize("value", [BlockingValue(), V2, levels.level("x86-64-v4")], ids=["host", "v2", "v4"])
def test_mutated_hosts_are_judged_right(value: BlockingValue) -> None:
    chance = random.Random(14)
    verdicts: set[str] = set()
    for _ in range(MUTATIONS):
        mutant = Mutant(chance, value)
        found = fingerprint.compare(taken(full()), mutant.fingerprint(), value)
        wrong = mutant.wrong if "xcr0_opmask" in mutant.features else mutant.wrong - {"layout"}
        assert signs(found) == wrong, f"{vars(mutant)} {found}"
        assert found.verdict == ("refused" if wrong else "compatible" if mutant.changed else "same")
        assert bool(found.notes) == (found.verdict == "compatible")
        verdicts.add(found.verdict)
    assert verdicts == {"same", "compatible", "refused"}


def test_what_is_missing_is_named() -> None:
    found = fingerprint.compare(taken(full()), taken(full() - {"vaes", "gfni"}))
    assert found.reasons == ("missing: gfni, vaes",)
    with pytest.raises(StateError, match=r"cannot go on") as caught:
        fingerprint.require(found)
    assert "vaes" in caught.value.why
    fingerprint.require(fingerprint.compare(taken(full()), taken(full() - {"vaes", "gfni"}), V2))


def test_a_guest_of_a_level_goes_on_an_older_processor() -> None:
    old = taken(levels.V2 | levels.NEUTRAL)
    assert fingerprint.compare(taken(full()), old, V2).verdict == "compatible"
    assert fingerprint.compare(taken(full()), old, levels.level("x86-64-v3")).verdict == "refused"
    assert fingerprint.compare(old, taken(full()), V2).verdict == "compatible"


def test_another_vendor_can_be_let_pass() -> None:
    here = taken(full(), "AuthenticAMD")
    assert fingerprint.compare(taken(full()), here, V2).verdict == "refused"
    assert fingerprint.compare(taken(full()), here, V2, cross_vendor=True).verdict == "compatible"


def test_what_is_emulated_need_not_be_there() -> None:
    value = BlockingValue(features={"sha_ni": Action.EMULATE})
    assert fingerprint.compare(taken(full()), taken(full() - {"sha_ni"}), value).verdict == "compatible"


def test_blocks_must_hold_here_as_the_value_requires() -> None:
    value = BlockingValue(features={"rdrand": Action.BLOCK}, require="enforced")
    strong = dict.fromkeys(Instruction, 4)
    assert fingerprint.compare(taken(full()), taken(full()), value, strong).verdict == "same"
    found = fingerprint.compare(taken(full()), taken(full()), value, strong | {Instruction.RDRAND: 0})
    assert found.verdict == "refused"
    assert "rdrand" in found.reasons[0]
