"""The vDSO: a small shared object of ours in every guest process, so that reading the time needs no system call.

Its code (`vdso_code`) reads the page of clock parameters (`vvar`) that lies right before the image. glibc, musl and
Go find the functions through DT_HASH and the version LINUX_2.6 (vdso(7)); the sections are for debuggers.
"""

import struct
from collections.abc import Mapping
from functools import cache

from enisle.abi import elf
from enisle.abi.types import PAGE
from enisle.kernel import vdso_code, vvar
from enisle.records import Record

VVAR_SIZE = vvar.SIZE
VERSION, SONAME = "LINUX_2.6", "linux-vdso.so.1"

PT_DYNAMIC, PT_GNU_EH_FRAME = 2, 0x6474_E550
DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 0, 4, 5, 6, 10, 11, 14
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFF_FFF0, 0x6FFF_FFFC, 0x6FFF_FFFD
SHT_PROGBITS, SHT_STRTAB, SHT_HASH, SHT_DYNAMIC, SHT_DYNSYM = 1, 3, 5, 6, 11
SHT_GNU_VERDEF, SHT_GNU_VERSYM = 0x6FFF_FFFD, 0x6FFF_FFFF
SHF_ALLOC, SHF_EXECINSTR = 2, 4
STT_FUNC, STB_GLOBAL, STB_WEAK = 2, 1, 2
VER_FLG_BASE = 1
VERSION_INDEX = 2

