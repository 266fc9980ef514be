"""The bench on hardware measures only where it can, and says what is missing elsewhere."""

from pathlib import Path

import pytest
from bench import walks_hardware
from bench.walks import promised
from bench.walks_hardware import island_words, list_of, measure_hardware, missing, parse_counts, processors_by_node


def host(root: Path, nodes: dict[int, str], with_memory: str) -> Path:
    """Make a /sys/devices/system/node."""
    root.mkdir(parents=True)
    (root / "has_memory").write_text(with_memory + "\n")
    for node, cpus in nodes.items():
        (root / f"node{node}").mkdir()
        (root / f"node{node}/cpulist").write_text(cpus + "\n")
    return root


def test_lists_are_read_as_the_host_writes_them() -> None:
    assert list_of("0-3,8\n") == [0, 1, 2, 3, 8]
    assert list_of("\n") == []


def test_nodes_without_processors_or_memory_do_not_count(tmp_path: Path) -> None:
    nodes = host(tmp_path / "node", {0: "0-1", 1: "", 2: "4", 3: "6-7"}, "0-2")
    assert processors_by_node(nodes) == {0: [0, 1], 2: [4]}
    assert processors_by_node(tmp_path / "nothing") == {}


@pytest.mark.parametrize(("cpus", "words"), [({0: "0-7"}, "1 node "), ({}, "0 nodes ")])
def test_one_node_is_a_reason_not_to_measure(tmp_path: Path, cpus: dict[int, str], words: str) -> None:
    nodes = host(tmp_path / "node", cpus, "0" if cpus else "")
    (tmp_path / "cpu").mkdir()
    assert any(words in reason for reason in missing(nodes, tmp_path / "cpu"))


def test_a_host_without_counters_is_one_too(tmp_path: Path) -> None:
    nodes = host(tmp_path / "node", {0: "0", 1: "1"}, "0-1")
    assert not any("node" in reason for reason in missing(nodes, tmp_path / "no-cpu"))
    assert any("performance counters" in reason for reason in missing(nodes, tmp_path / "no-cpu"))


def test_where_it_cannot_measure_it_prints_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(walks_hardware, "missing", lambda: ["this host has 1 node"])
    assert measure_hardware(64, 1000) == 5
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("nothing was measured")
    assert "this host has 1 node" in told.err


def test_counts_of_perf_are_read_and_what_was_not_counted_is_left_out() -> None:
    text = (
        "# started on …\n\n"
        "123456,,cycles:u,1000,100.00,,\n"
        "<not supported>,,dtlb_load_misses.walk_active,0,100.00,,\n"
        "77.5,,dtlb_store_misses.walk_active,1000,50.00,,\n"
    )
    assert parse_counts(text) == {"cycles:u": 123456.0, "dtlb_store_misses.walk_active": 77.5}
    assert parse_counts("") == {}


def test_the_island_gets_a_thread_on_a_processor_of_each_node(tmp_path: Path) -> None:
    words = list(island_words(tmp_path / "gups", "eager", {0: [0, 1], 1: [8, 9]}, 64, 1000))
    assert words[words.index("--nodes") + 1] == "2"
    assert words[words.index("--page-tables") + 1] == "eager"
    assert words[words.index("--") + 1 :] == [str(tmp_path / "gups"), "2", "64", "1000", "0", "8"]


@pytest.mark.parametrize(("nodes", "share"), [(2, 0.5), (4, 0.75), (8, 0.875)])
def test_the_promised_share_follows_the_number_of_nodes(nodes: int, share: float) -> None:
    low, high = promised("tables on one node", nodes)
    assert low < share < high
    assert promised("a copy on every node", nodes) == (0.0, 0.0)
