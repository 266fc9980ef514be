"""The Windows front end on a PE image made here, and on Wine's ntoskrnl.exe where `tools/kernels` has fetched it.

Neither is Microsoft's; the room says so of itself.
"""

import os
import struct
from pathlib import Path

import guests
import pytest

from enisle.introspect import Unsupported
from enisle.introspect.pe import WindowsKernel, discover_windows
from synthetic_kernel import READ_ONLY, Builder

BASE = 0xFFFF_F800_1240_0000
IDT = 0xFFFF_FE00_0000_0000
SOAK = bool(os.environ.get("ENISLE_SOAK"))
TEXT, RDATA, DATA = 0x1000, 0x2000, 0x4000
FUNCTIONS = {
    "PsGetProcessId": b"\x48\x8b\x41\x38\xc3",  # mov rax, [rcx+0x38]; ret
    "PsGetThreadId": b"\x48\x8b\x81\x28\x01\x00\x00\xc3",  # mov rax, [rcx+0x128]; ret
    "PsGetThreadProcessId": b"\x85\xd2\x74\x05\x48\x8b\x41\x38\xc3\x48\x8b\x41\x40\xc3",  # one of two fields
    "PsSetLoadImageNotifyRoutine": b"\x8b\x05%s\x83\xc0\x01\x89\x05%s\x31\xc0\xc3",
    "PsRemoveLoadImageNotifyRoutine": b"\x8b\x05%s\x83\xe8\x01\x89\x05%s\x31\xc0\xc3",
}


def _relative(at: int) -> bytes:
    return struct.pack("<i", DATA - at)


def _file() -> bytes:
    """Return a PE64 image as it lies in memory, with FUNCTIONS exported."""
    text, places = bytearray(), {}
    for name, code in FUNCTIONS.items():
        at = TEXT + len(text)
        places[name] = at
        if b"%s" in code:
            code = code % (_relative(at + 6), _relative(at + 15))
        text += code.ljust(64, b"\xcc")
    names = sorted(FUNCTIONS)
    strings = b"ntoskrnl.exe\0" + b"".join(name.encode() + b"\0" for name in names)
    tables = RDATA + 40
    strings_at = tables + 10 * len(names)
    starts = [strings_at + strings.index(name.encode() + b"\0") for name in names]
    directory = struct.pack(
        "<IIHHIIIIIII", 0, 0, 0, 0, strings_at, 1, len(names), len(names), tables, tables + 4 * len(names),
        tables + 8 * len(names),
    )  # fmt: skip
    rdata = directory + struct.pack(f"<{len(names)}I", *(places[name] for name in names))
    rdata += struct.pack(f"<{len(names)}I", *starts) + struct.pack(f"<{len(names)}H", *range(len(names))) + strings
    head = bytearray(0x1000)
    head[:2], head[0x3C:0x40] = b"MZ", struct.pack("<I", 0x80)
    head[0x80:0x98] = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 3, 0, 0, 0, 240, 0x22)
    struct.pack_into("<H", head, 0x98, 0x20B)
    struct.pack_into("<I", head, 0x98 + 56, 0x5000)
    struct.pack_into("<II", head, 0x98 + 112, RDATA, len(rdata))
    return bytes(head) + bytes(text).ljust(0x1000, b"\xcc") + rdata.ljust(0x2000, b"\0") + bytes(0x1000)


def _machine(content: bytes, sections: list[tuple[int, int, int]], entry: int) -> WindowsKernel:
    """Map an image with (address, size, flags) sections and interrupt gates into it; look into it."""
    builder = Builder()
    for at, size, flags in sections:
        builder.place(BASE + at, content[at : at + size], flags)
    target = BASE + entry
    gate = struct.pack("<HHBBHII", target & 0xFFFF, 16, 0, 0x8E, target >> 16 & 0xFFFF, target >> 32, 0)
    builder.place(IDT, gate * 32, READ_ONLY)
    guest = builder.guest()
    return discover_windows(guest.memory, guest.processors())


def _made(content: bytes) -> WindowsKernel:
    return _machine(
        content,
        [(0, 0x1000, READ_ONLY), (TEXT, 0x1000, 1), (RDATA, 0x2000, READ_ONLY), (DATA, 0x1000, 3 | 1 << 63)],
        TEXT + 0x20,
    )


def test_exports_offsets_and_globals_of_a_pe_image_are_found() -> None:
    kernel = _made(_file())
    assert kernel.name == "ntoskrnl.exe"
    assert kernel.exports.by_name.keys() == FUNCTIONS.keys()
    value = kernel.facts.value
    assert value("EPROCESS.UniqueProcessId") == 0x38
    assert value("ETHREAD.Cid.UniqueThread") == 0x128
    assert value("load_image_notify_routine_count") == BASE + DATA
    counted = kernel.facts.find("load_image_notify_routine_count")
    assert counted is not None
    assert counted.status == "confirmed"


