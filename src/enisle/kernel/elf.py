"""ELF images: parsed with suspicion, mapped as host mappings of the file. Every byte of a header is the guest's word.

Errors are those of execve(2): ENOEXEC for what is no program of ours, EINVAL/ENOMEM for impossible layouts.
"""

import os
from errno import EINVAL, ENOEXEC, ENOMEM

from enisle.abi import elf
from enisle.abi.linux import PATH_MAX
from enisle.abi.linux_mman import MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from enisle.abi.types import PAGE, PAGE_MASK, page_down, page_up
from enisle.errors import LinuxError
from enisle.kernel.mm import Mm
from enisle.kernel.vma import Backing
from enisle.machine import USER_END
from enisle.records import Record

U64 = (1 << 64) - 1
MAX_PROGRAM_HEADERS = 65536 // elf.PROGRAM_HEADER.size


class Segment(Record):
    """One program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    align: int

    @property
    def prot(self) -> int:
        flags = self.flags
        return (
            (PROT_READ if flags & elf.PF_R else 0)
            | (PROT_WRITE if flags & elf.PF_W else 0)
            | (PROT_EXEC if flags & elf.PF_X else 0)
        )


class Image(Record):
    """A parsed ELF file."""

    type: int
    entry: int
    header_offset: int
    segments: list[Segment]
    interpreter: bytes | None

    @property
    def loads(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.type == elf.PT_LOAD]

    @property
    def span(self) -> tuple[int, int]:
        """Lowest and highest page-rounded address of the loaded segments."""
        loads = self.loads
        return page_down(loads[0].address), page_up(max(load.address + load.memory_size for load in loads))


class Placed(Record):
    """Where an image lies in an address space."""

    bias: int
    entry: int
    headers: int
    end: int


def parse(fd: int) -> Image:
    """Read the headers of the ELF file behind a host descriptor. Raises ENOEXEC."""
    header = os.pread(fd, elf.ELF_HEADER.size, 0)
    if len(header) < elf.ELF_HEADER.size or not header.startswith(elf.MAGIC):
        raise LinuxError(ENOEXEC)
    ident, kind, machine, _, entry, offset, _, _, _, entry_size, count, _, _, _ = elf.ELF_HEADER.unpack(header)
    if ident[4] != elf.ELFCLASS64 or ident[5] != elf.ELFDATA2LSB or machine != elf.EM_X86_64:
        raise LinuxError(ENOEXEC)
    if kind not in (elf.ET_EXEC, elf.ET_DYN) or entry_size != elf.PROGRAM_HEADER.size:
        raise LinuxError(ENOEXEC)
    if not 0 < count <= MAX_PROGRAM_HEADERS or offset > 1 << 62:
        raise LinuxError(ENOEXEC)
    table = os.pread(fd, count * entry_size, offset)
    if len(table) < count * entry_size:
        raise LinuxError(ENOEXEC)
    segments = [Segment(*fields) for fields in elf.PROGRAM_HEADER.iter_unpack(table)]
    image = Image(kind, entry, offset, segments, _interpreter(fd, segments))
    _validate(image)
    return image


def _interpreter(fd: int, segments: list[Segment]) -> bytes | None:
    for segment in segments:
        if segment.type == elf.PT_INTERP:
            if not 2 <= segment.file_size <= PATH_MAX or segment.offset > 1 << 62:
                raise LinuxError(ENOEXEC)
            name = os.pread(fd, segment.file_size, segment.offset)
            if len(name) < segment.file_size or name[-1]:
                raise LinuxError(ENOEXEC)
            return name.split(b"\0")[0]
    return None


def _validate(image: Image) -> None:
    previous = 0
    if not image.loads:
        raise LinuxError(ENOEXEC)
    for load in image.loads:
        if load.file_size > load.memory_size or load.address + load.memory_size > USER_END or load.offset > 1 << 62:
            raise LinuxError(EINVAL)
        if (load.address - load.offset) & PAGE_MASK or load.address < previous:
            raise LinuxError(EINVAL)
        previous = load.address


def place(mm: Mm, image: Image, backing: Backing, base: int) -> Placed:
    """Map the image's segments; `base` is where its lowest page goes (ET_DYN) and is ignored for ET_EXEC."""
    low, high = image.span
    bias = base - low if image.type == elf.ET_DYN else 0
    if high + bias > USER_END:
        raise LinuxError(ENOMEM)
    for load in image.loads:
        _place_segment(mm, load, backing, bias)
    headers = 0
    for segment in image.segments:
        if segment.type == elf.PT_PHDR:
            headers = segment.address + bias
    if not headers:
        first = image.loads[0]
        headers = first.address - first.offset + image.header_offset + bias
    if image.entry + bias >= USER_END:
        raise LinuxError(EINVAL)
    return Placed(bias, image.entry + bias, headers & U64, high + bias)


def _place_segment(mm: Mm, load: Segment, backing: Backing, bias: int) -> None:
    start = page_down(load.address) + bias
    file_end = load.address + bias + load.file_size
    end = page_up(load.address + bias + load.memory_size)
    mapped_end = page_up(file_end) if load.file_size else start
    if mapped_end > start:
        mm.mmap(start, mapped_end - start, load.prot, MAP_PRIVATE | MAP_FIXED, backing, page_down(load.offset))
    if mapped_end < end:
        mm.mmap(mapped_end, end - mapped_end, load.prot, MAP_PRIVATE | MAP_FIXED)
    if load.memory_size > load.file_size and file_end & PAGE_MASK and load.file_size and load.prot & PROT_WRITE:
        mm.write(file_end, bytes(PAGE - (file_end & PAGE_MASK)))  # the rest of the last file page is .bss
    if load.prot & PROT_EXEC and not mm.start_code:
        mm.start_code, mm.end_code = start, file_end
    if load.prot & PROT_WRITE:
        mm.start_data, mm.end_data = start, file_end
