"""x86-64 instructions as small records: the one file that knows capstone.

`Decoder.at` gives the instruction at an address of the image, remembered. Registers are told by their 64-bit name,
RIP-relative operands by the address they mean. Promises: None instead of an error for bytes that are no instruction.
"""

from typing import Any, Final

import capstone  # pyright: ignore[reportMissingTypeStubs]
from capstone import x86_const as x86  # pyright: ignore[reportMissingTypeStubs]

from enisle.introspect.image import Image
from enisle.records import Record

MASK: Final = (1 << 64) - 1
LONGEST = 15
WINDOW = 512
"""Bytes handed to the disassembler at once."""


class Reg(Record):
    name: str
    size: int


class Imm(Record):
    value: int


class Mem(Record):
    """A memory operand. Without base and scaled register, `disp` is the address (or the offset in the GS segment)."""

    gs: bool
    base: str
    scaled: str
    scale: int
    disp: int
    size: int


Operand = Reg | Imm | Mem


class Instruction(Record):
    address: int
    end: int
    name: str
    operands: tuple[Operand, ...]
    locked: bool = False


def _parents() -> dict[str, str]:
    """Return the 64-bit register of each name."""
    parents: dict[str, str] = {}
    for letter in "abcd":
        for name in (f"r{letter}x", f"e{letter}x", f"{letter}x", f"{letter}l", f"{letter}h"):
            parents[name] = f"r{letter}x"
    for pair in ("si", "di", "bp", "sp"):
        for name in (f"r{pair}", f"e{pair}", pair, f"{pair}l"):
            parents[name] = f"r{pair}"
    for number in range(8, 16):
        for suffix in ("", "d", "w", "b"):
            parents[f"r{number}{suffix}"] = f"r{number}"
    return parents


_PARENTS = _parents()
_SEGMENTED = (x86.X86_REG_GS, x86.X86_REG_FS)


class Decoder:
    """Decodes the code of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._capstone: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._capstone.detail = True
        self._known: dict[int, Instruction | None] = {}
        self._names: dict[int, str] = {}

    def at(self, address: int) -> Instruction | None:
        """Return the instruction at an address, None where there is none."""
        if address not in self._known:
            self._decode(address)
        return self._known.get(address)

    def _decode(self, address: int) -> None:
        """Decode from `address` to the end of its straight line, or to what is known already."""
        code = self._image.read(address, WINDOW) if self._image.is_text(address) else b""
        self._known[address] = None
        for raw in self._capstone.disasm(code, address):
            instruction = self._instruction(raw)
            self._known[instruction.address] = instruction
            if instruction.name in _STRAIGHT_ENDS or self._known.get(instruction.end) is not None:
                return

    def _instruction(self, raw: Any) -> Instruction:
        address, size = raw.address, raw.size
        operands = tuple(self._operand(operand, address + size) for operand in raw.operands)
        name = raw.mnemonic
        locked = name.startswith("lock ")
        if " " in name:  # prefixes are written before the name
            name = name.rpartition(" ")[2] if not name.startswith(("rep", "repne")) else name
        return Instruction(address, address + size, name, operands, locked)

    def _operand(self, raw: Any, end: int) -> Operand:
        kind = raw.type
        if kind == x86.X86_OP_REG:
            return Reg(self._name(raw.reg), raw.size)
        if kind == x86.X86_OP_IMM:
            return Imm(raw.imm & MASK)
        memory = raw.mem
        gs = memory.segment in _SEGMENTED
        index = self._name(memory.index) if memory.index else ""
        if memory.base == x86.X86_REG_RIP:
            return Mem(gs, "", index, memory.scale, (end + memory.disp) & MASK, raw.size)
        base = self._name(memory.base) if memory.base else ""
        return Mem(gs, base, index, memory.scale, memory.disp if base else memory.disp & MASK, raw.size)

    def _name(self, number: int) -> str:
        name = self._names.get(number)
        if name is None:
            shown = self._capstone.reg_name(number) or ""
            name = self._names[number] = _PARENTS.get(shown, shown)
        return name


_STRAIGHT_ENDS = frozenset(("jmp", "ret", "retf", "iretq", "sysretq", "sysexitq", "ud2", "int3", "hlt"))