def test_a_function_that_returns_one_of_two_fields_tells_nothing() -> None:
    assert _made(_file()).facts.value("ETHREAD.Cid.UniqueProcess") is None


def test_it_says_what_it_was_tested_on() -> None:
    assert "not on Microsoft Windows" in _made(_file()).tested


@pytest.mark.parametrize("at", [0, 0x3C, 0x80, 0x84, 0x98, 0x98 + 112, 0x98 + 56])
def test_damaged_headers_are_told(at: int) -> None:
    content = bytearray(_file())
    content[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(Unsupported):
        _made(bytes(content))


def test_every_damaged_byte_of_the_directory_ends_well() -> None:
    for at in range(RDATA, RDATA + 40):
        content = bytearray(_file())
        content[at] ^= 0xFF
        try:
            _made(bytes(content))
        except Unsupported:
            pass


def _sections(raw: bytes) -> tuple[bytes, list[tuple[int, int, int]], int]:
    """Return (image as mapped, sections, entry point) of a PE file (PE/COFF 3 and 4)."""
    header = struct.unpack_from("<I", raw, 0x3C)[0]
    count, optional = struct.unpack_from("<H", raw, header + 6)[0], struct.unpack_from("<H", raw, header + 20)[0]
    image, found = bytearray(raw[:0x1000]), [(0, 0x1000, READ_ONLY)]
    for index in range(count):
        at = header + 24 + optional + 40 * index
        size, address, raw_size, pointer = struct.unpack_from("<IIII", raw, at + 8)
        flags = struct.unpack_from("<I", raw, at + 36)[0]
        image = image.ljust(address, b"\0") + raw[pointer : pointer + min(raw_size, size)].ljust(size, b"\0")
        if not flags >> 25 & 1:  # not discardable
            found.append((address, size, 1 | (flags >> 31) << 1 | (0 if flags >> 29 & 1 else 1 << 63)))
    return bytes(image), found, struct.unpack_from("<I", raw, header + 24 + 16)[0]


def _symbols(raw: bytes) -> dict[str, int]:
    """Return the COFF symbols of a PE file by name (PE/COFF 5.4)."""
    header = struct.unpack_from("<I", raw, 0x3C)[0]
    table, count = struct.unpack_from("<II", raw, header + 12)
    optional = struct.unpack_from("<H", raw, header + 20)[0]
    strings, found, index = raw[table + 18 * count :], {}, 0
    while index < count:
        name, value, section, _, _, more = struct.unpack_from("<8sIhHBB", raw, table + 18 * index)
        if name[:4] == bytes(4):
            name = strings[struct.unpack("<I", name[4:])[0] :].partition(b"\0")[0]
        if section > 0:
            start = struct.unpack_from("<I", raw, header + 24 + optional + 40 * (section - 1) + 12)[0]
            found[name.rstrip(b"\0").decode("ascii", "replace")] = start + value
        index += 1 + more
    return found


@pytest.fixture
def wine() -> bytes:
    """Return Wine's ntoskrnl.exe. The package it comes in is too large to be fetched for every test run."""
    told = os.environ.get("ENISLE_NTOSKRNL")
    path = Path(told) if told else guests.get_part("wine-ntoskrnl") if SOAK else guests.find_part("wine-ntoskrnl")
    if path is None:
        pytest.skip(
            "Wine's ntoskrnl.exe is in a package of 96 MiB: tools/kernels fetch wine-ntoskrnl, or ENISLE_SOAK=1"
        )
    return path.read_bytes()


def test_wines_kernel_is_understood(wine: bytes) -> None:
    raw = wine
    kernel = _machine(*_sections(raw))
    symbols = _symbols(raw)
    assert kernel.name == "ntoskrnl.exe"
    assert len(kernel.exports.by_name) > 1600
    known = {name: value for name, value in kernel.exports.by_name.items() if name in symbols}
    assert len(known) > 500
    assert all(value == BASE + symbols[name] for name, value in known.items())
    offsets = {fact.name: fact.value for fact in kernel.facts if fact.kind == "offset"}
    assert offsets == {  # struct _EPROCESS, _ETHREAD and _KTHREAD of wine-8.0 dlls/ntoskrnl.exe/ntoskrnl_private.h
        "EPROCESS.UniqueProcessId": 0x38,
        "EPROCESS.InheritedFromUniqueProcessId": 0x40,
        "ETHREAD.Cid.UniqueThread": 0x28,
        "ETHREAD.Cid.UniqueProcess": 0x20,
        "KTHREAD.Process": 0x18,
    }
    for name in ("load_image_notify_routine_count", "load_image_notify_routines"):
        assert kernel.facts.value(name) == BASE + symbols[name]
