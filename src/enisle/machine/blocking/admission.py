"""Whether a machine may start under a blocking value: nothing demanded is missing, and every block holds well enough.

A refusal names every function it is about.
"""

from collections.abc import Mapping

from enisle.errors import HostError, InvalidRequest
from enisle.machine.blocking.instructions import CODES, LEVELS, REQUIRE, Action, Instruction
from enisle.machine.blocking.query import Queries
from enisle.machine.blocking.value import BlockingValue

NEEDED_BY_ALL = ("fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "syscall", "lm", "nx")
"""x86-64-v1 without which no program for Linux starts (psABI 3.1.1)."""


def admit(queries: Queries, backend: str) -> None:
    """Raise HostError or InvalidRequest when a machine must not start so."""
    value = queries.value
    check_bootable(value)
    if queries.missing:
        forbidden = queries.missing - value.features
        why = f"missing: {', '.join(sorted(queries.missing - forbidden))}" if queries.missing - forbidden else ""
        if forbidden:
            why += (
                f"{'; ' if why else ''}demanded by one level and forbidden by another: {', '.join(sorted(forbidden))}"
            )
        hint = "enisle cpu verify shows what there is; enisle cpu baseline makes a value that several hosts can be"
        raise HostError(f"this processor ({backend}) cannot be {value.name or 'what the value demands'}", why, hint)
    if value.require != "none":
        from enisle.machine.enforcement.tiers import (
            TierTable,
            probe_controls,
        )  # a scratch machine: only when it is asked for

        table = TierTable(probe_controls(backend), value)
        check_tiers(value, queries.host.features, {kind: row.tier for kind, row in table.rows.items()})


def check_tiers(value: BlockingValue, present: frozenset[str], tiers: Mapping[Instruction, int]) -> None:
    """Raise HostError when something is held less well than the value requires, on a processor with these features."""
    weak = too_weak(value, present, tiers)
    if weak:
        held = ", ".join(f"{instruction} ({tier})" for instruction, tier in sorted(weak.items()))
        why = f"required: {value.require}; too weak: {held}"
        raise HostError("this host cannot enforce the blocking value", why, 'enisle cpu verify, or require = "none"')


def check_bootable(value: BlockingValue) -> None:
    """Raise InvalidRequest for a value under which no program could start."""
    lost = [name for name in NEEDED_BY_ALL if name not in value.features]
    if lost:
        what = f"under {value.name or 'this value'} no program could start"
        raise InvalidRequest(
            what, f"every x86-64 program needs {', '.join(lost)}", "block less: x86-64-v1 is the least"
        )


def too_weak(value: BlockingValue, present: frozenset[str], tiers: Mapping[Instruction, int]) -> dict[str, str]:
    """Return the classes that are held less well than the value requires, with what holds them."""
    least = REQUIRE[value.require]
    held = ((instruction, tiers.get(instruction, 0)) for instruction in held_classes(value, present))
    return {str(instruction): name_of(tier) for instruction, tier in held if tier < least}


def held_classes(value: BlockingValue, present: frozenset[str]) -> list[Instruction]:
    """Return the classes in which something the processor has must not run natively.

    Not system calls: our own kernel serves them, their blocks always hold. Not what is emulated alone: where the
    processor has it, it does the same.
    """
    return sorted(i for i in value.trapped() if i is not Instruction.SYSCALL and _must_hold(value, present, i))


def _must_hold(value: BlockingValue, present: frozenset[str], instruction: Instruction) -> bool:
    if instruction in LEVELS and instruction not in CODES:
        blocked = (name for name in LEVELS[instruction] if value.actions.get(name) == Action.BLOCK)
        return any(name in present for name in blocked)
    if instruction in LEVELS:
        return LEVELS[instruction][0] in present
    return True


def name_of(tier: int) -> str:
    """Return a tier's name."""
    return getattr(tier, "name", str(tier)).lower()
