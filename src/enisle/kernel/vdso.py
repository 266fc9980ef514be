"""The vDSO: a small shared object of ours in every guest process, so that reading the time needs no system call.

Its code reads the page of clock parameters that lies right before it (`clock.Vvar`), with the time-stamp counter.
What it cannot answer it asks by SYSCALL. Hand-assembled: every line is its text and its bytes, and a test disassembles
them. Looked up by glibc and musl through DT_HASH and version LINUX_2.6 (vdso(7)).
"""

import struct

from enisle.abi.types import PAGE
from enisle.kernel import vvar

NANOSECONDS = 1_000_000_000
CLOCKS = 0b1111_0011
"""REALTIME, MONOTONIC, MONOTONIC_RAW, both COARSE ones and BOOTTIME are answered here."""

Line = tuple[str, bytes]
_LABEL, _JUMP, _VVAR = 0, 1, 2


class Code:
    """Lines of assembly; jumps are short, vvar operands relative to RIP."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.lines: list[Line] = []
        self.size = 0
        self.labels: dict[str, int] = {}
        self._fixes: list[tuple[int, int, str]] = []

    def add(self, text: str, code: str) -> None:
        """One instruction: its text and its bytes in hexadecimal."""
        raw = bytes.fromhex(code)
        self.lines.append((text, raw))
        self.size += len(raw)

    def vvar(self, text: str, opcode: str, offset: int, immediate: str = "") -> None:
        """An instruction with the operand [vvar + offset]."""
        raw, tail = bytes.fromhex(opcode), bytes.fromhex(immediate)
        end = self.offset + self.size + len(raw) + 4 + len(tail)
        self.lines.append((text, raw + struct.pack("<i", offset - PAGE - end) + tail))
        self.size += len(raw) + 4 + len(tail)

    def label(self, name: str) -> None:
        self.labels[name] = self.size

    def jump(self, mnemonic: str, opcode: str, label: str) -> None:
        self._fixes.append((len(self.lines), self.size + 2, label))
        self.add(f"{mnemonic} {label}", opcode + "00")

    def finish(self) -> bytes:
        """Return the bytes with every jump resolved."""
        for line, end, label in self._fixes:
            text, raw = self.lines[line]
            distance = self.labels[label] - end
            assert -128 <= distance < 128, f"{text}: {distance}"
            self.lines[line] = (text, raw[:1] + struct.pack("<b", distance))
        return b"".join(raw for _, raw in self.lines)


def _read_clock(code: Code, name: str) -> None:
    """Leave seconds of clock RDI in RAX, nanoseconds in RDX; go to `name`_slow when that cannot be. Uses RCX R8 R10."""
    code.label(f"{name}_again")
    code.vvar("mov r8d, [seq]", "44 8b 05", vvar.SEQUENCE)
    code.add("test r8b, 1", "41 f6 c0 01")
    code.jump("jne", "75", f"{name}_again")
    code.vvar("cmp dword ptr [mode], 1", "83 3d", vvar.MODE, "01")
    code.jump("jne", "75", f"{name}_slow")
    code.add("lfence", "0f ae e8")
    code.add("rdtsc", "0f 31")
    code.add("shl rdx, 0x20", "48 c1 e2 20")
    code.add("or rax, rdx", "48 09 d0")
    code.vvar("sub rax, [base]", "48 2b 05", vvar.BASE_TSC)
    code.jump("jae", "73", f"{name}_scale")
    code.add("xor eax, eax", "31 c0")  # another core's counter a little behind: time stands still, never goes back
    code.label(f"{name}_scale")
    code.vvar("mul qword ptr [mult]", "48 f7 25", vvar.MULTIPLIER)
    code.add("shrd rax, rdx, 0x20", "48 0f ac d0 20")
    code.vvar("lea r10, [bases]", "4c 8d 15", vvar.BASES)
    code.add("add rax, qword ptr [r10 + rdi*8]", "49 03 04 fa")
    code.vvar("cmp r8d, [seq]", "44 3b 05", vvar.SEQUENCE)
    code.jump("jne", "75", f"{name}_again")
    code.add("mov ecx, 0x3b9aca00", "b9 00 ca 9a 3b")
    code.add("xor edx, edx", "31 d2")
    code.add("div rcx", "48 f7 f1")


def _system_call(code: Code, number: int) -> None:
    code.add(f"mov eax, {number:#x}", f"b8 {struct.pack('<I', number).hex()}")
    code.add("syscall", "0f 05")
    code.add("ret", "c3")


def _clock_gettime(code: Code) -> None:
    code.label("clock_gettime")
    code.add("cmp edi, 7", "83 ff 07")
    code.jump("ja", "77", "clock_gettime_slow")
    code.add(f"mov eax, {CLOCKS:#x}", f"b8 {struct.pack('<I', CLOCKS).hex()}")
    code.add("bt eax, edi", "0f a3 f8")
    code.jump("jae", "73", "clock_gettime_slow")
    code.add("mov edi, edi", "89 ff")
    _read_clock(code, "clock_gettime")
    code.add("mov qword ptr [rsi], rax", "48 89 06")
    code.add("mov qword ptr [rsi + 8], rdx", "48 89 56 08")
    code.add("xor eax, eax", "31 c0")
    code.add("ret", "c3")
    code.label("clock_gettime_slow")
    _system_call(code, 228)


def _gettimeofday(code: Code) -> None:
    code.label("gettimeofday")
    code.add("test rsi, rsi", "48 85 f6")  # a time zone is history: let the system call answer
    code.jump("jne", "75", "gettimeofday_slow")
    code.add("test rdi, rdi", "48 85 ff")
    code.jump("je", "74", "gettimeofday_slow")
    code.add("mov rsi, rdi", "48 89 fe")
    code.add("xor edi, edi", "31 ff")
    _read_clock(code, "gettimeofday_read")
    code.add("mov qword ptr [rsi], rax", "48 89 06")
    code.add("mov rax, rdx", "48 89 d0")
    code.add("xor edx, edx", "31 d2")
    code.add("mov ecx, 0x3e8", "b9 e8 03 00 00")
    code.add("div rcx", "48 f7 f1")
    code.add("mov qword ptr [rsi + 8], rax", "48 89 46 08")
    code.add("xor eax, eax", "31 c0")
    code.add("ret", "c3")
    code.label("gettimeofday_read_slow")
    code.add("mov rdi, rsi", "48 89 f7")
    code.add("xor esi, esi", "31 f6")
    code.label("gettimeofday_slow")
    _system_call(code, 96)


def _time(code: Code) -> None:
    code.label("time")
    code.add("mov rsi, rdi", "48 89 fe")
    code.add("xor edi, edi", "31 ff")
    _read_clock(code, "time")
    code.add("test rsi, rsi", "48 85 f6")
    code.jump("je", "74", "time_done")
    code.add("mov qword ptr [rsi], rax", "48 89 06")
    code.label("time_done")
    code.add("ret", "c3")
    code.label("time_slow")
    code.add("mov rdi, rsi", "48 89 f7")
    _system_call(code, 201)


def _getcpu(code: Code) -> None:
    """The number of the only processor is 0; with several, only the kernel knows which one it is."""
    code.label("getcpu")
    code.vvar("cmp dword ptr [processors], 1", "83 3d", vvar.PROCESSORS, "01")
    code.jump("jne", "75", "getcpu_slow")
    code.add("xor eax, eax", "31 c0")
    code.add("test rdi, rdi", "48 85 ff")
    code.jump("je", "74", "getcpu_node")
    code.add("mov dword ptr [rdi], eax", "89 07")
    code.label("getcpu_node")
    code.add("test rsi, rsi", "48 85 f6")
    code.jump("je", "74", "getcpu_done")
    code.add("mov dword ptr [rsi], eax", "89 06")
    code.label("getcpu_done")
    code.add("ret", "c3")
    code.label("getcpu_slow")
    _system_call(code, 309)


def _clock_getres(code: Code) -> None:
    code.label("clock_getres")
    _system_call(code, 229)


FUNCTIONS = {
    "clock_gettime": _clock_gettime,
    "gettimeofday": _gettimeofday,
    "time": _time,
    "getcpu": _getcpu,
    "clock_getres": _clock_getres,
}
CODE_OFFSET = 0x600


def assemble() -> Code:
    """Return all functions, assembled for their place in the image."""
    code = Code(CODE_OFFSET)
    for emit in FUNCTIONS.values():
        emit(code)
    code.finish()
    return code


# ---- the ELF file around it (System V gABI; symbol versions: LSB Core, "Symbol Versioning") -------------------------

VERSION, SONAME = "LINUX_2.6", "linux-vdso.so.1"
DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 0, 4, 5, 6, 10, 11, 14
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFF_FFF0, 0x6FFF_FFFC, 0x6FFF_FFFD
STB_GLOBAL_FUNC, STB_WEAK_FUNC = 0x12, 0x22


def elf_hash(name: str) -> int:
    """Return the gABI's hash of a symbol name."""
    value = 0
    for character in name.encode():
        value = (value << 4) + character
        high = value & 0xF000_0000
        value = (value ^ high >> 24) & ~high
    return value


