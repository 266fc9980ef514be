"""Execution out of line: instructions of a page that stays non-executable, copied to where they may run.

A run is a few instructions in a row, the way uprobes moves one (linux/arch/x86/kernel/uprobes.c): what names its own
place is rewritten, the rest is copied, INT3 ends it. The copy is private and was judged, so that nobody can change an
instruction between its judgement and its execution. No trapped opcode may appear in a copy at any offset, because other
threads can jump there: such an instruction is turned into one that does the same without these bytes.
"""

import struct
from collections.abc import Callable

from enisle.abi.x86 import RIP
from enisle.machine.enforcement.control import ORDER, effective, is_control
from enisle.machine.enforcement.scan import Scanner
from enisle.machine.processor import Registers
from enisle.machine.software import decode as decoder
from enisle.machine.software.decode import decode_at
from enisle.machine.software.opcodes import EVEX, LEGACY, VEX, XOP

INT3 = b"\xcc"
LONGEST_RUN = 64
"""Instructions in one run."""
RUN_BYTES = 1024
U64 = (1 << 64) - 1
MULTIPLY = (0, 0x69)
"""Map and opcode of IMUL with an immediate."""
TWO_BYTE_VEX = 0xC5
SCRATCH = (6, 7, 3)
"""Registers that may hold an address or an immediate: RSI, RDI, RBX are the operand of no instruction with ModRM unless
it names them, but for CMPXCHG8B and 16B, which use RBX."""
RIP_REACH = 1 << 31


class Run:
    """Copied instructions: `content` for the slot, where each came from, and registers lent to it.

    `marks`: (offset in the slot, address in the program) of each instruction and of the end. `lent`: registers (as in
    an instruction) with the value they hold meanwhile. `result`: (lent register, register that takes its value
    afterwards, bytes of it).
    """

    __slots__ = ("content", "lent", "marks", "result", "source")

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.content = b""
        self.marks: list[tuple[int, int]] = []
        self.lent: dict[int, int] = {}
        self.result: tuple[int, int, int] | None = None

    def address_at(self, offset: int) -> int | None:
        """Return the program's address of what begins at an offset of the slot."""
        for place, address in self.marks:
            if place == offset:
                return address
        return None


def plan(
    code: bytes,
    gpr: Registers,
    slot: int,
    scanner: Scanner,
    judged: Callable[[decoder.Instruction], bool],
    most: int = LONGEST_RUN,
) -> Run | None:
    """Return a run of the instructions at RIP, of which `code` are the bytes; None when the first cannot be moved.

    `judged` says of an instruction whether it may execute natively. Requires: the first one may, and is no branch.
    """
    address = gpr[RIP]
    run = Run(code)
    offset, content = 0, b""
    for count in range(most):
        instruction = decode_at(code, offset, address + offset)
        if instruction is None or is_control(instruction) or (count and not judged(instruction)):
            break
        copy = relocate(instruction, slot + len(content))
        if copy is None or scanner.matches(content + copy + INT3) or len(content) + len(copy) >= RUN_BYTES:
            if count:
                break
            return rewritten(instruction, gpr, scanner)
        run.marks.append((len(content), address + offset))
        content += copy
        offset += instruction.length
        if instruction.kind != decoder.NEXT:
            break
    run.source = code[:offset]
    run.marks.append((len(content), address + offset))
    run.content = content + INT3
    return run


def relocate(it: decoder.Instruction, place: int) -> bytes | None:
    """Return the instruction as it must read at `place`, None when its operand is out of reach from there."""
    if not it.rip_relative:
        return it.bytes
    displacement = it.next_address + it.displacement - (place + it.length)
    if it.address_size == decoder.DWORD:
        displacement = (displacement + RIP_REACH & 0xFFFF_FFFF) - RIP_REACH
    if not -RIP_REACH <= displacement < RIP_REACH:
        return None
    at = it.displacement_offset
    return it.bytes[:at] + struct.pack("<i", displacement) + it.bytes[at + 4 :]


def rewritten(it: decoder.Instruction, gpr: Registers, scanner: Scanner) -> Run | None:
    """Return a run of one instruction with its memory operand or its immediate in a lent register."""
    for first in SCRATCH:
        for second in (None, *SCRATCH):
            run = _attempt(it, gpr, first, second)
            if run and not scanner.matches(run.content):
                return run
    return None


