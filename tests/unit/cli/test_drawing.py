"""Trees of page tables as rows and as a picture: nothing lost, never larger than a page, whatever an island answers."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.cli.drawing import HUES, MOST_LANES, MOST_ROWS, draw
from enisle.cli.output import plain, size, table
from enisle.cli.tree_rows import rows

SVG = "{http://www.w3.org/2000/svg}"


def copy(node: int, entries: int = 1, leaves: int = 0, lies_on: int | None = None) -> dict[str, int]:
    where = node if lies_on is None else lies_on
    return {"frame": 4096, "node": node, "lies_on": where, "entries": entries, "leaves": leaves}


def tree(leaf_tables: int, nodes: int = 1, order: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Return the outline of a tree with so many page tables, with a copy of each on every node."""
    copies = order or tuple(range(nodes))
    tables = [{"level": 3, "address": 0, "copies": [copy(node) for node in copies]}]
    for level, shift in ((2, 39), (1, 30), (0, 21)):
        addresses = sorted({(index << 21) >> shift << shift for index in range(leaf_tables)})
        leaves = 512 if level == 0 else 0
        tables += [
            {"level": level, "address": address, "copies": [copy(node, 512, leaves) for node in copies]}
            for address in addresses
        ]
    pages = sum(len(record["copies"]) for record in tables)  # type: ignore[arg-type]
    facts = {"nodes": nodes, "replicas": list(copies), "lazy": False, "total": len(tables), "pages": pages}
    return {**facts, "tables": tables}


def space(outline: dict[str, Any], name: str = "python3") -> dict[str, Any]:
    return {"pids": [2], "name": name, "threads": 1, "tree": outline}


def boxes(picture: str) -> list[ET.Element]:
    found = [rect for rect in ET.fromstring(picture).iter(f"{SVG}rect") if "box" in rect.get("class", "")]
    return [rect for rect in found if rect.get("height") == "22"]


def texts(picture: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(picture).iter(f"{SVG}text")]


def rings(picture: str) -> int:
    return sum(path.get("class") == "ring" for path in ET.fromstring(picture).iter(f"{SVG}path"))


# ---- rows ------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 4), st.integers(8, 200))
def test_folded_rows_keep_every_table_and_every_leaf(leaf_tables: int, nodes: int, most: int) -> None:
    outline = tree(leaf_tables, nodes)
    found = rows(outline, most)
    assert len(found) <= most
    assert sum(row.tables for row in found) == outline["total"]
    for node in range(nodes):
        assert sum(row.cells[node].leaves for row in found if node in row.cells) == leaf_tables * 512
    for index, row in enumerate(found):
        assert row.parent < index
        assert (row.parent < 0) == (row.level == 3)


def test_small_trees_are_shown_whole_in_the_order_of_addresses() -> None:
    found = rows(tree(3), 64)
    assert [(row.level, row.address) for row in found] == [
        *((3, 0), (2, 0), (1, 0)),
        *((0, 0), (0, 2 << 20), (0, 4 << 20)),
    ]
    assert [row.parent for row in found] == [-1, 0, 1, 2, 2, 2]


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["tables", "level", "address", "copies", "node", "lies_on", "entries", "leaves"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    )
)
def test_what_is_no_tree_is_a_value_error(answer: Any) -> None:
    for outline in (answer, {"tables": answer}, {"tables": [answer]}):
        try:
            rows(outline, 64)
            draw("web", [{**space(tree(1)), "tree": {**tree(1), "tables": [answer]}}])
        except ValueError:
            continue


# ---- the picture -----------------------------------------------------------------------------------------------------


def test_there_is_a_lane_for_each_node_a_box_for_each_copy_and_a_ring_round_them() -> None:
    picture = draw("web", [space(tree(3, nodes=4))])
    assert len(boxes(picture)) == 6 * 4
    assert rings(picture) == 6 * 4  # from each copy to the next, and back to the first
    assert [text for text in texts(picture) if text.startswith("node ")] == [f"node {n}: 6 tables" for n in range(4)]
    assert sum("512 leaves" in text for text in texts(picture)) == 3 * 4


def test_one_copy_has_no_ring() -> None:
    assert rings(draw("web", [space(tree(5))])) == 0


def test_a_box_has_the_colour_of_the_node_it_lies_on_and_says_so_when_that_is_foreign() -> None:
    outline = tree(1, nodes=2)
    outline["tables"][-1]["copies"][1]["lies_on"] = 0
    picture = draw("web", [space(outline)])
    (foreign,) = (box for box in boxes(picture) if "foreign" in box.get("class", ""))
    assert "n0" in foreign.get("class", "").split()
    assert any(text.endswith("on 0") for text in texts(picture))


def test_a_copy_that_is_missing_leaves_its_lane_empty() -> None:
    outline = tree(2, nodes=3)
    del outline["tables"][-1]["copies"][1]
    picture = draw("web", [space(outline)])
    assert len(boxes(picture)) == 5 * 3 - 1
    assert rings(picture) == 5 * 3 - 1


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1), (1, 0, 2)])
def test_rings_in_any_order_are_drawn(order: tuple[int, ...]) -> None:
    assert rings(draw("web", [space(tree(2, 3, order))])) == 5 * 3


@pytest.mark.parametrize(("leaf_tables", "nodes", "spaces"), [(1500, 64, 1), (1, 1, 100), (300, 16, 20)])
def test_no_tree_is_too_large_for_a_picture(leaf_tables: int, nodes: int, spaces: int) -> None:
    outline = {**tree(leaf_tables, nodes), "nodes": nodes}
    picture = draw("web", [space(outline)] * spaces)
    root = ET.fromstring(picture)
    assert float(root.get("height", "0")) < 3 * 38 * MOST_ROWS
    assert float(root.get("width", "0")) < 300 * (MOST_LANES + 1)
    assert len(picture) < 2 << 20


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_names_of_any_kind_do_not_break_it(island: str, name: str) -> None:
    picture = draw(island, [space(tree(1), name)])
    assert any(plain(name) in text for text in texts(picture))


def test_it_is_readable_on_light_and_on_dark_paper() -> None:
    style = ET.fromstring(draw("web", [space(tree(1))])).find(f"{SVG}style")
    assert style is not None
    assert style.text
    light, _, dark = style.text.partition("prefers-color-scheme: dark")
    assert all(name in light and name in dark for name in (".paper", ".ring", ".box", "text {"))
    assert all(hue in style.text for hue in HUES)


def test_an_island_without_processes_has_a_picture_too() -> None:
    assert "web: no process has page tables" in texts(draw("web", []))


# ---- words -----------------------------------------------------------------------------------------------------------


def test_columns_are_aligned_for_readers_and_separated_by_tabs_for_programs() -> None:
    cells = [("a", "1"), ("bcd", "23")]
    assert table(("X", "Y"), cells, True) == "X    Y\na    1\nbcd  23\n"
    assert table(("X", "Y"), cells, False) == "a\t1\nbcd\t23\n"
    assert table(("X", "Y"), [], False) == ""


@given(st.text())
def test_what_is_printed_is_no_command_to_a_terminal(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text)) == len(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (150 << 20, "150M"), (3 << 30, "3.0G"), (1 << 40, "1.0T")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text


def test_an_answer_survives_its_way_through_json() -> None:
    outline = tree(40, 3)
    assert rows(json.loads(json.dumps(outline)), 64) == rows(outline, 64)
