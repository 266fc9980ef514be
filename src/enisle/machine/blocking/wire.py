"""Blocking values on the wire and on disk: plain lists, numbers and strings, in one order."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from enisle.machine.blocking.codes import CodeTable, SecondLevel, table
from enisle.machine.blocking.instructions import Action, Instruction, Outcome

if TYPE_CHECKING:
    from enisle.machine.blocking.value import BlockingValue

VERSION = 1
ARCHITECTURE = "x86_64"


def record_of(value: "BlockingValue") -> dict[str, Any]:
    """Return all of a value but its name."""
    return {
        "version": VERSION,
        "architecture": ARCHITECTURE,
        "strict": value.strict,
        "features": {name: action.name.lower() for name, action in sorted(value.actions.items())},
        "masks": [[*place, mask] for place, mask in sorted(value.masks.items())],
        "tables": {
            key: [entry.default, [list(code) for code in entry.codes]] for key, entry in sorted(value.tables.items())
        },
        "calls": [value.calls.default, [list(code) for code in value.calls.codes]],
        "seconds": [
            [number, second.flags, second.table.default, [list(code) for code in second.table.codes]]
            for number, second in sorted(value.seconds.items())
        ],
        "outcomes": {key: list(outcome) for key, outcome in sorted(value.outcomes.items())},
        "answers": [[key, code, answer] for (key, code), answer in sorted(value.answers.items())],
        "demands": sorted(value.demands),
        "require": value.require,
    }


def parts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a value is made of. Requires: a well-formed record."""

    def read(entry: Any) -> CodeTable:
        return table(entry[0], [(code, value) for code, value in entry[1]])

    return {
        "features": {feature: Action[action.upper()] for feature, action in record["features"].items()},
        "strict": record["strict"],
        "masks": {(leaf, subleaf, register): mask for leaf, subleaf, register, mask in record["masks"]},
        "tables": {Instruction(key): read(entry) for key, entry in record["tables"].items()},
        "calls": read(record["calls"]),
        "seconds": {
            number: SecondLevel(table(default, [(c, e) for c, e in codes]), flags)
            for number, flags, default, codes in record["seconds"]
        },
        "outcomes": {Instruction(key): Outcome(*outcome) for key, outcome in record["outcomes"].items()},
        "answers": {(Instruction(key), code): answer for key, code, answer in record["answers"]},
        "demands": record["demands"],
        "require": record["require"],
    }
