"""execve's work: find the program and its interpreters, lay out a fresh address space, build the first stack."""

import fcntl
import os
import struct
from collections.abc import Callable
from errno import E2BIG, EACCES, EAGAIN, ELOOP, ENOENT, ENOEXEC, ETXTBSY
from stat import S_ISREG

from enisle.abi import elf
from enisle.abi.elf import Auxv
from enisle.abi.linux_mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_STACK,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from enisle.abi.types import HUGE, PAGE, page_down, page_up
from enisle.abi.x86 import GPR_COUNT, RFLAGS, RIP, RSP
from enisle.errors import LinuxError
from enisle.kernel import elf as image_loader
from enisle.kernel.mm import Mm
from enisle.kernel.vma import Backing
from enisle.machine import USER_END, VDSO
from enisle.records import Record

SCRIPT_LINE = 256
SCRIPT_DEPTH = 5
STACK_SIZE = 8 << 20
ARGUMENT_LIMIT = STACK_SIZE // 4
LONGEST_ARGUMENT = 32 * PAGE
COMM_LENGTH = 15
PIE_BASE = 0x5555_5555_4000
CLOCK_TICKS = 100
SIGNAL_FRAME_REST = 944
"""Bytes of the largest signal frame beyond its XSAVE area (get_sigframe_size of Linux)."""


class Program(Record):
    """A program ready to run."""

    name: bytes
    path: bytes
    entry: int
    stack: int

    def registers(self) -> list[int]:
        """Return the registers a program starts with (psABI 3.4.1)."""
        registers = [0] * GPR_COUNT
        registers[RIP], registers[RSP], registers[RFLAGS] = self.entry, self.stack, 0x202
        return registers


Finder = Callable[[bytes], int]
"""Opens a path of the guest for reading; returns a host descriptor that is the caller's. Raises LinuxError, OSError."""


def load(mm: Mm, find: Finder, path: bytes, argv: list[bytes], env: list[bytes], fd: int = -1) -> Program:
    """Load the program at `path` (or behind the host descriptor `fd`) into the empty `mm`.

    Raises LinuxError as execve(2) lists them. `mm` is the caller's to release.
    """
    if sum(len(text) + 9 for text in (*argv, *env)) > ARGUMENT_LIMIT:
        raise LinuxError(E2BIG)
    if any(len(text) >= LONGEST_ARGUMENT for text in (*argv, *env)):
        raise LinuxError(E2BIG)
    backing = open_program(find, path) if fd < 0 else _backing(os.dup(fd), path)
    name = path
    for _ in range(SCRIPT_DEPTH):
        line = os.pread(backing.fd, SCRIPT_LINE, 0)
        if not line.startswith(b"#!"):
            break
        interpreter, argument = parse_script(line)
        argv = [interpreter, *([argument] if argument else []), name, *argv[1:]]
        name = interpreter
        backing = open_program(find, interpreter)
    else:
        raise LinuxError(ELOOP)
    return _load_elf(mm, find, (path, backing), argv, env)


def open_program(find: Finder, path: bytes) -> Backing:
    """Open an executable regular file. Raises EACCES for what may not be executed."""
    if not path:
        raise LinuxError(ENOENT)
    return _backing(find(path), path)


def _backing(fd: int, path: bytes) -> Backing:
    try:
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            raise LinuxError(EACCES)
        if is_being_written(fd):
            raise LinuxError(ETXTBSY)
        return Backing(fd, status.st_dev, status.st_ino, path, writable=False)
    except BaseException:
        os.close(fd)
        raise


