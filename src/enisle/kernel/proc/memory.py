"""/proc/PID/{maps,smaps,smaps_rollup,statm}: the mappings of a process and how much of them is there.

Formats as fs/proc/task_mmu.c prints them. A page counts as resident when the guest has a translation for it; memory is
filled eagerly, so that is more than what was touched.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from enisle.abi.linux_mman import (
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from enisle.abi.types import PAGE, Gva
from enisle.kernel.paths import name_of
from enisle.kernel.vma import Vma
from enisle.machine import VDSO, VVAR
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.mm import Mm
    from enisle.kernel.thread import Thread

NAME_COLUMN = 73
KIB = 1024
FIELDS = (
    "Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean",
    "Private_Dirty", "Referenced", "Anonymous", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped",
    "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked",
)  # fmt: skip


COMMON = (
    Vma(VVAR, VVAR + PAGE, PROT_READ, MAP_PRIVATE, b"[vvar]"),
    Vma(VDSO, VDSO + PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, b"[vdso]"),
)
"""Pages that are in every address space."""


class Sizes(Record):
    """Sizes of an address space in pages."""

    total: int
    resident_anonymous: int
    resident_file: int
    resident_shared: int
    data: int
    stack: int
    executable: int
    """Executable code of the program itself."""
    library: int
    """Executable code of everything else."""
    locked: int

    @property
    def resident(self) -> int:
        return self.resident_anonymous + self.resident_file + self.resident_shared


NOTHING = Sizes(0, 0, 0, 0, 0, 0, 0, 0, 0)


def vma_name(thread: "Thread", mm: "Mm", vma: Vma) -> bytes:
    """Return what the last column says: a path, [heap], [stack], [vdso], or nothing."""
    if vma.backing:
        return name_of(thread, vma.backing.fd).replace(b"\n", b"\\012")
    if vma.name:
        return vma.name
    if mm.start_brk < mm.brk and vma.start < mm.brk and vma.end > mm.start_brk:
        return b"[heap]"
    return b"[stack]" if vma.start < mm.start_stack <= vma.end else b""


def maps_line(vma: Vma, name: bytes) -> bytes:
    """Return one line of /proc/PID/maps."""
    device, inode, offset = 0, 0, 0
    if vma.backing:
        device, inode, offset = vma.backing.device, vma.backing.inode, vma.offset
    place = f"{offset:08x} {os.major(device):02x}:{os.minor(device):02x} {inode} "
    head = f"{vma.start:08x}-{vma.end:08x} {vma.rights} {place}"
    return (head.ljust(NAME_COLUMN).encode() + name if name else head.encode()) + b"\n"


def maps(thread: "Thread", mm: "Mm") -> bytes:
    with mm.lock:
        lines = [(vma.start, maps_line(vma, vma_name(thread, mm, vma))) for vma in mm.vmas]
    lines += [(vma.start, maps_line(vma, vma.name)) for vma in COMMON]
    return b"".join(line for _, line in sorted(lines))


def resident(mm: "Mm", vma: Vma) -> int:
    """Return how many pages of a mapping have a translation. Requires: mm.lock."""
    return sum(1 for _ in mm.space.entries(Gva(vma.start), vma.pages))


def sizes(mm: "Mm") -> Sizes:
    """Measure an address space."""
    with mm.lock:
        return _sizes(mm)


def _sizes(mm: "Mm") -> Sizes:
    total = anonymous = file = shared = data = stack = executable = library = locked = 0
    for vma in mm.vmas:
        total += vma.pages
        here = resident(mm, vma)
        if vma.backing and not (vma.prot & PROT_WRITE and not vma.shared):
            file += here
        elif vma.shared:
            shared += here
        else:
            anonymous += here
        grows = bool(vma.flags & MAP_GROWSDOWN)
        if vma.prot & PROT_WRITE and not vma.shared and not grows:
            data += vma.pages
        stack += vma.pages if grows else 0
        if vma.prot & PROT_EXEC and not vma.prot & PROT_WRITE:
            if vma.start <= mm.start_code < vma.end:
                executable += vma.pages
            else:
                library += vma.pages
        locked += vma.pages if vma.flags & MAP_LOCKED else 0
    return Sizes(total, anonymous, file, shared, data, stack, executable, library, locked)


def statm(mm: "Mm") -> bytes:
    size = sizes(mm)
    text = size.executable
    return b"%d %d %d %d 0 %d 0\n" % (
        size.total,
        size.resident,
        size.resident_file + size.resident_shared,
        text,
        size.data + size.stack,
    )


# ---- smaps ---------------------------------------------------------------------------------------------------------


def smaps(thread: "Thread", mm: "Mm") -> bytes:
    """Return minimal smaps: what is there is counted as private to the process."""
    with mm.lock:
        parts: list[bytes] = []
        for vma in mm.vmas:
            parts.append(maps_line(vma, vma_name(thread, mm, vma)))
            parts.append(fields(counts_of(mm, vma)))
            parts.append(b"THPeligible:           0\nVmFlags: %s\n" % b"".join(flag + b" " for flag in vm_flags(vma)))
        return b"".join(parts)


def smaps_rollup(mm: "Mm") -> bytes:
    with mm.lock:
        vmas = list(mm.vmas)
        low, high = (vmas[0].start, vmas[-1].end) if vmas else (0, 0)
        head = f"{low:08x}-{high:08x} ---p 00000000 00:00 0 ".ljust(NAME_COLUMN).encode() + b"[rollup]\n"
        total: dict[str, int] = {}
        for vma in vmas:
            for name, value in counts_of(mm, vma).items():
                total[name] = total.get(name, 0) + value
    for name in ("Size", "KernelPageSize", "MMUPageSize"):
        total.pop(name, None)
    return head + fields(total)


def counts_of(mm: "Mm", vma: Vma) -> dict[str, int]:
    """Return the numbers of one mapping in KiB."""
    here = resident(mm, vma) * PAGE // KIB
    dirty = here if vma.prot & PROT_WRITE else 0
    counts: dict[str, int] = dict.fromkeys(FIELDS, 0)
    counts |= {"Size": (vma.end - vma.start) // KIB, "KernelPageSize": 4, "MMUPageSize": 4}
    counts |= {"Rss": here, "Pss": here, "Referenced": here}
    counts |= {"Private_Dirty": dirty, "Private_Clean": here - dirty, "Anonymous": 0 if vma.backing else here}
    return counts


def fields(counts: dict[str, int]) -> bytes:
    return b"".join(b"%-16s%8d kB\n" % (name.encode() + b":", value) for name, value in counts.items())


def vm_flags(vma: Vma) -> Iterator[bytes]:
    """Yield the two-letter flags of a mapping (show_smap_vma_flags)."""
    if vma.prot & PROT_READ:
        yield b"rd"
    if vma.prot & PROT_WRITE:
        yield b"wr"
    if vma.prot & PROT_EXEC:
        yield b"ex"
    if vma.shared:
        yield b"sh"
    yield from (b"mr", b"mw", b"me")
    if vma.flags & MAP_GROWSDOWN:
        yield b"gd"
    if vma.flags & MAP_LOCKED:
        yield b"lo"
    if vma.flags & MAP_NORESERVE:
        yield b"nr"
    if vma.dont_fork:
        yield b"dc"
    if vma.wipe_on_fork:
        yield b"wf"
