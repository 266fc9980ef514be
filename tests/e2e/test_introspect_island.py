"""Address spaces of a running island, seen with the eyes that look into machines: rights, writable code, hashes."""

import json
from pathlib import Path
from typing import Any

import pytest

from commandline import enisle
from enisle.errors import InvalidRequest
from enisle.island import Entry, ask
from running import running

pytestmark = [pytest.mark.kvm, pytest.mark.root]
PROGRAM = (
    "python3",
    "-c",
    "import ctypes, hashlib, mmap, sys\n"
    "both = mmap.mmap(-1, 8192, prot=7)\n"
    "both.write(b'x' * 8192)\n"
    "code = mmap.mmap(-1, 8192, prot=3)\n"
    "code.write(b'\\x90' * 8191 + b'\\xc3')\n"
    "at = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
    "assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at), ctypes.c_size_t(8192), 5) == 0\n"
    "where = ctypes.addressof(ctypes.c_char.from_buffer(both))\n"
    "for line in sys.stdin:\n"
    "    print(where, at, hashlib.sha256(ctypes.string_at(at, 8192)).hexdigest(), flush=True)\n",
)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def rows(view: str) -> list[dict[str, Any]]:
    result = enisle("introspect", "web", view, "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["incomplete"] == []
    return told["rows"]


def _covering(found: list[dict[str, Any]], address: int) -> dict[str, Any]:
    return next(row for row in found if row["start"] <= address < row["start"] + row["size"])


@pytest.mark.parametrize("words", [(), ("--nodes", "2", "--page-tables", "eager"), ("--processor", "emulated")])
def test_rights_and_code_of_an_island_are_what_its_program_says(words: tuple[str, ...]) -> None:
    with running(*words, program=PROGRAM) as island:
        both, code, digest = island.say("tell").split()
        mapped = rows("maps")
        assert all(row["process"] == "2 python3" and row["user"] for row in mapped)
        assert _covering(mapped, int(code))["executable"]
        assert not _covering(mapped, int(code))["writable"]
        assert [row["start"] for row in rows("wx")] == [int(both)]
        assert digest in [row["sha256"] for row in rows("hashes") if row["start"] == int(code)]
        assert island.say("tell").split() == [both, code, digest]


def test_views_that_need_a_kernel_are_refused_with_a_reason() -> None:
    with running():
        for view in (("ps",), ("check",), ("watch", "do_exit")):
            refused = enisle("introspect", "web", *view)
            assert (refused.returncode, "no Linux kernel inside" in refused.stderr) == (4, True), refused.stderr
            assert len(refused.stderr.splitlines()) == 3


def _asking(entry: Entry, at: object, size: object) -> Any:
    return ask(entry, {"call": "memory", "at": at, "size": size})


def test_an_island_gives_memory_within_bounds_only() -> None:
    with running() as island:
        assert len(_asking(island.entry, 0, 1 << 20)["content"]) == 2 << 20
        assert len(_asking(island.entry, (1 << 20) - 4096, 1 << 20)["content"]) == 2 * 4096
        for at, size in ((-1, 4096), (0, (1 << 20) + 1), (1 << 60, 4096), ("0", 4096), (0, None)):
            with pytest.raises(InvalidRequest):
                _asking(island.entry, at, size)
