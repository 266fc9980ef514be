"""Tables of function codes: one entry per code that differs from the default, composed by the strictest of both.

Immutable. Entries are numbers whose order is their strictness (`Action`, `Refusal`), so that composition is `max`:
commutative, associative, idempotent, and nothing that one level forbids comes back.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from enisle.records import Record


class CodeTable(Record):
    """`default` for every code but those in `codes` (sorted pairs of code and entry, none equal to the default)."""

    default: int = 0
    codes: tuple[tuple[int, int], ...] = ()

    def at(self, code: int) -> int:
        """Return the entry of one code."""
        return dict(self.codes).get(code, self.default)

    def at_flags(self, flags: int) -> int:
        """Return the strictest entry of the set bits of `flags`; each code is one bit. No bit set: nothing."""
        known = dict(self.codes)
        found = [entry for bit, entry in known.items() if flags & bit]
        if flags & ~sum(known):
            found.append(self.default)
        return max(found, default=0)

    @property
    def strictest(self) -> int:
        return max([self.default, *(entry for _, entry in self.codes)])

    @property
    def freest(self) -> int:
        return min([self.default, *(entry for _, entry in self.codes)])


class SecondLevel(Record):
    """Functions of one system call, told apart by an argument: equal to a code, or flags of which each bit counts."""

    table: CodeTable = CodeTable()
    flags: bool = False


def table(default: int, codes: Mapping[int, int] | Iterable[tuple[int, int]] = ()) -> CodeTable:
    """Return a table in its one form."""
    entries = dict(codes)
    return CodeTable(int(default), tuple(sorted((code, int(e)) for code, e in entries.items() if e != default)))


def strictest(first: CodeTable, second: CodeTable) -> CodeTable:
    """Return the table that allows what both allow."""
    one, two = dict(first.codes), dict(second.codes)
    codes = {code: max(one.get(code, first.default), two.get(code, second.default)) for code in one.keys() | two.keys()}
    return table(max(first.default, second.default), codes)


def merge(
    first: Mapping[Any, Any], second: Mapping[Any, Any], both: Callable[[Any, Any], Any], missing: Any
) -> dict[Any, Any]:
    """Return `both(a, b)` for every key of either; `missing` stands in for a side that has none."""
    keys = first.keys() | second.keys()
    return {key: both(first.get(key, missing), second.get(key, missing)) for key in keys}


def strictest_second(first: SecondLevel, second: SecondLevel) -> SecondLevel:
    return SecondLevel(strictest(first.table, second.table), first.flags or second.flags)