def _strings(names: list[str]) -> tuple[bytes, dict[str, int]]:
    table, offsets = b"\0", {}
    for name in names:
        offsets[name] = len(table)
        table += name.encode() + b"\0"
    return table, offsets


def _hash_table(names: list[str]) -> bytes:
    """One bucket, every symbol chained: fine for ten."""
    count = len(names) + 1
    chain = [0, *range(2, count), 0]
    return struct.pack(f"<3I{count}I", 1, count, 1, *chain)


def _version_definitions(offsets: dict[str, int]) -> bytes:
    base = struct.pack("<4H3I2I", 1, 1, 1, 1, elf_hash(SONAME), 20, 28, offsets[SONAME], 0)
    ours = struct.pack("<4H3I2I", 1, 0, 2, 1, elf_hash(VERSION), 20, 0, offsets[VERSION], 0)
    return base + ours


def image() -> bytes:
    """Return the shared object, one page long; it must be mapped right after the vvar page."""
    code = assemble()
    symbols = [(prefix + name, name) for name in FUNCTIONS for prefix in ("__vdso_", "")]
    names = [symbol for symbol, _ in symbols]
    strings, offsets = _strings([*names, SONAME, VERSION])
    table = bytes(24)
    for symbol, function in symbols:
        binding = STB_GLOBAL_FUNC if symbol.startswith("__vdso_") else STB_WEAK_FUNC
        table += struct.pack("<IBBHQQ", offsets[symbol], binding, 0, 1, CODE_OFFSET + code.labels[function], 0)
    parts = {
        DT_HASH: _hash_table(names),
        DT_SYMTAB: table,
        DT_STRTAB: strings,
        DT_VERSYM: struct.pack(f"<{len(names) + 1}H", 0, *[2] * len(names)),
        DT_VERDEF: _version_definitions(offsets),
    }
    return _lay_out(parts, offsets, code.finish())


def _lay_out(parts: dict[int, bytes], offsets: dict[str, int], code: bytes) -> bytes:
    at = 64 + 2 * 56
    content = bytearray(PAGE)
    dynamic: list[tuple[int, int]] = [(DT_SONAME, offsets[SONAME])]
    for tag, part in parts.items():
        at = (at + 7) & ~7
        content[at : at + len(part)] = part
        dynamic.append((tag, at))
        at += len(part)
    dynamic += [(DT_STRSZ, len(parts[DT_STRTAB])), (DT_SYMENT, 24), (DT_VERDEFNUM, 2), (DT_NULL, 0)]
    at = (at + 7) & ~7
    packed = b"".join(struct.pack("<qQ", *entry) for entry in dynamic)
    content[at : at + len(packed)] = packed
    assert at + len(packed) <= CODE_OFFSET, f"{at + len(packed)=:#x}"
    content[CODE_OFFSET : CODE_OFFSET + len(code)] = code
    size = CODE_OFFSET + len(code)
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    content[:64] = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    content[64:120] = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, PAGE)
    content[120:176] = struct.pack("<IIQQQQQQ", 2, 4, at, at, at, len(packed), len(packed), 8)
    return bytes(content)