def is_being_written(fd: int) -> bool:
    """Return whether somebody has the file open for writing: a read lease is refused then (fcntl(2), F_SETLEASE).

    Only the file's owner may ask; for others' files the answer is no.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def parse_script(line: bytes) -> tuple[bytes, bytes]:
    """Return interpreter and optional argument of a `#!` line. Raises ENOEXEC (execve(2), "Interpreter scripts")."""
    text, newline, _ = line[2:].partition(b"\n")
    text = text.strip(b" \t")
    interpreter, _, argument = text.replace(b"\t", b" ").partition(b" ")
    if not interpreter or b"\0" in interpreter or (not newline and len(line) == SCRIPT_LINE and b" " not in text):
        raise LinuxError(ENOEXEC)
    return interpreter, argument.strip(b" ").split(b"\0")[0]


def _load_elf(mm: Mm, find: Finder, source: tuple[bytes, Backing], argv: list[bytes], env: list[bytes]) -> Program:
    path, backing = source
    image = image_loader.parse(backing.fd)
    top = USER_END - page_down(int.from_bytes(os.urandom(4), "little") & 0x3FFF_FFFF)
    mm.mmap_base = top - STACK_SIZE - (1 << 28) & ~(HUGE - 1)
    base = PIE_BASE + page_down(int.from_bytes(os.urandom(4), "little") & 0xFFFF_FFFF)
    program = image_loader.place(mm, image, backing, base)
    entry, interpreter_base = program.entry, 0
    if image.interpreter:
        linker_backing = open_program(find, image.interpreter)
        linker = image_loader.parse(linker_backing.fd)
        low, high = linker.span
        place = mm.mmap(0, high - low, 0, MAP_PRIVATE | MAP_ANONYMOUS)
        placed = image_loader.place(mm, linker, linker_backing, place)
        entry, interpreter_base = placed.entry, placed.bias
    mm.exe = backing
    mm.start_brk = mm.brk = page_up(program.end) + page_down(int.from_bytes(os.urandom(3), "little"))
    executable_stack = any(s.type == elf.PT_GNU_STACK and s.flags & elf.PF_X for s in image.segments)
    _map_stack(mm, top, executable_stack)
    auxv = {
        Auxv.SYSINFO_EHDR: VDSO,
        Auxv.PHDR: program.headers,
        Auxv.PHENT: elf.PROGRAM_HEADER.size,
        Auxv.PHNUM: len(image.segments),
        Auxv.BASE: interpreter_base,
        Auxv.ENTRY: program.entry,
    }
    stack = build_stack(mm, top, (path, argv, env), auxv)
    return Program(os.path.basename(path)[:COMM_LENGTH], path, entry, stack)


def _map_stack(mm: Mm, top: int, executable: bool) -> None:
    prot = PROT_READ | PROT_WRITE | (PROT_EXEC if executable else 0)
    flags = MAP_PRIVATE | MAP_FIXED | MAP_GROWSDOWN | MAP_STACK
    mm.mmap(top - STACK_SIZE, STACK_SIZE, prot, flags)
    stack = mm.vmas.find(top - 1)
    assert stack
    stack.name = b"[stack]"
    mm.start_stack = top


def build_stack(mm: Mm, top: int, program: tuple[bytes, list[bytes], list[bytes]], auxv: dict[int, int]) -> int:
    """Write strings, vectors and the auxiliary vector below `top`; return the stack pointer (psABI 3.4.1)."""
    path, argv, env = program
    strings = b"".join(text + b"\0" for text in (*argv, *env, path))
    start = top - 16 - len(strings)
    mm.write(start, strings)
    pointers: list[int] = []
    at = start
    for text in (*argv, *env, path):
        pointers.append(at)
        at += len(text) + 1
    argument_end = start + sum(len(text) + 1 for text in argv)
    mm.arguments, mm.environment = (start, argument_end), (argument_end, at - len(path) - 1)
    random_at = (start - 16) & ~15
    platform_at = random_at - 16
    mm.write(random_at, os.urandom(16))
    mm.write(platform_at, b"x86_64\0")
    vector = dict(auxv) | {
        Auxv.PAGESZ: PAGE,
        Auxv.FLAGS: 0,
        Auxv.UID: 0,
        Auxv.EUID: 0,
        Auxv.GID: 0,
        Auxv.EGID: 0,
        Auxv.PLATFORM: platform_at,
        Auxv.CLKTCK: CLOCK_TICKS,
        Auxv.SECURE: 0,
        Auxv.RANDOM: random_at,
        Auxv.HWCAP: mm.machine.queries.hwcap if mm.machine.queries else hwcap(),
        Auxv.HWCAP2: 0,  # no FSGSBASE: see machine.kvm
        Auxv.EXECFN: pointers[-1],
        Auxv.MINSIGSTKSZ: mm.machine.xsave_size + SIGNAL_FRAME_REST,
    }
    words = [len(argv), *pointers[: len(argv)], 0, *pointers[len(argv) : len(argv) + len(env)], 0]
    pairs = [word for item in vector.items() for word in item]
    words += [*pairs, 0, 0]
    mm.auxv = struct.pack(f"<{len(pairs) + 2}Q", *pairs, 0, 0)
    stack = (platform_at - 8 * len(words)) & ~15
    mm.write(stack, struct.pack(f"<{len(words)}Q", *words))
    return stack


def hwcap() -> int:
    """CPUID leaf 1 EDX, as Linux gives it in AT_HWCAP: what every x86-64 has and these programs ask for."""
    return 0x0789_FBFF
