"""Saved guests: every form is read, every damage is told."""

import json
import struct
from pathlib import Path

import pytest

from enisle.errors import EnisleError, InvalidRequest, NotFound
from enisle.introspect import Overlay, Segments, Unmapped, open_saved

REGISTERS = {"cr3": "0x1000", "cr4": 0x20, "idt_base": 5, "rip": 7}


def _state(**more: object) -> str:
    return json.dumps({"processors": [{"registers": REGISTERS, "msrs": {"0xc0000082": 9}}], **more})


def test_a_directory_of_memory_and_state_is_a_guest(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"a" * 4096 + b"b" * 4096)
    pieces = [{"gpa": 0, "size": 4096, "offset": 4096}, {"gpa": 1 << 32, "size": 4096, "offset": 0}]
    (tmp_path / "state.json").write_text(_state(memory="ram", gpa_map=pieces))
    guest = open_saved(tmp_path)
    assert guest.memory.read(4095, 1) == b"b"
    assert guest.memory.read(1 << 32, 2) == b"aa"
    assert guest.memory.ranges() == [(0, 4096), (1 << 32, 4096)]
    (processor,) = guest.processors()
    assert (processor.cr3, processor.rip, processor.msrs[0xC0000082]) == (0x1000, 7, 9)
    with pytest.raises(Unmapped):
        guest.memory.read(4095, 2)


def test_a_raw_image_needs_registers_beside_it(tmp_path: Path) -> None:
    image = tmp_path / "memory.raw"
    image.write_bytes(b"x" * 8192)
    with pytest.raises(InvalidRequest, match="without registers"):
        open_saved(image)
    (tmp_path / "memory.raw.json").write_text(_state())
    assert open_saved(image).memory.read(8191, 1) == b"x"


def test_lime_ranges_are_read(tmp_path: Path) -> None:
    image = tmp_path / "memory.lime"
    pieces = [(0x1000, b"a" * 4096), (0x10_0000, b"b" * 8192)]
    image.write_bytes(b"".join(struct.pack("<IIQQQ", 0x4C694D45, 1, at, at + len(c) - 1, 0) + c for at, c in pieces))
    (tmp_path / "memory.lime.json").write_text(_state())
    memory = open_saved(image).memory
    assert (memory.read(0x1FFF, 1), memory.read(0x10_1FFF, 1)) == (b"a", b"b")


def test_elf_cores_are_read(tmp_path: Path) -> None:
    image = tmp_path / "core"
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 4, 4096, 0xFFFF_8880_0010_0000, 0x10_0000, 4096, 4096, 4096)
    image.write_bytes((head + segment).ljust(4096, b"\0") + b"c" * 4096)
    (tmp_path / "core.json").write_text(_state())
    assert open_saved(image).memory.read(0x10_0004, 1) == b"c"
    image.write_bytes(head[:60])
    with pytest.raises(InvalidRequest, match="damaged ELF core"):
        open_saved(image)


@pytest.mark.parametrize(
    "state",
    ["", "[]", "{", "{}", '{"processors": []}', '{"processors": [{"registers": {}}]}', '{"processors": [5]}',
     '{"processors": [{"registers": {"cr3": -1}}]}', '{"processors": [{"registers": {"cr3": "x"}}]}',
     '{"processors": [{"registers": {"cr3": 1}}], "gpa_map": [[1]]}', "[" * 100_000],
)  # fmt: skip
def test_damaged_states_are_told(tmp_path: Path, state: str) -> None:
    (tmp_path / "ram").write_bytes(b"x" * 4096)
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(InvalidRequest):
        open_saved(tmp_path)


def test_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_saved(tmp_path / "nothing")
    with pytest.raises(NotFound):
        open_saved(tmp_path)
    (tmp_path / "state.json").write_text(_state())
    with pytest.raises(EnisleError, match="cannot be mapped"):
        open_saved(tmp_path)


def test_pieces_beyond_the_file_are_holes() -> None:
    memory = Segments(memoryview(bytes(4096)), [(0, 8192, 0), (1 << 20, 4096, 4096)])
    assert memory.ranges() == [(0, 4096)]
    with pytest.raises(Unmapped):
        memory.read(1 << 20, 1)


def test_an_overlay_changes_a_copy_only() -> None:
    content = bytes(8192)
    overlay = Overlay(Segments(memoryview(content), [(0, 8192, 0)]))
    overlay.write(4094, b"abcd")
    assert overlay.read(4090, 10) == b"\0\0\0\0abcd\0\0"
    assert overlay.read(0, 4) == bytes(4)
    assert content == bytes(8192)
