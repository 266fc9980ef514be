"""The kernel image in guest memory: where it lies under KASLR, and a copy of it to read fast.

`attach` finds the page table of the kernel (page-table isolation has two), then the run of mappings that holds the
interrupt handlers. Promises: bounded time and memory, and a reason when there is no 64-bit Linux-like kernel.
"""

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from enisle.introspect.memory import (
    CR0_PE,
    CR0_PG,
    CR4_FRED,
    CR4_LA57,
    EFER_LMA,
    LSTAR,
    PhysicalMemory,
    ProcessorState,
    Unmapped,
    Unsupported,
)
from enisle.introspect.paging import ADDRESS, PTI_USER_ROOT, AddressSpace, Region
from enisle.records import Record

KERNEL_START, KERNEL_END = 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000
"""Where x86-64 Linux maps its image: one GiB with KASLR (Documentation/arch/x86/x86_64/mm.rst)."""
MOST_HOLE = 4 << 20
MOST_IMAGE = 256 << 20
MOST_REGIONS = 40_000
"""Mappings an image may consist of; a kernel has some hundreds."""
_GATE = struct.Struct("<HHBBHII")


class Gate(Record):
    """One entry of the IDT (SDM 3A 6.14.1)."""

    vector: int
    target: int
    selector: int
    stack: int
    attributes: int

    @property
    def present(self) -> bool:
        return bool(self.attributes & 0x80)


class Image:
    """A copy of the kernel image with the rights of its parts."""

    def __init__(self, regions: Sequence[Region], memory: PhysicalMemory) -> None:
        self.regions = list(regions)
        self.start = regions[0].start
        self.end = regions[-1].start + regions[-1].size
        self._starts = [region.start for region in regions]
        parts: list[bytes] = []
        at = self.start
        for region in regions:
            parts += (bytes(region.start - at), _read(memory, region))
            at = region.start + region.size
        self.content: bytes = b"".join(parts)

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def region(self, address: int) -> Region | None:
        """Return the mapping an address lies in."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._starts[index] + self.regions[index].size:
            return None
        return self.regions[index]

    def is_text(self, address: int) -> bool:
        region = self.region(address)
        return region is not None and region.executable

    def is_data(self, address: int) -> bool:
        region = self.region(address)
        return region is not None and not region.executable

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the image, fewer at its end."""
        offset = address - self.start
        return self.content[offset : offset + size] if offset >= 0 else b""

    def u64(self, address: int) -> int:
        """Return a word of the copied image. Raises Unmapped."""
        try:
            return struct.unpack_from("<Q", self.content, address - self.start)[0]
        except struct.error:
            raise Unmapped(address) from None

    def string(self, address: int, most: int = 256) -> bytes:
        """Return the bytes before the next NUL; empty when there is none near."""
        offset = address - self.start
        end = self.content.find(b"\0", offset, offset + most)
        return self.content[offset:end] if end >= 0 else b""

    def runs(self, executable: bool, writable: bool | None = None) -> list[tuple[int, int]]:
        """Return the [start, end) runs of mappings with these rights."""
        runs: list[tuple[int, int]] = []
        for region in self.regions:
            if region.executable != executable or (writable is not None and region.writable != writable):
                continue
            if runs and runs[-1][1] == region.start:
                runs[-1] = (runs[-1][0], region.start + region.size)
            else:
                runs.append((region.start, region.start + region.size))
        return runs


class Attached(Record):
    """What `attach` found: the kernel's own address space, where its image lies, the gates, who told."""

    space: AddressSpace
    regions: tuple[Region, ...]
    gates: tuple[Gate, ...]
    processor: ProcessorState
    isolated: bool
    """Whether page-table isolation is on."""


def attach(memory: PhysicalMemory, processors: Sequence[ProcessorState]) -> Attached:
    """Find the kernel. Raises Unsupported with the reason."""
    reasons: list[str] = []
    for processor in processors:
        if reason := why_not(processor):
            reasons.append(reason)
            continue
        for space, mapped, isolated in _spaces(memory, processor):
            gates = read_gates(space, processor)
            regions = _image_regions(mapped, gates, processor)
            if regions is not None:
                return Attached(space, tuple(regions), gates, processor, isolated)
        reasons.append(
            "no usable page table: CR3 leads to no kernel image that holds its interrupt handlers"
            " (it is no Linux, its memory is encrypted, or it is not up yet)"
        )
    why = reasons[0] if reasons else "it has no processor"
    raise Unsupported("this guest cannot be looked into", f"unsupported, because {why}")


