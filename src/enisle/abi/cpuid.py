"""CPUID: the instruction executed on this host, and its answers as a table (SDM 2A "CPUID", APM 3 appendix E).

The code is mapped executable as `tsc` does it. A table is what one processor answers to every leaf there is, and
answers any other leaf as that processor would. Any thread.
"""

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from enisle.abi.tsc import map_code
from enisle.abi.x86_features import BITS, EAX, EBX, ECX, EDX, FEATURES, U32, XCR0_BITS

CPUID = bytes.fromhex(
    "53"  # push rbx
    "49 89 d0"  # mov r8, rdx
    "89 f8"  # mov eax, edi
    "89 f1"  # mov ecx, esi
    "0f a2"  # cpuid
    "41 89 00"  # mov dword ptr [r8], eax
    "41 89 58 04"  # mov dword ptr [r8 + 4], ebx
    "41 89 48 08"  # mov dword ptr [r8 + 8], ecx
    "41 89 50 0c"  # mov dword ptr [r8 + 0xc], edx
    "5b"  # pop rbx
    "c3"  # ret
)
XGETBV = bytes.fromhex(
    "89 f9"  # mov ecx, edi
    "0f 01 d0"  # xgetbv
    "48 c1 e2 20"  # shl rdx, 0x20
    "48 09 d0"  # or rax, rdx
    "c3"  # ret
)
ALIGNMENT = 64
assert len(CPUID) <= ALIGNMENT

Leaf = tuple[int, int]
"""Leaf and subleaf: EAX and ECX."""
Answer = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""
ZERO: Answer = (0, 0, 0, 0)
Execute = Callable[[int, int], Answer]
BASIC, HYPERVISOR, EXTENDED = 0, 0x4000_0000, 0x8000_0000
LARGEST = {BASIC: 0x3F, HYPERVISOR: 0x10, EXTENDED: 0x3F}
"""How many leaves of each range are looked at: more than any processor has."""
INDEXED = frozenset({
    *(4, 7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1B, 0x1D, 0x1E, 0x1F, 0x20, 0x23, 0x24),
    *(0x8000_001D, 0x8000_0020, 0x8000_0026),
})  # fmt: skip
"""Leaves whose answer depends on ECX."""
COUNTED = frozenset((7, 0x14, 0x17, 0x18, 0x1D, 0x20, 0x24))
"""EAX of subleaf 0 is the last subleaf."""
TOPOLOGY = frozenset((0xB, 0x1F, 0x8000_0026))
LAST_SUBLEAF = 31


@cache
def _code() -> int:
    """Return where CPUID and, ALIGNMENT behind it, XGETBV can be called. Raises OSError."""
    return map_code("cpuid", CPUID.ljust(ALIGNMENT, b"\xcc") + XGETBV)


def execute(leaf: int, subleaf: int = 0) -> Answer:
    """Return what CPUID answers on the processor this thread is on. Raises OSError as `_code`."""
    out = (ctypes.c_uint32 * 4)()
    call = ctypes.PYFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
    call(_code())(leaf, subleaf, ctypes.addressof(out))
    return out[0], out[1], out[2], out[3]


def xgetbv(index: int = 0) -> int:
    """Return an extended control register. Requires: CPUID says OSXSAVE, and XGETBV1 for index 1."""
    return ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)(_code() + ALIGNMENT)(index)


