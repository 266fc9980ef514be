"""Saved machines: sparse, whole or not at all, and read by what looks into them."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import HostError, InvalidRequest
from enisle.introspect import open_saved
from enisle.linuxvm.configuration import VmConfig
from enisle.linuxvm.dump import copy_sparse, write_dump
from enisle.linuxvm.memory_map import Range
from enisle.linuxvm.registers import parse_registers

REGISTERS = parse_registers((Path(__file__).parent / "recorded" / "registers.txt").read_text())
MSRS = ({0xC0000082: 0xFFFFFFFFA4200080}, {0xC0000082: 1})
MEMORY = 64 << 20


def ram_with(pages: dict[int, bytes], size: int = MEMORY) -> int:
    descriptor = os.memfd_create("ram")
    os.ftruncate(descriptor, size)
    for page, content in pages.items():
        os.pwrite(descriptor, content, page << 12)
    return descriptor


def test_a_dump_is_read_back_by_introspection(tmp_path: Path) -> None:
    ram = ram_with({0: b"first", 0x3000: b"high"})
    ranges = (Range(0, 32 << 20, 0), Range(4 << 30, 32 << 20, 32 << 20))
    shares: list[int] = []
    dump = write_dump(
        tmp_path / "saved",
        "m",
        VmConfig(kernel="/k", memory=MEMORY),
        ram,
        ranges,
        REGISTERS,
        MSRS,
        lambda done, whole: shares.append(done),
    )
    os.close(ram)
    guest = open_saved(tmp_path / "saved")
    assert guest.memory.read(0, 5) == b"first"
    assert guest.memory.read((4 << 30) + (0x3000000 - (32 << 20)), 4) == b"high"
    processors = guest.processors()
    assert processors[1].cr3 == REGISTERS[1].control["cr3"]
    assert processors[0].msrs[0xC0000082] == 0xFFFFFFFFA4200080
    assert processors[0].gs_base == REGISTERS[0].segments["gs"].base
    assert dump.written <= 1 << 20  # the rest are holes
    assert shares
    assert os.stat(tmp_path / "saved" / "ram").st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "saved" / "state.json").read_text())["format"] == "enisle-vm"


def test_a_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there already"):
        write_dump(tmp_path, "m", VmConfig(kernel="/k"), -1, (), (), ())


@pytest.mark.parametrize("place", ["/no/such/directory/x", "/proc/x"])
def test_a_dump_that_cannot_be_written_is_the_hosts_fault(place: str) -> None:
    with pytest.raises(HostError):
        write_dump(Path(place), "m", VmConfig(kernel="/k"), -1, (), (), ())


def test_a_dump_that_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        write_dump(tmp_path / "saved", "m", VmConfig(kernel="/k"), -1, (), REGISTERS, MSRS)
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(st.integers(0, 255), st.binary(min_size=1, max_size=4096), max_size=6))
def test_what_is_copied_without_holes_is_the_same(pages: dict[int, bytes]) -> None:
    import tempfile

    size = 1 << 20
    ram = ram_with(pages, size)
    with tempfile.TemporaryDirectory() as directory:
        written = copy_sparse(ram, Path(directory) / "ram", size, None)
        assert (Path(directory) / "ram").read_bytes() == os.pread(ram, size, 0)
    os.close(ram)
    assert written <= 4096 * len(pages)
