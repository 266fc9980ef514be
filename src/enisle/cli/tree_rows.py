"""Rows of a tree of page tables: depth first, long families folded, so that any tree fits on a page. Pure.

Takes what an island answers to `page-tables`; a wrong shape raises ValueError, as the answer may be anybody's.
"""

from typing import Any, cast

from enisle.records import Record

LEVEL_NAMES = ("PT", "PD", "PDPT", "PML4")
MOST_NODES = 64
FAMILY = (1 << 20, 16, 8, 5, 3)
"""How many children of a table are shown, tried in this order until all rows fit."""


class Cell(Record):
    """The copy of a table (or, folded, of several) in one node's lane."""

    lies_on: int
    entries: int
    leaves: int


class Row(Record):
    """One table, or several folded into one; `parent` is the row above it in the tree, -1 for the root."""

    level: int
    address: int
    parent: int
    tables: int
    cells: dict[int, Cell]
    """By node, in ring order."""

    @property
    def depth(self) -> int:
        return 3 - self.level


class _Table(Record):
    level: int
    address: int
    cells: dict[int, Cell]
    children: list[Any]


def span_shift(level: int) -> int:
    """Return the address bits that a table of the level translates."""
    return 12 + 9 * (level + 1)


def rows(tree: dict[str, Any], most: int) -> list[Row]:
    """Return at most `most` rows (but one a level at least) for an outline. Raises ValueError."""
    try:
        roots = _family(tree["tables"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no tree of page tables: {error!r}") from error
    found: list[Row] = []
    for family in FAMILY:
        found = []
        _add(found, roots, -1, family)
        if len(found) <= most:
            return found
    return _cut(found, most)


def _family(tables: list[dict[str, Any]]) -> list[_Table]:
    """Return the roots, with the tables beneath them."""
    known: dict[tuple[int, int], _Table] = {}
    roots: list[_Table] = []
    for record in sorted(tables, key=lambda record: (-_number(record["level"]), _number(record["address"]))):
        level, address = _number(record["level"]), _number(record["address"])
        table = _Table(level, address, _cells(record["copies"]), [])
        above = span_shift(level + 1)
        parent = known.get((level + 1, address >> above << above))
        (parent.children if parent else roots).append(table)
        known[level, address] = table
    return roots


def _cells(copies: list[dict[str, Any]]) -> dict[int, Cell]:
    cells: dict[int, Cell] = {}
    for copy in copies[:MOST_NODES]:
        cells[_number(copy["node"])] = Cell(*(_number(copy[name]) for name in ("lies_on", "entries", "leaves")))
    return cells


def _number(value: object) -> int:
    if not isinstance(value, int) or not -1 <= value < 1 << 64:
        raise TypeError(f"{str(value)[:40]!r} is no number here")
    return value


def _add(found: list[Row], family: list[_Table], parent: int, most: int) -> None:
    """Append the rows of siblings; the middle of a long family becomes one row."""
    fold = len(family) > most + 1
    first, last = (most - most // 4, len(family) - most // 4) if fold else (len(family), len(family))
    for table in family[:first]:
        _add_one(found, table, parent, most)
    if fold:
        found.append(_folded(family[first:last], parent))
    for table in family[last:]:
        _add_one(found, table, parent, most)


def _add_one(found: list[Row], table: _Table, parent: int, most: int) -> None:
    found.append(Row(table.level, table.address, parent, 1, table.cells))
    _add(found, cast("list[_Table]", table.children), len(found) - 1, most)


def _folded(hidden: list[_Table], parent: int) -> Row:
    """Return one row for several tables and all beneath them."""
    cells: dict[int, Cell] = {}
    count = 0
    waiting = list(hidden)
    while waiting:
        table = waiting.pop()
        waiting += table.children
        count += 1
        for node, cell in table.cells.items():
            before = cells.get(node, Cell(cell.lies_on, 0, 0))
            place = cell.lies_on if cell.lies_on == before.lies_on else -1
            cells[node] = Cell(place, before.entries + cell.entries, before.leaves + cell.leaves)
    return Row(hidden[0].level, hidden[0].address, parent, count, dict(sorted(cells.items())))


def _cut(found: list[Row], most: int) -> list[Row]:
    """Return the first rows, the rest folded into a last one."""
    rest = found[most - 1 :]
    cells: dict[int, Cell] = {}
    for row in rest:
        for node, cell in row.cells.items():
            before = cells.get(node, Cell(-1, 0, 0))
            cells[node] = Cell(-1, before.entries + cell.entries, before.leaves + cell.leaves)
    last = Row(rest[0].level, rest[0].address, rest[0].parent, sum(row.tables for row in rest), cells)
    return [*found[: most - 1], last]
