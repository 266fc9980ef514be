"""Page tables as a picture (SVG 1.1): a lane for each node, a row for each table, arrows round every ring of copies.

A box has the colour of the node it lies on; one that lies on a foreign node is dashed. Readable on light and on dark
paper; as large as its rows, which are folded to a bound. Pure: values in, text out.
"""

from typing import Any
from xml.sax.saxutils import escape

from enisle.cli.output import plain, size
from enisle.cli.tree_rows import LEVEL_NAMES, Cell, Row, rows, span_shift

MOST_ROWS, MOST_LANES, MOST_SPACES = 64, 16, 6
MARGIN, LABEL, LANE, GAP = 24, 210, 240, 40
PITCH, BOX, INDENT, HEAD = 38, 22, 14, 96
HUES = ("#2f6fde", "#d9622b", "#1f9d61", "#a04bd0", "#c79a00", "#d0407f", "#1497a8", "#7a6a55")

STYLE = """
text { font: 12px ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; fill: #1c1e22 }
.paper { fill: #ffffff } .title { font-size: 15px; font-weight: bold } .faint { fill: #6a7078 }
.link { stroke: #b4b9c1; fill: none } .ring { stroke: #6a7078; fill: none; stroke-width: 1.2 }
.head { fill: #6a7078 } .none { stroke: #b4b9c1; stroke-dasharray: 2 4 }
.box { fill-opacity: .15; stroke-width: 1.4 } .foreign { stroke-dasharray: 5 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e8ec } .paper { fill: #14161a } .faint { fill: #9aa1ab } .link { stroke: #4a5059 }
.ring { stroke: #a8afb9 } .head { fill: #a8afb9 } .none { stroke: #4a5059 } .box { fill-opacity: .3 }
}
"""


def draw(island: str, spaces: list[dict[str, Any]]) -> str:
    """Return the picture of an island's address spaces. Raises ValueError for what is none."""
    try:
        return _draw(island, spaces)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"this is no tree of page tables: {error!r}") from error


def _draw(island: str, spaces: list[dict[str, Any]]) -> str:
    shown = spaces[:MOST_SPACES]
    lanes = max((min(int(space["tree"]["nodes"]), MOST_LANES) for space in shown), default=1)
    width = 2 * MARGIN + LABEL + lanes * LANE + (lanes - 1) * GAP + 12
    parts: list[str] = []
    y = MARGIN
    for space in shown:
        section = _Section(space["tree"], lanes, y, max(8, MOST_ROWS * 2 // len(shown)))
        parts += [_title(island, space, y), *section.draw()]
        y = section.bottom + MARGIN
    if len(spaces) > len(shown):
        parts.append(_text(MARGIN, y, f"… and {len(spaces) - len(shown)} more address spaces", "faint"))
        y += MARGIN
    if not spaces:
        parts.append(_text(MARGIN, y + 12, f"{island}: no process has page tables", "title"))
        y += 2 * MARGIN
    arrow = '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}">',
            f"<title>Page tables of the island {_safe(island)}</title>",
            f"<style>{STYLE}{_hues()}</style>",
            f'<defs>{arrow}<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
            f'<rect class="paper" width="{width}" height="{y}"/>',
            *parts,
            "</svg>\n",
        )
    )


def _hues() -> str:
    return "".join(f".n{index} {{ stroke: {hue}; fill: {hue} }}\n" for index, hue in enumerate(HUES))


def _safe(text: object) -> str:
    return escape(plain(text))


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{_safe(text)}</text>'


def _title(island: str, space: dict[str, Any], y: float) -> str:
    tree, pids = space["tree"], ", ".join(str(pid) for pid in space["pids"][:8])
    name = f"{island}: {space['name']}, process {pids}, {_count(int(space['threads']), 'thread')}"
    replicas = [int(node) for node in tree["replicas"]]
    kind = "lazy copies" if tree["lazy"] else "copies" if len(replicas) > 1 else "no copies"
    where = f"{kind}; trees for {_count(len(replicas), 'node')}: {', '.join(map(str, replicas))}"
    total, pages = int(tree["total"]), int(tree["pages"])
    facts = f"{_count(total, 'table')}, {_count(pages, 'page')} ({size(pages * 4096)}); {where}"
    return _text(MARGIN, y + 14, name, "title") + "\n" + _text(MARGIN, y + 34, facts, "faint")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


