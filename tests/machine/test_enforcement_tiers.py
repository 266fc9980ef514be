"""The probe finds out what this host's controls do; what it says decides, so a probe that lies must be noticed."""

import json
from pathlib import Path

import pytest

from enisle.abi.cpuid import to_record
from enisle.abi.x86 import RAX, RDX
from enisle.errors import HostError
from enisle.machine import Action, BlockingValue, Instruction, Machine, Syscall, Tier, TierTable, probe_controls
from enisle.machine.blocking import backing, kept
from enisle.machine.enforcement import matrix, tiers
from enisle.machine.software.decode import decode
from machine.enforced import EnforcedGuest
from machine.guest import SYSCALL, mov

BLOCK = Action.BLOCK
MASKED = BlockingValue(features={"mtrr": BLOCK})
"""Hides what every processor has and no program needs: bit 12 of leaf 1 EDX."""
MTRR = 1 << 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "enisle-measured"


def check_that_masks_hold(backend: str) -> None:
    """Fail unless a program sees exactly what the value lets it see."""
    with Machine(backend, 64 << 20, blocking=MASKED) as machine:
        guest = EnforcedGuest(machine)
        guest.load(mov(RAX, 1) + b"\x0f\xa2" + SYSCALL)
        assert isinstance(guest.dispatch(), Syscall)
        assert not guest.gpr[RDX] & MTRR, "CPUID shows what is hidden"


def test_masks_hold_by_whatever_tier_the_probe_chose(backend: str) -> None:
    check_that_masks_hold(backend)


def test_the_clock_needs_no_exit_under_a_value_that_permits_the_counter(backend: str) -> None:
    with Machine(backend, 64 << 20) as free, Machine(backend, 64 << 20, blocking=MASKED) as blocked:
        assert (free.counter() is None) == (blocked.counter() is None)


def test_a_probe_that_lies_is_noticed(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CPUID masking claimed and nothing patched, the check above must fail where masks have no effect."""
    real = probe_controls(backend, cached=False)
    if real.cpuid_mask or real.cpuid_fault:
        pytest.skip("this host masks CPUID by itself")
    monkeypatch.setattr(tiers, "measure", lambda backend: real._replace(cpuid_mask=True))
    with pytest.raises(AssertionError, match="CPUID shows what is hidden"):
        check_that_masks_hold(backend)


def test_what_cannot_be_enforced_is_refused_by_name(backend: str) -> None:
    measured = probe_controls(backend, cached=False)
    table = TierTable(measured)
    announced = backing.known_table(backend).features
    for require, least in (("enforced", Tier.STEP), ("hw", Tier.HW)):
        asked = [Instruction.CPUID, Instruction.BMI1, *([Instruction.AVX] if "avx" in announced else [])]
        weak = [kind for kind in asked if table[kind].tier < least]
        value = BlockingValue(features={"avx": BLOCK, "bmi1": BLOCK}, require=require)
        if not weak:
            continue
        with pytest.raises(HostError) as refused, Machine(backend, 64 << 20, blocking=value):
            pass
        assert all(str(kind) in refused.value.why for kind in weak), refused.value.why
    with Machine(backend, 64 << 20, blocking=BlockingValue(features={"rdrand": BLOCK}, require="patch")) as machine:
        assert machine.enforcement
        assert machine.enforcement.tiers[Instruction.RDRAND].tier >= Tier.PATCH


def test_the_measurement_is_kept_for_this_boot_and_nonsense_is_not_believed(own_cache: Path) -> None:
    first = probe_controls("emulated")
    (file,) = own_cache.iterdir()
    assert probe_controls("emulated") == first
    text = file.read_text()
    found = json.loads(text)["found"]
    for changed in (
        {"tsd": 1},
        {"undefined": ["no such class"]},
        {"undefined": None},
        {"backend": "kvm"},
        {"new": True},
    ):
        kept.keep(tiers.MEASUREMENT, "emulated", found | changed)
        assert probe_controls("emulated") == first, changed
        assert file.read_text() == text
    kept.keep(tiers.MEASUREMENT, "emulated", [])
    assert probe_controls("emulated") == first
    assert file.read_text() == text


def test_a_processor_is_measured_once_per_boot(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = to_record(backing.known_table(backend))
    monkeypatch.setattr(backing, "apart", lambda measure: pytest.fail("measured again"))
    assert to_record(backing.known_table(backend)) == first
    monkeypatch.setattr(backing, "apart", lambda measure: first)
    for nonsense in (
        [],
        {},
        {"xcr0": 7},
        {"xcr0": 7, "entries": [[0, 0, 1]]},
        {"xcr0": 7, "entries": [[0] * 5 + [-1]]},
    ):
        kept.keep(backing.MEASUREMENT, backend, nonsense)
        assert to_record(backing.known_table(backend)) == first, nonsense


def test_an_emulator_that_takes_avx_for_sse_is_not_believed_to_have_none() -> None:
    """Unicorn refuses vaddps of 256 bits and executes the one of 128."""
    measured = probe_controls("emulated")
    assert "avx" in measured.undefined
    assert measured.short_vectors
    for kind in (Instruction.AVX, Instruction.AES, Instruction.PCLMUL):
        assert TierTable(measured)[kind].tier == Tier.ADVISORY
    assert TierTable(measured)[Instruction.AVX2].tier == Tier.HW


def test_the_samples_are_instructions_of_their_classes() -> None:
    for name, code in matrix.SAMPLES.items():
        instruction = decode(code)
        assert instruction is not None, name
        assert instruction.length == len(code), name
        kinds = {str(kind) for kind, _ in tiers_of(instruction.features)}
        assert name in kinds, (name, instruction.features)


def tiers_of(features: tuple[str, ...]) -> list[tuple[Instruction, int]]:
    from enisle.machine.blocking.instructions import OF_FEATURE

    return [OF_FEATURE[feature] for feature in features if feature in OF_FEATURE]