SYMBOL = struct.Struct("<IBBHQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
VERDEF_AND_AUX = struct.Struct("<4H3I2I")
DYNAMIC_ENTRY = struct.Struct("<qQ")


class Section(Record):
    """What the section header says besides the place; `link` and `info` as its type demands."""

    kind: int
    alignment: int
    entry_size: int = 0
    link: str = ""
    info: int = 0
    flags: int = SHF_ALLOC


SECTIONS = {
    ".hash": Section(SHT_HASH, 8, 4, ".dynsym"),
    ".dynsym": Section(SHT_DYNSYM, 8, SYMBOL.size, ".dynstr", 1),
    ".dynstr": Section(SHT_STRTAB, 1),
    ".gnu.version": Section(SHT_GNU_VERSYM, 2, 2, ".dynsym"),
    ".gnu.version_d": Section(SHT_GNU_VERDEF, 8, 0, ".dynstr", 2),
    ".dynamic": Section(SHT_DYNAMIC, 8, DYNAMIC_ENTRY.size, ".dynstr"),
    ".eh_frame_hdr": Section(SHT_PROGBITS, 4),
    ".eh_frame": Section(SHT_PROGBITS, 8),
    ".text": Section(SHT_PROGBITS, vdso_code.ALIGNMENT, flags=SHF_ALLOC | SHF_EXECINSTR),
    ".shstrtab": Section(SHT_STRTAB, 1, flags=0),
}
SEGMENTS = 4
HEADERS = elf.ELF_HEADER.size + SEGMENTS * elf.PROGRAM_HEADER.size


Functions = Mapping[str, tuple[vdso_code.Row, ...]]


class Strings:
    """A string table."""

    def __init__(self) -> None:
        self.content = b"\0"

    def offset(self, name: str) -> int:
        """Return where `name` begins, adding it at first use."""
        word = b"\0" + name.encode() + b"\0"
        if word not in self.content:
            self.content += word[1:]
        return self.content.index(word) + 1


def elf_hash(name: str) -> int:
    """Return the hash of a symbol name (System V gABI, "Hash Table")."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF000_0000
        value = (value ^ high >> 24) & ~high
    return value


def hash_table(names: list[str]) -> bytes:
    """Return DT_HASH with one bucket: a chain of ten needs no second."""
    chain = [0, *range(2, len(names) + 1), 0]
    return struct.pack(f"<3I{len(chain)}I", 1, len(chain), 1, *chain)


def unwind_data(frame: int, header: int, text: int, size: int) -> tuple[bytes, bytes]:
    """Return .eh_frame and .eh_frame_hdr for these addresses: in our code the stack pointer never moves.

    Debuggers, pthread_cancel(3) and backtraces from signal handlers need it (LSB Core, "Exception Frames").
    """
    common = b"\1zR\0\1\x78\x10\1\x1b\x0c\7\x08\x90\1"  # the frame begins at RSP + 8, the return address 8 below
    entries = struct.pack("<II", 20, 0) + common.ljust(16, b"\0")
    at = frame + len(entries)
    entries += struct.pack("<IIiI4x", 16, len(entries) + 4, text - (at + 8), size) + bytes(4)
    table = struct.pack("<4BiIii", 1, 0x1B, 3, 0x3B, frame - (header + 4), 1, text - header, at - header)
    return entries, table


@cache
def image(counter: bool = True) -> bytes:
    """Return the shared object, whole pages; it must be mapped right after the vvar page.

    Without the time-stamp counter none of its code holds RDTSC.
    """
    functions = vdso_code.FUNCTIONS if counter else vdso_code.ASKING
    strings, section_names = Strings(), Strings()
    for name in SECTIONS:
        section_names.offset(name)
    places = dict.fromkeys(SECTIONS, 0)
    parts = _parts(functions, strings, places)
    places = _places(parts | {".shstrtab": section_names.content})
    parts = _parts(functions, strings, places) | {".shstrtab": section_names.content}
    return _write(parts, places, section_names)


def _parts(functions: Functions, strings: Strings, places: dict[str, int]) -> dict[str, bytes]:
    """Return the contents of the sections; their sizes do not depend on `places`."""
    names = [prefix + name for name in functions for prefix in ("__vdso_", "")]
    text, labels = vdso_code.assemble(functions, {"vvar": -VVAR_SIZE - places[".text"]})
    frame, header = unwind_data(places[".eh_frame"], places[".eh_frame_hdr"], places[".text"], len(text))
    return {
        ".hash": hash_table(names),
        ".dynsym": _symbols(names, strings, labels, places[".text"]),
        ".gnu.version": struct.pack(f"<{len(names) + 1}H", 0, *[VERSION_INDEX] * len(names)),
        ".gnu.version_d": _version_definitions(strings),
        ".dynamic": _dynamic(strings, places),
        ".dynstr": strings.content,
        ".eh_frame_hdr": header,
        ".eh_frame": frame,
        ".text": text,
        ".shstrtab": b"",
    }


def _places(parts: dict[str, bytes]) -> dict[str, int]:
    at, places = HEADERS, dict[str, int]()
    for name, section in SECTIONS.items():
        places[name] = at = at + -at % section.alignment
        at += len(parts[name])
    return places


def _version_definitions(strings: Strings) -> bytes:
    soname, version = strings.offset(SONAME), strings.offset(VERSION)
    base = VERDEF_AND_AUX.pack(1, VER_FLG_BASE, 1, 1, elf_hash(SONAME), 20, VERDEF_AND_AUX.size, soname, 0)
    return base + VERDEF_AND_AUX.pack(1, 0, VERSION_INDEX, 1, elf_hash(VERSION), 20, 0, version, 0)


def _symbols(names: list[str], strings: Strings, labels: dict[str, int], text: int) -> bytes:
    table = bytes(SYMBOL.size)
    section = 1 + list(SECTIONS).index(".text")
    for name in names:
        function = name.removeprefix("__vdso_")
        binding = STB_WEAK if name == function else STB_GLOBAL
        size = labels[function + ".end"] - labels[function]
        table += SYMBOL.pack(strings.offset(name), binding << 4 | STT_FUNC, 0, section, text + labels[function], size)
    return table


def _dynamic(strings: Strings, places: dict[str, int]) -> bytes:
    entries = (
        (DT_SONAME, strings.offset(SONAME)),
        (DT_HASH, places[".hash"]),
        (DT_STRTAB, places[".dynstr"]),
        (DT_SYMTAB, places[".dynsym"]),
        (DT_STRSZ, len(strings.content)),
        (DT_SYMENT, SYMBOL.size),
        (DT_VERSYM, places[".gnu.version"]),
        (DT_VERDEF, places[".gnu.version_d"]),
        (DT_VERDEFNUM, 2),
        (DT_NULL, 0),
    )
    return b"".join(DYNAMIC_ENTRY.pack(*entry) for entry in entries)


def _write(parts: dict[str, bytes], places: dict[str, int], section_names: Strings) -> bytes:
    end = max(places[name] + len(part) for name, part in parts.items())
    sections = end + -end % 8
    size = sections + SECTION_HEADER.size * (len(parts) + 1)
    content = bytearray(size + -size % PAGE)
    ident = elf.MAGIC + bytes((elf.ELFCLASS64, elf.ELFDATA2LSB, 1))
    shape = (64, 56, SEGMENTS, 64, len(parts) + 1, len(parts))
    elf.ELF_HEADER.pack_into(content, 0, ident, elf.ET_DYN, elf.EM_X86_64, 1, 0, 64, sections, 0, *shape)

    def segment(kind: int, flags: int, name: str, alignment: int) -> bytes:
        at = places[name] if name else 0
        length = len(parts[name]) if name else end
        return elf.PROGRAM_HEADER.pack(kind, flags, at, at, at, length, length, alignment)

    content[64:HEADERS] = (
        segment(elf.PT_LOAD, elf.PF_R | elf.PF_X, "", PAGE)
        + segment(PT_DYNAMIC, elf.PF_R, ".dynamic", 8)
        + segment(PT_GNU_EH_FRAME, elf.PF_R, ".eh_frame_hdr", 4)
        + elf.PROGRAM_HEADER.pack(elf.PT_GNU_STACK, elf.PF_R | elf.PF_W, 0, 0, 0, 0, 0, 16)
    )
    indices = {name: index for index, name in enumerate(SECTIONS, 1)} | {"": 0}
    for name, kind in SECTIONS.items():
        at, part = places[name], parts[name]
        content[at : at + len(part)] = part
        where = (section_names.offset(name), kind.kind, kind.flags, at if kind.flags else 0, at, len(part))
        rest = (indices[kind.link], kind.info, kind.alignment, kind.entry_size)
        SECTION_HEADER.pack_into(content, sections + SECTION_HEADER.size * indices[name], *where, *rest)
    return bytes(content)