class _Section:
    """The lanes of one address space, from `top` on."""

    def __init__(self, tree: dict[str, Any], lanes: int, top: float, most: int) -> None:
        self._tree, self._top = tree, top
        self._rows = rows(tree, most)
        self._lanes = min(int(tree["nodes"]), lanes)
        self._omitted = int(tree["total"]) - len(tree["tables"])
        self.bottom = top + HEAD + PITCH * len(self._rows) + (MARGIN if self._omitted > 0 else 0)

    def draw(self) -> list[str]:
        parts = [self._lane_head(node) for node in range(self._lanes)]
        for index, row in enumerate(self._rows):
            parts += self._links(index, row)
        for index, row in enumerate(self._rows):
            parts.append(_text(MARGIN + 8 * row.depth, self._y(index) + 15, _label(row)))
            parts += [self._cell(index, row, node) for node in range(self._lanes)]
            parts += self._ring(index, row)
        if self._omitted > 0:
            parts.append(
                _text(MARGIN, self.bottom - 8, f"… and {_count(self._omitted, 'table')} not asked for", "faint")
            )
        return parts

    def _lane(self, node: int) -> float:
        return MARGIN + LABEL + node * (LANE + GAP)

    def _y(self, index: int) -> float:
        return self._top + HEAD + index * PITCH

    def _box(self, index: int, node: int) -> tuple[float, float, float]:
        """Return left, top and right of a box."""
        return self._lane(node) + INDENT * self._rows[index].depth, self._y(index), self._lane(node) + LANE

    def _lane_head(self, node: int) -> str:
        x, y = self._lane(node), self._top + 66
        count = sum(row.tables for row in self._rows if node in row.cells)
        swatch = f'<rect class="box n{node % len(HUES)}" x="{x}" y="{y - 11}" width="14" height="14" rx="3"/>'
        return swatch + _text(x + 22, y + 1, f"node {node}: {_count(count, 'table')}")

    def _links(self, index: int, row: Row) -> list[str]:
        """Return the lines from the parents down to this row's boxes."""
        if row.parent < 0:
            return []
        parts: list[str] = []
        for node in row.cells:
            if node < self._lanes and node in self._rows[row.parent].cells:
                (above, y, _), (left, top, _) = self._box(row.parent, node), self._box(index, node)
                parts.append(f'<path class="link" d="M{above + 7:g} {y + BOX:g}V{top + BOX / 2:g}H{left:g}"/>')
        return parts

    def _cell(self, index: int, row: Row, node: int) -> str:
        left, top, right = self._box(index, node)
        cell = row.cells.get(node)
        if cell is None:
            middle = top + BOX / 2
            return f'<path class="none" d="M{left + 8:g} {middle:g}H{right - 8:g}"/>'
        foreign = cell.lies_on not in (node, -1)
        hue = f"box n{max(cell.lies_on, 0) % len(HUES) if cell.lies_on >= 0 else node % len(HUES)}"
        shape = f'<rect class="{hue}{" foreign" if foreign else ""}" x="{left:g}" y="{top:g}" '
        shape += f'width="{right - left:g}" height="{BOX}" rx="4"/>'
        return shape + _text(left + 8, top + 15, _content(row, cell, foreign))

    def _ring(self, index: int, row: Row) -> list[str]:
        """Return the arrows from each copy to the next, and from the last back to the first."""
        nodes = [node for node in row.cells if node < self._lanes]
        if len(nodes) < 2 or row.tables > 1:
            return []
        return [self._arrow(index, a, b, nodes) for a, b in zip(nodes, (*nodes[1:], nodes[0]), strict=True)]

    def _arrow(self, index: int, source: int, target: int, nodes: list[int]) -> str:
        _, top, out = self._box(index, source)
        into, _, _ = self._box(index, target)
        middle = top + BOX / 2
        if source < target and not any(source < node < target for node in nodes):
            return f'<path class="ring" marker-end="url(#a)" d="M{out:g} {middle:g}H{into:g}"/>'
        if source < target:
            return self._detour(out - 10, top, top - 6, into + 12, top)
        return self._detour(out - 10, top + BOX, top + BOX + 7, into + 24, top + BOX)

    @staticmethod
    def _detour(x: float, y: float, by: float, to: float, end: float) -> str:
        return f'<path class="ring" marker-end="url(#a)" d="M{x:g} {y:g}V{by:g}H{to:g}V{end:g}"/>'


def _label(row: Row) -> str:
    if row.tables > 1:
        return f"… {row.tables} tables"
    return f"{row.address:#x} +{size(1 << span_shift(row.level)).replace('.0', '')}"


def _content(row: Row, cell: Cell, foreign: bool) -> str:
    name = f"{LEVEL_NAMES[row.level]}" if row.tables == 1 else f"{row.tables} tables"
    what = _count(cell.leaves, "leaf").replace("leafs", "leaves") if cell.leaves or not row.level else ""
    links = cell.entries - cell.leaves
    tables = f"{links} linked" if row.tables == 1 and links else ""
    where = f"on {cell.lies_on}" if foreign else ""
    return " · ".join(part for part in (name, tables, what, where) if part)