def _attempt(it: decoder.Instruction, gpr: Registers, pointer: int, value: int | None) -> Run | None:
    """Lend `pointer` for the address and `value`, when given, for the immediate."""
    run = Run(it.bytes)
    moved = it
    if value is not None:
        swapped = None if value in _used(it) or (it.is_memory and value == pointer) else _swap_immediate(it, value)
        moved = decode_at(swapped, 0, it.address) if swapped else None
        if moved is None:
            return None
        run.lent[value] = it.immediate & U64
        if (it.map, it.opcode) == MULTIPLY:
            run.result = value, it.reg, 8 if it.w else 2 if it.operand_size_prefix else 4
    code = bytearray(moved.bytes)
    if it.is_memory:
        if pointer in _used(it) or not _point(moved, code, pointer):
            return None
        run.lent[pointer] = effective(it, gpr)
    elif value is None:
        return None
    run.content = bytes(code) + INT3
    run.marks = [(0, it.address), (len(code), it.next_address)]
    return run


def _used(it: decoder.Instruction) -> set[int]:
    """Return the general registers an instruction may use beside those of its memory operand."""
    used = {it.vvvv} if it.encoding in (VEX, EVEX, XOP) else set[int]()
    if it.has_modrm:
        used.add(it.reg)
        if it.mod == 3:
            used.add(it.rm)
    if it.encoding == LEGACY and it.map == 1 and it.opcode == 0xC7:
        used.add(3)
    return used


def _point(it: decoder.Instruction, code: bytearray, register: int) -> bool:
    """Make the memory operand of `code`, which `it` describes, [register]: no SIB byte, no displacement.

    False where it cannot be: an operand with a vector index, or a displacement that EVEX scales.
    """
    gathers = it.encoding in (VEX, EVEX) and it.map == 2 and it.index is not None and 0x90 <= it.opcode <= 0xC7
    if gathers or (it.encoding == EVEX and it.displacement_size == 1):
        return False
    end = it.modrm_offset + 1 + (it.modrm & 7 == 4) + it.displacement_size
    code[it.modrm_offset : end] = bytes((it.modrm & 0x38 | register,))
    if it.encoding == LEGACY:
        if it.rex:
            code[_rex_offset(it)] &= 0xFC  # neither X nor B
    elif it.encoding == EVEX:
        code[it.opcode_offset - 3] |= 0x60  # X and B stand inverted in vector prefixes
    elif code[it.opcode_offset - 2] != TWO_BYTE_VEX:
        code[it.opcode_offset - 2] |= 0x60
    return True


def _rex_offset(it: decoder.Instruction) -> int:
    return it.opcode_offset - (0, 1, 2, 2)[it.map] - 1


def _swap_immediate(it: decoder.Instruction, register: int) -> bytes | None:
    """Return an instruction with a register in place of the immediate; None where there is no such."""
    if it.encoding != LEGACY or it.map or it.immediate_size < (2 if it.operand_size_prefix else 4):
        return None
    head, opcode = bytearray(it.code[: it.opcode_offset]), it.opcode
    tail = it.code[it.modrm_offset + 1 : it.immediate_offset] if it.has_modrm else b""
    modrm = it.modrm & 0xC7 | register << 3
    implied = opcode in (0x68, 0xA9) or (opcode < 0x40 and opcode & 7 == 5)
    if it.rex:
        head[_rex_offset(it)] &= 0xFA if implied else 0xFB  # not R; B only where it says something
    if opcode == 0x81:
        return bytes((*head, it.group << 3 | 1, modrm)) + tail
    if opcode == 0xC7 and it.group == 0:
        return bytes((*head, 0x89, modrm)) + tail
    if opcode == 0xF7 and it.group < 2:
        return bytes((*head, 0x85, modrm)) + tail
    if opcode == 0x68:
        return bytes((*head, 0x50 | register))
    if opcode == 0xA9:
        return bytes((*head, 0x85, 0xC0 | register << 3))
    if implied:
        return bytes((*head, opcode & 0x38 | 1, 0xC0 | register << 3))
    if 0xB8 <= opcode <= 0xBF:
        return bytes((*head, 0x89, 0xC0 | register << 3 | opcode & 7))
    if opcode == MULTIPLY[1]:  # the lent register is multiplied, and moves to the target afterwards
        return bytes((*head, 0x0F, 0xAF, modrm)) + tail
    return None


def lend(run: Run, gpr: Registers) -> dict[int, int]:
    """Put the lent values into their registers; return what stood there."""
    before = {register: gpr[ORDER[register]] for register in run.lent}
    for register, value in run.lent.items():
        gpr[ORDER[register]] = value
    return before


def give_back(run: Run, gpr: Registers, before: dict[int, int], done: bool) -> None:
    """Restore lent registers; `done`: the instruction has executed, so its result moves to where it belongs."""
    if done and run.result:
        lent, target, size = run.result
        old, value = before.get(target, gpr[ORDER[target]]), gpr[ORDER[lent]]
        merged = old & ~0xFFFF | value & 0xFFFF if size == 2 else value
        gpr[ORDER[target]] = before[target] = merged
    for register, value in before.items():
        gpr[ORDER[register]] = value
