"""When a value may change: not after the machine has run, and then only for one that permits no less.

A guest that has seen a function may use it at any time. So a value is frozen by the first run, and a snapshot may be
taken up again only under a value that permits all that the old one did. Pure but for `exchange`.
"""

from typing import TYPE_CHECKING

from enisle.errors import StateError
from enisle.machine.blocking.codes import CodeTable
from enisle.machine.blocking.instructions import Action
from enisle.machine.blocking.value import TABLES, BlockingValue

if TYPE_CHECKING:
    from enisle.machine.machine import Machine


def losses(old: BlockingValue, new: BlockingValue) -> list[str]:
    """Return what `old` permits and `new` does not, one line each."""
    found: list[str] = []
    features = sorted(name for name in old.features if new.actions.get(name, Action.ALLOW) == Action.BLOCK)
    if features:
        found.append(f"features no longer there: {', '.join(features)}")
    for instruction in TABLES:
        codes = _stricter(old.tables.get(instruction, CodeTable()), new.tables.get(instruction, CodeTable()))
        if codes:
            found.append(f"{instruction}: {codes}")
    codes = _stricter(old.calls, new.calls)
    if codes:
        found.append(f"system calls refused now: {codes}")
    for number, second in sorted(new.seconds.items()):
        codes = _stricter(old.seconds[number].table if number in old.seconds else CodeTable(), second.table)
        if codes:
            found.append(f"functions of system call {number} refused now: {codes}")
    if new.strict and not old.strict:
        found.append("unnamed bits of CPUID are hidden now")
    for place, mask in sorted(new.masks.items()):
        hidden = old.masks.get(place, 0xFFFF_FFFF) & ~mask
        if hidden:
            found.append(f"CPUID leaf {place[0]:#x}.{place[1]} register {place[2]}: bits {hidden:#x} are hidden now")
    return found


def _stricter(old: CodeTable, new: CodeTable) -> str:
    """Return the codes for which `new` is stricter."""
    codes = sorted({code for code, _ in (*old.codes, *new.codes)})
    found = [f"{code:#x}" for code in codes if new.at(code) > old.at(code)]
    if new.default > old.default:
        found.append("every other code")
    return ", ".join(found)


def require_successor(old: BlockingValue, new: BlockingValue) -> None:
    """Raise StateError unless `new` permits everything that `old` does."""
    lost = losses(old, new)
    if lost:
        hint = "a value that permits no less, or a new start of the guest"
        raise StateError("a guest cannot go on under a value that permits less", "; ".join(lost), hint)


def exchange(machine: "Machine", value: BlockingValue) -> None:
    """Give a machine another value before it has run. Raises StateError afterwards."""
    if machine.statistics().exits:
        why = "a guest has run under it, and may use all it has seen"
        raise StateError(
            "the blocking value is frozen", why, "snapshot the guest and restore it under a value that permits no less"
        )
    from enisle.machine.blocking.backing import take_up
    from enisle.machine.enforcement.enforcement import Enforcement

    machine.blocking = value
    machine.queries = take_up(machine)
    machine.enforcement = Enforcement(machine)