class CpuidTable:
    """What one processor answers. `entries` has every leaf and subleaf it has; `xcr0` is what its system enabled."""

    __slots__ = ("_features", "entries", "xcr0")

    def __init__(self, entries: dict[Leaf, Answer], xcr0: int) -> None:
        self.entries, self.xcr0 = entries, xcr0
        self._features: frozenset[str] | None = None

    def get(self, leaf: int, subleaf: int = 0) -> Answer:
        """Return what the processor answers to any leaf and subleaf."""
        leaf, subleaf = self.resolve(leaf & 0xFFFF_FFFF, subleaf & 0xFFFF_FFFF)
        found = self.entries.get((leaf, subleaf))
        if found is not None:
            return found
        if leaf in TOPOLOGY:  # SDM 2A: ECX[7:0] is the input, EDX the x2APIC id, whatever the level
            return 0, 0, subleaf & 0xFF, self.entries.get((leaf, 0), ZERO)[EDX]
        return ZERO

    def resolve(self, leaf: int, subleaf: int) -> Leaf:
        """Return which leaf and subleaf answers a query.

        Intel answers what is beyond the last leaf with the last basic one (SDM 2A CPUID), AMD with zeros (APM 3).
        """
        base = leaf & 0xC000_0000
        if self.is_intel and base != HYPERVISOR and leaf > self.last(base):
            leaf = self.last(BASIC)
        return leaf, subleaf if leaf in INDEXED else 0

    def last(self, base: int) -> int:
        """Return the last leaf of a range."""
        return self.entries.get((base, 0), ZERO)[EAX]

    @property
    def vendor(self) -> str:
        """The vendor's name: "GenuineIntel", "AuthenticAMD" …"""
        _, b, c, d = self.entries.get((BASIC, 0), ZERO)
        return b"".join(word.to_bytes(4, "little") for word in (b, d, c)).decode("latin-1")

    @property
    def is_intel(self) -> bool:
        return self.vendor == "GenuineIntel"

    @property
    def brand(self) -> str:
        """The name on the box (leaves 0x80000002 to 4)."""
        words = [word for leaf in (0x8000_0002, 0x8000_0003, 0x8000_0004) for word in self.entries.get((leaf, 0), ZERO)]
        return b"".join(word.to_bytes(4, "little") for word in words).split(b"\0")[0].decode("latin-1").strip()

    @property
    def model(self) -> tuple[int, int, int]:
        """Family, model and stepping, with the extended fields as both vendors add them (SDM 2A figure 3-6)."""
        eax = self.get(1)[EAX]
        family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
        if family in (6, 15):
            model |= (eax >> 16 & 0xF) << 4
        return family + (eax >> 20 & 0xFF if family == 15 else 0), model, eax & 0xF

    @property
    def features(self) -> frozenset[str]:
        """The names of the features whose bits are set; components of XCR0 only where the system enabled them."""
        if self._features is None:
            self._features = frozenset(self._find_features())
        return self._features

    def _find_features(self) -> Iterator[str]:
        for feature in FEATURES.values():
            leaf, subleaf, register = feature.place
            enabled = self.xcr0 if (leaf, subleaf) == (0xD, 0) else U32
            if self.entries.get((leaf, subleaf), ZERO)[register] & enabled & 1 << feature.bit:
                yield feature.name

    def layout(self) -> dict[int, tuple[int, int]]:
        """Return offset and size of each component of the standard-format XSAVE area beyond the first two."""
        found = {bit: self.entries.get((0xD, bit), ZERO) for bit in XCR0_BITS if bit >= 2}
        return {bit: (answer[EBX], answer[EAX]) for bit, answer in found.items() if answer[EAX]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuidTable) and (self.entries, self.xcr0) == (other.entries, other.xcr0)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # holds a dictionary


def queries(answers: Execute) -> Iterator[Leaf]:
    """Yield every leaf and subleaf that a processor has, which `answers` is asked about on the way."""
    hypervised = answers(1, 0)[ECX] >> FEATURES["hypervisor"].bit & 1
    for base in (BASIC, HYPERVISOR, EXTENDED) if hypervised else (BASIC, EXTENDED):
        last = answers(base, 0)[EAX]
        if last & 0xC000_0000 != base and last != 0:  # no such range
            continue
        for leaf in range(base, min(last or base, base + LARGEST[base]) + 1):
            yield from ((leaf, subleaf) for subleaf in _subleaves(leaf, answers))


def _subleaves(leaf: int, answers: Execute) -> Iterable[int]:
    if leaf not in INDEXED:
        return (0,)
    first = answers(leaf, 0)
    if leaf in COUNTED:
        return range(min(first[EAX], LAST_SUBLEAF) + 1)
    if leaf == 0xD:
        supervisor = answers(leaf, 1)
        components = first[EAX] | first[EDX] << 32 | supervisor[ECX] | supervisor[EDX] << 32
        return (0, 1, *(bit for bit in range(2, 63) if components >> bit & 1))
    if leaf in (4, 0x8000_001D):
        return _until(leaf, answers, lambda answer: answer[EAX] & 0x1F == 0)
    if leaf in TOPOLOGY:
        return _until(leaf, answers, lambda answer: answer[ECX] >> 8 & 0xFF == 0)
    return range(4)


def _until(leaf: int, answers: Execute, last: Callable[[Answer], bool]) -> Iterator[int]:
    for subleaf in range(LAST_SUBLEAF):
        yield subleaf
        if last(answers(leaf, subleaf)):
            return


def capture(answers: Execute, read_xcr0: Callable[[], int]) -> CpuidTable:
    """Ask a processor everything. `read_xcr0` is called when CPUID says OSXSAVE."""
    entries = {place: answers(*place) for place in queries(answers)}
    osxsave = entries.get((1, 0), ZERO)[ECX] >> FEATURES["osxsave"].bit & 1
    return CpuidTable(entries, read_xcr0() if osxsave else 0)


def to_record(table: CpuidTable) -> dict[str, Any]:
    """Return the table as lists and numbers."""
    entries = [[*place, *answer] for place, answer in sorted(table.entries.items())]
    return {"xcr0": table.xcr0, "entries": entries}


def from_record(record: Mapping[str, Any]) -> CpuidTable:
    """Return the table that `to_record` wrote. Requires: a well-formed record."""
    entries = {(leaf, subleaf): (a, b, c, d) for leaf, subleaf, a, b, c, d in record["entries"]}
    return CpuidTable(entries, record["xcr0"])


def host_table() -> CpuidTable:
    """Return what the processor of this host answers, on one of its cores. Raises OSError as `_code`."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # one core: some leaves tell which it is
    try:
        return capture(execute, xgetbv)
    finally:
        os.sched_setaffinity(0, allowed)


assert all(register in range(4) for _, _, register in BITS)
