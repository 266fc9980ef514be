"""No file, however damaged, makes the ELF loader raise anything but the errno that execve(2) answers."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EFAULT, EINVAL, ENOEXEC, ENOMEM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.abi import elf
from enisle.abi.types import PAGE_MASK
from enisle.errors import LinuxError
from enisle.kernel.elf import Placed, parse, place
from enisle.kernel.loader import parse_script
from enisle.kernel.vma import Backing
from enisle.machine import USER_END

BASE = 0x40_0000
INTERPRETER = b"/lib/ld.so\0"
HEADERS = elf.ELF_HEADER.size + 3 * elf.PROGRAM_HEADER.size
PT_LOAD, PT_INTERP = 1, 3


def program(kind: int = elf.ET_EXEC) -> bytes:
    """Return a sound ELF file: a read-only segment with everything, a writable one with .bss, an interpreter."""
    base = BASE if kind == elf.ET_EXEC else 0
    ident = elf.MAGIC + bytes((elf.ELFCLASS64, elf.ELFDATA2LSB, 1)) + bytes(9)
    header = elf.ELF_HEADER.pack(
        ident, kind, elf.EM_X86_64, 1, base + HEADERS, elf.ELF_HEADER.size, 0, 0, elf.ELF_HEADER.size, 56, 3, 64, 0, 0
    )
    segments = (
        (PT_LOAD, 5, 0, base, base, 0x200, 0x200, 0x1000),
        (PT_LOAD, 6, 0x200, base + 0x1200, base + 0x1200, 0x100, 0x3000, 0x1000),
        (PT_INTERP, 4, HEADERS, base + HEADERS, base + HEADERS, len(INTERPRETER), len(INTERPRETER), 1),
    )
    table = b"".join(elf.PROGRAM_HEADER.pack(*segment) for segment in segments)
    return (header + table + INTERPRETER).ljust(0x300, b"\x90")


class Memory:
    """Takes mappings as strictly as an address space does, and remembers how far they reach."""

    def __init__(self) -> None:
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.mappings: list[tuple[int, int]] = []

    def mmap(self, address: int, size: int, prot: int, flags: int, backing: object = None, offset: int = 0) -> int:
        if size <= 0 or size > USER_END:
            raise LinuxError(ENOMEM)
        if address & PAGE_MASK or offset & PAGE_MASK:
            raise LinuxError(EINVAL)
        if address + size > USER_END:
            raise LinuxError(ENOMEM)
        assert 0 <= offset < 1 << 63
        assert 0 <= prot < 8
        self.mappings.append((address, address + size))
        return address

    def write(self, address: int, content: bytes) -> None:
        if not any(start <= address and address + len(content) <= end for start, end in self.mappings):
            raise LinuxError(EFAULT)


@contextmanager
def file_of(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("program", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def load(content: bytes, base: int = 0x5555_5555_4000) -> Placed:
    """Load what an exec would; every result must fit a register."""
    with file_of(content) as fd:
        image = parse(fd)
        placed = place(Memory(), image, Backing(os.dup(fd), 0, 0, b"", writable=False), base)  # type: ignore[arg-type]
    assert all(0 <= number < 1 << 64 for number in (placed.entry, placed.headers, placed.end))
    return placed


def errno_of(content: bytes) -> int:
    with pytest.raises(LinuxError) as caught:
        load(content)
    return caught.value.errno


def changed(offset: int, layout: str, value: int, kind: int = elf.ET_EXEC) -> bytes:
    content = bytearray(program(kind))
    struct.pack_into(layout, content, offset, value)
    return bytes(content)


def segment(index: int, field: int) -> int:
    """Return the offset of a 64-bit field of a program header: 1 offset, 2 address, 4 file size, 5 memory size."""
    return elf.ELF_HEADER.size + index * elf.PROGRAM_HEADER.size + 8 * field


def test_a_sound_program_is_placed_where_it_says() -> None:
    assert load(program()) == Placed(0, BASE + HEADERS, BASE + elf.ELF_HEADER.size, BASE + 0x5000)
    assert load(program(elf.ET_DYN)).entry == 0x5555_5555_4000 + HEADERS


@pytest.mark.parametrize("size", range(0, HEADERS, 7))
def test_a_file_cut_off_in_its_headers_is_no_program(size: int) -> None:
    assert errno_of(program()[:size]) == ENOEXEC


@pytest.mark.parametrize(
    ("offset", "layout", "value", "errno"),
    [
        (4, "B", 1, ENOEXEC),  # 32 bits
        (5, "B", 2, ENOEXEC),  # big endian
        (16, "H", 1, ENOEXEC),  # an object file
        (18, "H", 183, ENOEXEC),  # another machine
        (32, "Q", 1 << 63, ENOEXEC),  # headers at a negative offset
        (32, "Q", 0x1_0000_0000, ENOEXEC),  # … beyond the end
        (54, "H", 32, ENOEXEC),  # their size
        (56, "H", 0, ENOEXEC),
        (56, "H", 65535, ENOEXEC),
        (24, "Q", 1 << 63, EINVAL),  # the entry
        (24, "Q", (1 << 64) - 1, EINVAL),
        (segment(0, 2), "Q", BASE + 1, EINVAL),  # unaligned
        (segment(0, 2), "Q", BASE + 0x10_0000, EINVAL),  # out of order
        (segment(1, 1), "Q", 1 << 63, EINVAL),
        (segment(1, 4), "Q", 0x4000, EINVAL),  # more in the file than in memory
        (segment(1, 5), "Q", (1 << 64) - 1, EINVAL),
        (segment(1, 5), "Q", 1 << 47, EINVAL),
        (segment(2, 4), "Q", 1, ENOEXEC),  # the interpreter's name: too short, too long, without its end
        (segment(2, 4), "Q", 5000, ENOEXEC),
        (segment(2, 4), "Q", 4, ENOEXEC),
        (segment(2, 1), "Q", 1 << 63, ENOEXEC),
    ],
)
def test_headers_that_cannot_be_true_are_refused(offset: int, layout: str, value: int, errno: int) -> None:
    assert errno_of(changed(offset, f"<{layout}", value)) == errno


WILD = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 0xFFF, 0x1000, 1 << 31, 1 << 32, USER_END - 1, USER_END, 1 << 63, (1 << 64) - 0x1000]),
)
PLACES = [*range(0, elf.ELF_HEADER.size, 8), *range(elf.ELF_HEADER.size, HEADERS, 8)]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([elf.ET_EXEC, elf.ET_DYN]),
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from("BHIQ"), WILD), max_size=5),
    st.integers(0, 0x300),
)
def test_damage_anywhere_raises_nothing_but_an_errno(kind: int, damage: list[tuple[int, str, int]], size: int) -> None:
    content = bytearray(program(kind))
    for offset, layout, value in damage:
        width = struct.calcsize(f"<{layout}")
        struct.pack_into(f"<{layout}", content, offset, value & ((1 << 8 * width) - 1))
    try:
        load(bytes(content[: max(size, HEADERS)] if size % 2 else content))
    except LinuxError as error:
        assert error.errno in (ENOEXEC, EINVAL, ENOMEM, EFAULT)  # noqa: PT017 - loading is right too


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=256).map(lambda rest: b"#!" + rest))
def test_any_first_line_of_a_script_names_an_interpreter_or_is_refused(line: bytes) -> None:
    try:
        interpreter, argument = parse_script(line)
    except LinuxError as error:
        assert error.errno == ENOEXEC  # noqa: PT017 - naming one is right too
    else:
        assert interpreter
        assert b"\0" not in interpreter + argument
