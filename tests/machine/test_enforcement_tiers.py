"""The probe finds out what this host's controls do; what it says decides, so a probe that lies must be noticed."""

import os
import stat
from pathlib import Path

import pytest

from enisle.abi.x86 import RAX, RDX
from enisle.errors import HostError
from enisle.machine import Action, BlockingValue, Instruction, Machine, Syscall, Tier, TierTable, probe_controls
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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


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
    for require, least in (("enforced", Tier.STEP), ("hw", Tier.HW)):
        weak = [kind for kind in (Instruction.CPUID, Instruction.AVX, Instruction.BMI1) if table[kind].tier < least]
        value = BlockingValue(features={"avx": BLOCK, "bmi1": BLOCK}, require=require)
        if not weak:
            continue
        with pytest.raises(HostError) as refused, Machine(backend, 64 << 20, blocking=value):
            pass
        assert all(str(kind) in refused.value.why for kind in weak), refused.value.why
    with Machine(backend, 64 << 20, blocking=BlockingValue(features={"rdrand": BLOCK}, require="patch")) as machine:
        assert machine.enforcement
        assert machine.enforcement.tiers[Instruction.RDRAND].tier >= Tier.PATCH


def test_the_measurement_is_kept_for_this_boot_and_forgeries_are_not_believed(own_cache: Path) -> None:
    first = probe_controls("emulated")
    (kept,) = (own_cache / "enisle").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert probe_controls("emulated") == first
    text = kept.read_text()
    for forged in ("", "[]", "{}", text[:-5], text.replace("false", "1"), text.replace('"avx"', '"no such class"')):
        kept.write_text(forged)
        assert probe_controls("emulated") == first, forged
        assert kept.read_text() == text
    kept.write_text(text.replace('"tsd": false', '"tsd": true'))
    kept.chmod(0o666)  # others could have written it
    assert probe_controls("emulated") == first
    os.remove(kept)


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
