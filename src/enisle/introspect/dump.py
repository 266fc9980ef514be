"""Saved guests: a directory of raw memory and a JSON file, and bare memory images with the registers told apart.

`open_saved(path)` takes what `enisle vm dump` writes (`ram` and `state.json`, or one .json naming the memory file),
and raw, LiME and ELF core images beside which a file IMAGE.json holds the registers. The file is mapped, never written.
"""

import json
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from enisle.errors import InvalidRequest, NotFound
from enisle.introspect.memory import PhysicalMemory, ProcessorState, Segments

LIME_MAGIC = 0x4C694D45
PT_LOAD = 1
MOST_STATE = 16 << 20
"""Bytes of JSON that are read; a state is a few kilobytes."""


class SavedGuest:
    """A guest that stands still for ever."""

    def __init__(self, name: str, memory: PhysicalMemory, processors: Sequence[ProcessorState]) -> None:
        self.name = name
        self.memory: PhysicalMemory = memory
        self._processors = processors

    def processors(self) -> Sequence[ProcessorState]:
        return self._processors

    def pause(self) -> None:
        """Do nothing: it stands still."""

    def resume(self) -> None:
        """Do nothing: it stands still."""


def open_saved(path: str | os.PathLike[str]) -> SavedGuest:
    """Open a saved guest. Raises NotFound and InvalidRequest."""
    place = Path(path)
    if not place.exists():
        raise NotFound(f"there is no saved guest {place}", "no such file or directory")
    state_path, memory_path = _files_of(place)
    state = _read_state(state_path)
    named = state.get("memory") or state.get("ram")
    if isinstance(named, str):
        memory_path = state_path.parent / named
    buffer = _map(memory_path)
    pieces = _pieces_of(state, buffer, memory_path)
    processors = [_processor(index, entry) for index, entry in enumerate(_list(state, "cpus", "processors"))]
    if not processors:
        raise InvalidRequest(f"{state_path} tells of no processor", "page tables cannot be found without CR3")
    return SavedGuest(str(place), Segments(buffer, pieces), processors)


def _files_of(place: Path) -> tuple[Path, Path]:
    """Return the paths of state and memory."""
    if place.is_dir():
        states = [place / "state.json", *sorted(place.glob("*.json"))]
        state = next((candidate for candidate in states if candidate.is_file()), None)
        if state is None:
            why = "there is no state.json in it"
            raise NotFound(f"{place} holds no saved guest", why, "enisle vm dump NAME DIRECTORY makes one")
        memories = [place / name for name in ("ram", "memory", "ram.bin", "memory.bin")]
        return state, next((candidate for candidate in memories if candidate.is_file()), memories[0])
    if place.suffix == ".json":
        return place, place.with_suffix("")
    beside = place.with_name(place.name + ".json")
    if not beside.is_file():
        raise InvalidRequest(
            f"{place} comes without registers",
            "a memory image does not tell where the page tables are",
            f'write {{"cpus": [{{"registers": {{"cr3": …, "cr4": …, "idt_base": …}}}}]}} to {beside.name}',
        )
    return beside, place


def _read_state(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            state = json.loads(file.read(MOST_STATE))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} cannot be read as the state of a guest", str(error)) from None
    if not isinstance(state, dict):
        raise InvalidRequest(f"{path} is not the state of a guest", "it is no JSON object")
    return cast("dict[str, Any]", state)


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the memory {path} cannot be mapped", str(error)) from None


def _pieces_of(state: Mapping[str, Any], buffer: memoryview, path: Path) -> list[tuple[int, int, int]]:
    """Return where guest-physical memory lies in the file: told by the state, by the file's own header, or as it is."""
    if told := _list(state, "gpa_map", "ranges"):
        return [_piece(entry) for entry in told]
    if bytes(buffer[:4]) == b"\x7fELF":
        return _elf_pieces(buffer, path)
    if len(buffer) >= 32 and struct.unpack_from("<I", buffer)[0] == LIME_MAGIC:
        return _lime_pieces(buffer)
    return [(0, len(buffer), 0)]


def _piece(entry: Any) -> tuple[int, int, int]:
    try:
        if isinstance(entry, dict):
            given = cast("dict[str, Any]", entry)
            first = given["gpa"] if "gpa" in given else given["start"]
            return _number(first), _number(given["size"]), _number(given.get("offset", 0))
        gpa, size, offset = entry
        return _number(gpa), _number(size), _number(offset)
    except (KeyError, TypeError, ValueError):
        raise InvalidRequest("a piece of memory is told wrongly", f"{entry!r}", "[gpa, size, offset]") from None


def _elf_pieces(buffer: memoryview, path: Path) -> list[tuple[int, int, int]]:
    """Return the PT_LOAD segments of an ELF core (elf(5)); p_paddr is the guest-physical address."""
    try:
        if buffer[4] != 2:
            raise InvalidRequest(f"{path} is a 32-bit core", "64-bit guests are looked into")
        (table,) = struct.unpack_from("<Q", buffer, 32)
        size, count = struct.unpack_from("<HH", buffer, 54)
        entries = [struct.unpack_from("<IIQQQQQQ", buffer, table + size * index) for index in range(count)]
    except (struct.error, IndexError):
        raise InvalidRequest(f"{path} is a damaged ELF core", "its program headers end too early") from None
    return [(entry[4], entry[5], entry[2]) for entry in entries if entry[0] == PT_LOAD and entry[5]]


def _lime_pieces(buffer: memoryview) -> list[tuple[int, int, int]]:
    """Return the ranges of a LiME image: a 32-byte header {magic, version, first, last, 0} before each."""
    pieces: list[tuple[int, int, int]] = []
    at = 0
    while at + 32 <= len(buffer):
        magic, _, first, last = struct.unpack_from("<IIQQ", buffer, at)
        if magic != LIME_MAGIC or last < first:
            break
        pieces.append((first, last - first + 1, at + 32))
        at += 32 + last - first + 1
    return pieces


def _list(state: Mapping[str, Any], *names: str) -> list[Any]:
    for name in names:
        if isinstance(found := state.get(name), list):
            return cast("list[Any]", found)
    return []


def _number(value: Any) -> int:
    """Return an integer told as a number or as text (0x… is hexadecimal)."""
    number = int(value, 0) if isinstance(value, str) else int(value)
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{number} is no 64-bit number")
    return number


def _processor(index: int, entry: Any) -> ProcessorState:
    try:
        given = cast("dict[str, Any]", entry)
        registers = {str(name): _number(value) for name, value in given.get("registers", given).items()}
        msrs = {_number(number): _number(value) for number, value in given.get("msrs", {}).items()}
        return state_of(index, registers, msrs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"processor {index} of the saved guest is told wrongly", repr(error)) from None


def state_of(index: int, registers: Mapping[str, int], msrs: Mapping[int, int]) -> ProcessorState:
    """Return the state of a processor from its registers by name. Raises KeyError without cr3."""
    return ProcessorState(
        cr0=registers.get("cr0", 0x8005_0033),
        cr3=registers["cr3"],
        cr4=registers.get("cr4", 0x20),
        efer=registers.get("efer", 0xD01),
        idt_base=registers.get("idt_base", registers.get("idt", 0)),
        idt_limit=registers.get("idt_limit", 0xFFF),
        gs_base=registers.get("gs_base", 0),
        cpl=registers.get("cpl", registers.get("cs", 0) & 3),
        registers=dict(registers),
        msrs=dict(msrs),
        gdt_base=registers.get("gdt_base", 0),
        tr_base=registers.get("tr_base", 0),
        number=index,
    )
