"""The kernel's exported functions and data, by name: the tables the module loader links against.

An entry of `__ksymtab` is {value, name, namespace} or {value, name}, each a 32-bit distance from its own place
(include/linux/export.h, PREL32). Tables are told by what cannot be chance: hundreds of ascending names. Only
read-only memory is believed where the kernel has any. Pure: works on the copied image.
"""

import re
import struct
from collections.abc import Iterator

from enisle.introspect.image import Image
from enisle.records import Record

FEWEST = 100
"""Entries that make a table: chance does not sort so many names."""
PROBE = 1024
PER_CPU_SPAN = 16 << 20
"""An exported per-CPU variable has a small offset as its value, which the distance reaches by wrapping around."""
MASK = (1 << 64) - 1
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.$]{0,250}\Z")
_NAME_START = re.compile(rb"[A-Za-z_]")
_I32 = struct.Struct("<i")


class ExportTable(Record):
    """One table that was found."""

    address: int
    entries: int
    stride: int


class Exports:
    """Names and addresses of what the kernel exports. `conflicts` are names told twice with two values."""

    def __init__(self) -> None:
        self.by_name: dict[str, int] = {}
        self.by_address: dict[int, str] = {}
        self.tables: list[ExportTable] = []
        self.conflicts: set[str] = set()

    def add(self, name: str, value: int) -> None:
        if self.by_name.setdefault(name, value) != value:
            self.conflicts.add(name)
            return
        self.by_address.setdefault(value, name)

    def settle(self) -> None:
        """Forget names told twice: neither value is better."""
        for name in self.conflicts:
            value = self.by_name.pop(name)
            if self.by_address.get(value) == name:
                del self.by_address[value]


def find_exports(image: Image) -> Exports:
    """Return all exports of the image; empty when it has no table."""
    exports = Exports()
    places = image.runs(executable=False, writable=False) or image.runs(executable=False)
    reader = _Reader(image)
    for start, end in places:
        at = start
        while at < end - 3 * PROBE:
            found = reader.probe(at)
            if found is None:
                at += PROBE
                continue
            at = max(reader.take(*found, start, end, exports), at + PROBE)
    exports.settle()
    return exports


class _Reader:
    """Reads table entries of an image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._content: bytes = image.content
        self._base = image.start
        self._size = len(image.content) - 1

    def probe(self, at: int) -> tuple[int, int] | None:
        """Return (address of an entry, stride) when `at` seems to lie in a table: four names, ascending."""
        content, offset = self._content, at - self._base
        for stride in (12, 8):
            for phase in range(0, stride, 4):
                first = offset + phase
                last = b""
                for entry in range(first, first + 4 * stride, stride):
                    name_at = entry + 4 + _I32.unpack_from(content, entry + 4)[0]
                    if not 0 < name_at < self._size or not _NAME_START.match(content, name_at):
                        break
                    name = self._name(name_at)
                    if name is None or name <= last or self._value(entry) is None:
                        break
                    last = name
                else:
                    return self._base + first, stride
        return None

    def take(self, at: int, stride: int, start: int, end: int, exports: Exports) -> int:
        """Collect the table around `at`; return where it ends."""
        before = [*self._walk(at - stride, -stride, start, end)]
        after = [*self._walk(at, stride, start, end)]
        entries = before[::-1] + after
        for run in _ascending(entries):
            exports.tables.append(ExportTable(run[0][0], len(run), stride))
            for _, name, value in run:
                exports.add(name.decode("ascii"), value)
        return at + stride * len(after)

    def _walk(self, at: int, step: int, start: int, end: int) -> Iterator[tuple[int, bytes, int]]:
        """Yield (address, name, value) of plausible entries, one after another."""
        while start <= at <= end - abs(step):
            offset = at - self._base
            name = self._name(offset + 4 + _I32.unpack_from(self._content, offset + 4)[0])
            value = self._value(offset)
            if name is None or value is None or (abs(step) == 12 and not self._is_namespace(offset + 8)):
                return
            yield at, name, value
            at += step

    def _name(self, offset: int) -> bytes | None:
        if not 0 < offset < self._size:
            return None
        # Names are merged by their tails: nothing need stand before one.
        end = self._content.find(b"\0", offset, offset + 252)
        name = self._content[offset:end] if end > offset + 1 else b""
        return name if _NAME.match(name) else None

    def _value(self, offset: int) -> int | None:
        """Return what an entry stands for: an address in the image, or the offset of a per-CPU variable."""
        value = self._base + offset + _I32.unpack_from(self._content, offset)[0]
        if value in self._image:
            return value
        return value & MASK if value & MASK < PER_CPU_SPAN else None

    def _is_namespace(self, offset: int) -> bool:
        distance = _I32.unpack_from(self._content, offset)[0]
        return distance == 0 or 0 <= offset + distance < self._size


def _ascending(entries: list[tuple[int, bytes, int]]) -> Iterator[list[tuple[int, bytes, int]]]:
    """Yield the runs of ascending names that are long enough to be tables."""
    run: list[tuple[int, bytes, int]] = []
    for entry in entries:
        if run and run[-1][1] >= entry[1]:
            if len(run) >= FEWEST:
                yield run
            run = []
        run.append(entry)
    if len(run) >= FEWEST:
        yield run
