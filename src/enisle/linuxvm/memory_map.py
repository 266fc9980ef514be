"""Where a guest's RAM lies, read from what QEMU's monitor prints (`info mtree -f`); nothing is assumed of the machine.

q35 splits RAM below 4 GiB and shadows parts of the first megabyte with firmware: all of it is told by the flat view.
Layout of the text: softmmu/memory.c, mtree_print_flatview. Pure.
"""

import re
from collections.abc import Iterable

from enisle.errors import GuestError
from enisle.records import Record

SPACE = "memory"
"""The address space of the processors (without what only system management mode sees)."""
_LINE = re.compile(r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ([a-z/]+)\): (.+?)(?: @([0-9a-f]+))?(?: KVM)?$")


class Range(Record):
    """A piece of guest-physical memory, and where it lies in the RAM backend."""

    gpa: int
    size: int
    offset: int


def parse_memory_map(text: str, backend: str) -> tuple[Range, ...]:
    """Return the ranges that the RAM backend of that name stands behind, ascending, neighbours joined.

    What the guest cannot write (firmware copied to RAM: "rom") counts too. Raises GuestError when there is none.
    """
    pieces: list[Range] = []
    for line in _view_of(text):
        match = _LINE.match(line)
        if match and match[3] in ("ram", "rom") and match[4] == backend:
            first, last, offset = int(match[1], 16), int(match[2], 16), int(match[5] or "0", 16)
            if last < first:
                raise GuestError("QEMU's memory map makes no sense", line.strip())
            pieces.append(Range(first, last + 1 - first, offset))
    if not pieces:
        raise GuestError("QEMU tells of no RAM", f"no range of {backend!r} is in its memory map", "enisle doctor")
    return join(pieces)


def join(pieces: Iterable[Range]) -> tuple[Range, ...]:
    """Return the ranges ascending, those joined that continue each other on both sides."""
    joined: list[Range] = []
    for piece in sorted(pieces):
        last = joined[-1] if joined else None
        if last and last.gpa + last.size == piece.gpa and last.offset + last.size == piece.offset:
            joined[-1] = Range(last.gpa, last.size + piece.size, last.offset)
        else:
            joined.append(piece)
    return tuple(joined)


def _view_of(text: str) -> list[str]:
    """Return the lines of the flat view that the processors' address space uses."""
    for view in re.split(r"^FlatView #\d+\s*$", text, flags=re.MULTILINE):
        if re.search(rf'^ AS "{SPACE}",', view, re.MULTILINE):
            return view.splitlines()
    return []