def why_not(processor: ProcessorState) -> str | None:
    """Return why a processor's state cannot be that of a 64-bit kernel at work."""
    if not processor.cr0 & CR0_PE:
        return "the processor is in real mode: at reset, or in the firmware"
    if not processor.cr0 & CR0_PG:
        return "paging is off: the guest is at reset, in its firmware, or booting"
    if not processor.efer & EFER_LMA:
        return "the guest runs in 32-bit mode"
    return None


def entry_note(processor: ProcessorState) -> str | None:
    """Return why the entry points of this processor are told by neither LSTAR nor the IDT."""
    return "entry: unknown (CR4.FRED=1: LSTAR and IDT are not used)" if processor.cr4 & CR4_FRED else None


def _spaces(memory: PhysicalMemory, processor: ProcessorState) -> list[tuple[AddressSpace, list[Region], bool]]:
    """Return the roots CR3 may stand for, the one that maps more of the kernel first.

    CR3 bit 12 tells the user's root only under page-table isolation; a root may have it by chance otherwise.
    """
    levels = 5 if processor.cr4 & CR4_LA57 else 4
    found: list[tuple[int, bool, AddressSpace, list[Region]]] = []
    root = processor.cr3 & ADDRESS
    for candidate in dict.fromkeys((root & ~PTI_USER_ROOT, root)):
        space = AddressSpace(memory, candidate, levels)
        regions = list(islice(space.regions(KERNEL_START, KERNEL_END, 1100), MOST_REGIONS + 1))
        if regions and len(regions) <= MOST_REGIONS:
            found.append((sum(region.size for region in regions), candidate == root, space, regions))
    found.sort(key=lambda entry: entry[:2], reverse=True)
    isolated = len(found) == 2 and found[1][0] * 4 < found[0][0]
    return [(space, regions, isolated or space.root != root) for _, _, space, regions in found]


def read_gates(space: AddressSpace, processor: ProcessorState) -> tuple[Gate, ...]:
    """Return the gates of the IDT, fewer when it is not mapped."""
    count = min(processor.idt_limit + 1, 4096) // 16
    try:
        table = space.read(processor.idt_base, count * 16)
    except Unmapped:
        return ()
    gates: list[Gate] = []
    for vector in range(count):
        low, selector, stack, attributes, middle, high, _ = _GATE.unpack_from(table, vector * 16)
        gates.append(Gate(vector, low | middle << 16 | high << 32, selector, stack, attributes))
    return tuple(gates)


def _image_regions(mapped: Sequence[Region], gates: Sequence[Gate], processor: ProcessorState) -> list[Region] | None:
    """Return the mappings of the run that most interrupt handlers, LSTAR and RIP point into."""
    runs: list[list[Region]] = []
    for region in mapped:
        last = runs[-1][-1] if runs else None
        if last is not None and last.start + last.size > region.start:
            return None
        if last is not None and region.start - (last.start + last.size) <= MOST_HOLE:
            runs[-1].append(region)
        else:
            runs.append([region])
    witnesses = [gate.target for gate in gates if gate.present][:64]
    witnesses += [processor.msrs.get(LSTAR, 0)] + ([processor.rip] if processor.cpl == 0 else [])
    votes = Counter(
        index for target in witnesses for index, run in enumerate(runs) if _executable_in(run, target)
    ).most_common(1)
    if not votes or votes[0][1] < 2:
        return None
    run = runs[votes[0][0]]
    return run if run[-1].start + run[-1].size - run[0].start <= MOST_IMAGE else None


def _executable_in(run: Sequence[Region], address: int) -> bool:
    if not run[0].start <= address < run[-1].start + run[-1].size:
        return False
    return any(region.start <= address < region.start + region.size and region.executable for region in run)


def _read(memory: PhysicalMemory, region: Region) -> bytes:
    """Return the content of a mapping; what is no RAM reads as zeros."""
    try:
        return memory.read(region.gpa, region.size)
    except Unmapped:
        parts: list[bytes] = []
        for page in range(region.gpa, region.gpa + region.size, 4096):
            try:
                parts.append(memory.read(page, 4096))
            except Unmapped:
                parts.append(bytes(4096))
        return b"".join(parts)
