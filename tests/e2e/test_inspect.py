"""Page tables of a running island: seen in words, as JSON and as a picture, and their copies changed meanwhile."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from commandline import enisle
from running import Running, running

pytestmark = [pytest.mark.kvm, pytest.mark.root]
SVG = "{http://www.w3.org/2000/svg}"
PROGRAM = (
    "python3",
    "-c",
    "import sys, threading, zlib\n"
    "table = bytearray(8 << 20)\n"
    "def work(): \n"
    "    for at in range(0, len(table), 4096): table[at] = at >> 12 & 255\n"
    "for line in sys.stdin:\n"
    "    threads = [threading.Thread(target=work) for _ in range(4)]\n"
    "    [t.start() for t in threads]; [t.join() for t in threads]\n"
    "    print(zlib.crc32(table), flush=True)\n",
)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def spaces(*words: str) -> list[dict[str, Any]]:
    result = enisle("inspect", "page-tables", *words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["spaces"]


def copies_of(outline: dict[str, Any]) -> list[set[int]]:
    return [{copy["node"] for copy in record["copies"]} for record in outline["tables"]]


def check(outline: dict[str, Any]) -> None:
    """Assert that the tables are one tree, and that each copy lies where it says."""
    known = {(record["level"], record["address"]) for record in outline["tables"]}
    assert len(known) == len(outline["tables"]) == outline["total"]
    assert sum(level == 3 for level, _ in known) == 1
    for level, address in known:
        above = 12 + 9 * (level + 2)
        assert level == 3 or (level + 1, address >> above << above) in known
    frames = [copy["frame"] for record in outline["tables"] for copy in record["copies"]]
    assert len(set(frames)) == len(frames) == outline["pages"]
    for record in outline["tables"]:
        assert len({(copy["entries"], copy["leaves"]) for copy in record["copies"]}) == 1 or outline["lazy"]


def test_a_tree_is_shown_in_words_json_and_svg(tmp_path: Path) -> None:
    with running("--nodes", "4", "--page-tables", "eager", program=PROGRAM) as island:
        assert island.say("go").isdigit()
        (space,) = spaces("web")
        assert (space["name"], space["threads"], len(space["pids"])) == ("python3", 1, 1)
        check(space["tree"])
        assert all(nodes == {0, 1, 2, 3} for nodes in copies_of(space["tree"]))
        assert {copy["lies_on"] for record in space["tree"]["tables"] for copy in record["copies"]} == {0, 1, 2, 3}
        words = enisle("inspect", "page-tables").stdout  # the only one there is
        assert "PML4" in words
        assert "0 1 2 3" in words
        file = tmp_path / "tables.svg"
        result = enisle("inspect", "page-tables", "web", "--svg", str(file))
        assert result.stdout == f"drew {space['tree']['total']} page tables into {file}\n"
        picture = ET.parse(file).getroot()
        boxes = [rect for rect in picture.iter(f"{SVG}rect") if rect.get("height") == "22"]
        assert len(boxes) == space["tree"]["pages"]
        assert enisle("inspect", "page-tables", "web", "--svg", "-").stdout.startswith("<svg")


def test_one_node_has_a_tree_without_copies() -> None:
    with running(program=PROGRAM) as island:
        assert island.say("go").isdigit()
        (space,) = spaces("web")
        check(space["tree"])
        assert (space["tree"]["nodes"], set(map(len, copies_of(space["tree"])))) == (1, {1})
        result = enisle("replicate", "web", "eager")
        assert (result.returncode, result.stdout) == (4, "")
        assert "--nodes 2" in result.stderr


def test_processes_have_trees_of_their_own_and_one_may_be_chosen() -> None:
    program = ("sh", "-c", "sleep 60 & sleep 60; true")
    with running(program=program):
        found = spaces("web")
        assert {space["name"] for space in found} >= {"sh", "sleep"}
        pid = found[0]["pids"][0]
        (chosen,) = spaces("web", "--process", str(pid))
        assert chosen["pids"] == [pid]
        result = enisle("inspect", "page-tables", "web", "--process", "9999")
        assert (result.returncode, result.stdout) == (3, "")


def settled(island: Running, mode: str, *words: str) -> dict[str, Any]:
    """Change the mode, let the program compute, and return the tree."""
    result = enisle("replicate", "web", mode, *words)
    assert result.returncode == 0, result.stderr
    assert f"mode {mode}" in result.stdout
    assert island.say("go") == island.say("go")
    (space,) = spaces("web")
    check(space["tree"])
    return space["tree"]


def test_copies_come_and_go_under_a_running_program_which_computes_the_same() -> None:
    with running("--nodes", "3", program=PROGRAM) as island:
        before = island.say("go")
        assert all(nodes == {0} for nodes in copies_of(settled(island, "off")))
        assert all(nodes == {0, 1, 2} for nodes in copies_of(settled(island, "eager")))
        assert all(nodes == {0, 2} for nodes in copies_of(settled(island, "eager", "--on", "0,2")))
        lazy = settled(island, "lazy")
        assert lazy["lazy"]
        assert all(0 in nodes for nodes in copies_of(lazy))
        assert all(len(nodes) == 1 for nodes in copies_of(settled(island, "migrate")))
        assert len(settled(island, "auto")["tables"]) > 4
        assert all(nodes == {0} or len(nodes) == 1 for nodes in copies_of(settled(island, "off")))
        assert island.say("go") == before
        now = json.loads(enisle("replicate", "web", "--json").stdout)
        assert (now["mode"], now["replicas"] >= 0, now["name"]) == ("off", True, "web")


IMPOSSIBLE = (
    (["inspect"], 2),
    (["inspect", "dreams"], 2),
    (["inspect", "page-tables", "nobody"], 3),
    (["inspect", "page-tables", "web", "web"], 2),
    (["inspect", "page-tables", "--process", "x"], 2),
    (["inspect", "page-tables", "web", "--process", "-1"], 2),
    (["inspect", "page-tables", "web", "--svg", "/no/such/place/x.svg"], 5),
    (["replicate"], 2),
    (["replicate", "web", "shiny"], 2),
    (["replicate", "web", "--on", "0"], 2),
    (["replicate", "web", "eager", "--on", "0,9"], 2),
    (["replicate", "web", "eager", "--on", "all"], 2),
    (["replicate", "web", "eager", "--on", ""], 2),
    (["replicate", "nobody", "eager"], 3),
)


def test_what_cannot_be_done_is_told_in_three_lines_and_changes_nothing() -> None:
    with running("--nodes", "2"):
        for words, code in IMPOSSIBLE:
            result = enisle(*words)
            lines = result.stderr.splitlines()
            assert (result.returncode, result.stdout) == (code, ""), (words, result)
            assert 2 <= len(lines) <= 3, (words, lines)
            assert lines[-1].startswith("  hint: "), (words, lines)
        now = json.loads(enisle("replicate", "web", "--json").stdout)
        assert (now["mode"], now["mask"], now["toggles"]) == ("off", [0, 1], 0)


def test_without_islands_there_is_nothing_to_look_into() -> None:
    result = enisle("inspect", "page-tables")
    assert (result.returncode, result.stdout) == (3, "")
    assert "no island is running" in result.stderr


def test_of_several_islands_one_must_be_named() -> None:
    with running(), running(name="db"):
        result = enisle("inspect", "page-tables")
        assert (result.returncode, result.stdout) == (4, "")
        assert "db, web" in result.stderr
