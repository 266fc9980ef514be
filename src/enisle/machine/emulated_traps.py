"""Instructions that the emulated processor would get wrong, and where they stand in each address space.

Unicorn 2.1 executes VEX-encoded instructions of 128 bits as the SSE instructions they resemble: with another source,
and the upper half left alone. So where software executes AVX it must not meet any. Whoever makes a page executable asks
here first: instructions that code leaves no doubt about are replaced by UD2 in the copy that executes. Before the rest
it stops (`Engine.set_exits`): #UD. An address that never starts an instruction is never met; but each costs about a
microsecond with every run, so that those inside of other instructions are left out.
"""

import re
from collections import OrderedDict
from collections.abc import Callable

from enisle.abi.types import PAGE, PAGE_SHIFT, Gpa
from enisle.machine.software.decode import LONGEST, decode_at

VEX_PREFIX = re.compile(rb"\xc5|\xc4(?=[\x01-\x03\x21-\x23\x41-\x43\x61-\x63\x81-\x83\xa1-\xa3\xc1-\xc3\xe1-\xe3]|\Z)")
"""The first byte of VEX, and the maps there are (SDM 2A 2.3.5)."""
GENERAL = frozenset(("bmi1", "bmi2"))
"""VEX-encoded features that Unicorn has."""
UD2 = b"\x0f\x0b"
KEPT = 4096
FAR, NEAR, WITNESSES = 24, 8, 6
"""From where code is decoded to see whether an address is inside an instruction, and how often it must come out so."""
FUNCTION_ALIGNMENT = 16


def suspects(content: bytes) -> tuple[int, ...]:
    """Return the offsets in a page where an AVX instruction may start."""
    found: list[int] = []
    lengths: dict[int, int] = {}
    for match in VEX_PREFIX.finditer(content):
        at = match.start()
        instruction = decode_at(content, at, 0)
        if instruction is None:
            if at + LONGEST > len(content):  # cut short
                found.append(at)
        elif not GENERAL.intersection(instruction.features) and not _is_inside(content, at, lengths):
            found.append(at)
    return tuple(found)


def replaced(content: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return a page with UD2 over each AVX instruction that the code around leaves no doubt about, and where."""
    from enisle.machine.enforcement.stream import Stream

    stream, result = Stream(content), bytearray(content)
    found: list[int] = []
    for at in suspects(content):
        if stream.at(at) and stream.locate(at, found[-1] if found else None) == at:
            result[at : at + len(UD2)] = UD2
            found.append(at)
    return bytes(result), tuple(found)


def _is_inside(content: bytes, at: int, lengths: dict[int, int]) -> bool:
    """Return whether all code before says that another instruction covers `at`. Functions start unannounced."""
    if at % FUNCTION_ALIGNMENT == 0:
        return False
    witnesses = 0
    for place in range(max(0, at - FAR), max(0, at - NEAR)):
        length = 0
        while place < at:
            length = lengths.get(place, -1)
            if length < 0:
                instruction = decode_at(content, place, 0)
                length = lengths[place] = instruction.length if instruction else 0
            if not length:
                break
            place += length
        if place == at:
            return False
        witnesses += bool(length)
    return witnesses >= WITNESSES


class CodeTraps:
    """The addresses to stop at, by the root of the page tables. Callers hold the address space's lock."""

    def __init__(self, shoot_down: Callable[[], None]) -> None:
        self._shoot_down = shoot_down
        self._places: dict[Gpa, dict[int, tuple[int, ...]]] = {}
        self._known: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._replaced: OrderedDict[bytes, tuple[bytes, tuple[int, ...]]] = OrderedDict()
        self._versions: dict[Gpa, int] = {}
        self._version = 0

    def begin(self, root: Gpa) -> None:
        """Forget what an earlier user of these page tables had."""
        self._places[root] = {}
        self._changed(root)

    def copy(self, root: Gpa, child: Gpa) -> None:
        """A fork has the same code at the same places."""
        self._places[child] = dict(self._places.get(root, {}))
        self._changed(child)

    def note(self, root: Gpa, number: int, content: bytes) -> None:
        """Page `number` is about to be executable, with this content. From then on every processor stops there."""
        base = number << PAGE_SHIFT
        found = tuple(base + offset for offset in self.look(content))
        places = self._places.setdefault(root, {})
        if places.get(number, ()) == found:
            return
        places[number] = found
        self._changed(root)
        self._shoot_down()

    def _changed(self, root: Gpa) -> None:
        self._version += 1
        self._versions[root] = self._version

    def version(self, root: Gpa) -> tuple[Gpa, int]:
        """Return what differs whenever `addresses` may."""
        return root, self._versions.get(root, self._version)

    def look(self, content: bytes) -> tuple[int, ...]:
        """Return the offsets in a page to stop at."""
        assert len(content) == PAGE
        found = self._known.get(content)
        if found is None:
            found = self._known[content] = suspects(content)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found

    def replace(self, content: bytes) -> tuple[bytes, tuple[int, ...]]:
        """Return what `replaced` does; pages come by again."""
        found = self._replaced.get(content)
        if found is None:
            found = self._replaced[content] = replaced(content)
            if len(self._replaced) > KEPT:
                self._replaced.popitem(last=False)
        return found

    def addresses(self, root: Gpa) -> frozenset[int]:
        """Return where to stop; for page tables nobody spoke of (a node's replica), where any program must stop."""
        spaces = [self._places[root]] if root in self._places else list(self._places.values())
        return frozenset(address for places in spaces for page in places.values() for address in page)
