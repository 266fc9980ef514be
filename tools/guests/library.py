"""Kernels that come inside a shared library: libkrunfw's, which has no modules, no exports and no serial console.

The library holds the kernel as it lies in memory (its symbol KERNEL_BUNDLE). Nothing of it is executed: the image is
cut out and given the ELF head that a loader wants. Pure.
"""

import struct

from enisle.errors import InvalidRequest

SYMBOL = b"KERNEL_BUNDLE"
NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0"
"""XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h): the entry point of a PVH boot follows."""
DYNSYM = 11
BSS = 32 << 20
"""Room behind the image for what the kernel clears itself."""
PAGE = 4096


def kernel_of(library: bytes) -> bytes:
    """Return the library's kernel as an ELF file that boots by PVH. Raises InvalidRequest."""
    try:
        image = _bundle(library)
        entry = struct.unpack_from("<Q", image, image.index(NOTE) + len(NOTE))[0]
    except (struct.error, ValueError) as error:
        raise InvalidRequest("this library holds no kernel", str(error), "libkrunfw 5 does") from error
    # The image begins with the entry: CONFIG_PHYSICAL_START, which is a multiple of 2 MiB.
    return _elf(image, entry & -(2 << 20), entry)


def _bundle(library: bytes) -> bytes:
    """Return what the symbol names (elf(5): sections, symbols, segments)."""
    (table,) = struct.unpack_from("<Q", library, 40)
    size, count = struct.unpack_from("<HH", library, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, table + size * index) for index in range(count)]
    for section in sections:
        if section[1] != DYNSYM:
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, _, _, _, value, length = struct.unpack_from("<IBBHQQ", library, at)
            if library[strings + name : library.index(b"\0", strings + name)] == SYMBOL:
                start = _offset(library, value)
                return library[start : start + length - length % PAGE]
    raise ValueError(f"there is no symbol {SYMBOL.decode()}")


def _offset(library: bytes, address: int) -> int:
    """Return where a virtual address lies in the file."""
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    for index in range(count):
        kind, _, offset, start, _, length = struct.unpack_from("<IIQQQQ", library, table + size * index)
        if kind == 1 and start <= address < start + length:
            return offset + address - start
    raise ValueError(f"{address:#x} lies in no segment")


def _elf(image: bytes, start: int, entry: int) -> bytes:
    """Return an executable of one segment with the note of its entry."""
    note = NOTE + struct.pack("<Q", entry)
    at = 64 + 2 * 56
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 7, PAGE, start, start, len(image), len(image) + BSS, PAGE)
    head += struct.pack("<IIQQQQQQ", 4, 4, at, at, at, len(note), len(note), 4)
    return (head + note).ljust(PAGE, b"\0") + image
