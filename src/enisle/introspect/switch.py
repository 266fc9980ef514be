"""Evaluate the switch over system call numbers that newer kernels dispatch with: a tree of compares, or a jump table.

A few integer instructions are interpreted, with one argument known, until the code leaves the function. Pure; bounded.
"""

from enisle.introspect.decode import Decoder, Imm, Instruction, Mem, Operand, Reg
from enisle.introspect.image import Image
from enisle.introspect.walk import Walker

MASK = (1 << 64) - 1
MOST_STEPS = 200
SPAN = 0x8000
RETURNS = -1
"""The answer for a number whose case returns at once."""


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> bits - 1 & 1 else number


class Switch:
    """One function `f(registers, number)` that jumps to, or calls, one of many."""

    def __init__(self, image: Image, walker: Walker, entry: int) -> None:
        self._image, self._walker, self.entry = image, walker, entry
        self._decoder: Decoder = walker.decoder

    def target(self, number: int) -> int | None:
        """Return where `number` leads; RETURNS when the function only returns; None when that cannot be told."""
        registers: dict[str, int] = {"rsi": number}
        compared: tuple[int, int, int] | None = None
        at = self.entry
        for _ in range(MOST_STEPS):
            step = self._decoder.at(at)
            if step is None:
                return None
            name, operands = step.name, step.operands
            if name == "ret":
                return RETURNS
            if name == "call" and at in (self.entry, self.entry + 4):
                pass  # function tracing: fentry, before the function's own code (Documentation/trace/ftrace.rst)
            elif name == "call" or name[0] == "j":
                taken = True if name in ("call", "jmp") else _condition(name, compared)
                if taken is None:
                    return None
                if taken:
                    target = self._read(operands[0], registers)
                    if target is None:
                        return None
                    if self._walker.is_return(target):
                        return RETURNS
                    thunk, register = self._walker.callee(target)
                    if thunk:
                        target = registers.get(register or "")
                    if target is None or name == "call" or not self.entry - 64 <= target < self.entry + SPAN:
                        return target
                    at = target
                    continue
            elif name in ("cmp", "test"):
                compared = self._compare(step, registers)
            else:
                self._step(step, registers)
            at = step.end
        return None

    def _compare(self, step: Instruction, registers: dict[str, int]) -> tuple[int, int, int] | None:
        left, right = (self._read(operand, registers) for operand in step.operands)
        if left is None or right is None:
            return None
        first = step.operands[0]
        bits = 8 * (first.size if isinstance(first, Reg | Mem) else 8)
        left, right = left & (1 << bits) - 1, right & (1 << bits) - 1
        return (left & right, 0, bits) if step.name == "test" else (left, right, bits)

    def _step(self, step: Instruction, registers: dict[str, int]) -> None:
        """Do one instruction that is neither a jump nor a compare."""
        operands = step.operands
        if step.name in ("nop", "endbr64", "push") or not operands or not isinstance(operands[0], Reg):
            return
        target = operands[0]
        value = self._result(step, registers)
        if value is None or target.size < 4:
            registers.pop(target.name, None)
        else:
            registers[target.name] = value & ((1 << 8 * target.size) - 1)

    def _result(self, step: Instruction, registers: dict[str, int]) -> int | None:
        name, operands = step.name, step.operands
        if name in ("mov", "movabs", "movzx"):
            return self._read(operands[1], registers)
        if name == "movsxd":
            value = self._read(operands[1], registers)
            return None if value is None else _signed(value & 0xFFFF_FFFF, 32)
        if name == "lea" and isinstance(operands[1], Mem):
            return self._address(operands[1], registers)
        if name == "xor" and len(operands) == 2 and operands[0] == operands[1]:
            return 0
        if name in ("add", "sub", "and") and len(operands) == 2:
            left, right = (self._read(operand, registers) for operand in operands)
            if left is None or right is None:
                return None
            return {"add": left + right, "sub": left - right, "and": left & right}[name]
        return None

    def _address(self, operand: Mem, registers: dict[str, int]) -> int | None:
        base = registers.get(operand.base) if operand.base else 0
        index = registers.get(operand.scaled) if operand.scaled else 0
        if operand.gs or base is None or index is None:
            return None
        return (base + index * operand.scale + operand.disp) & MASK

    def _read(self, operand: Operand, registers: dict[str, int]) -> int | None:
        if isinstance(operand, Imm):
            return operand.value
        if isinstance(operand, Reg):
            value = registers.get(operand.name)
            return None if value is None else value & ((1 << 8 * operand.size) - 1)
        address = self._address(operand, registers)
        content = self._image.read(address, operand.size) if address is not None and address in self._image else b""
        return int.from_bytes(content, "little") if len(content) == operand.size else None


def _condition(name: str, compared: tuple[int, int, int] | None) -> bool | None:
    """Return whether a conditional jump is taken (SDM 2A, Jcc)."""
    if compared is None:
        return None
    left, right, bits = compared
    low, high = _signed(left, bits), _signed(right, bits)
    table = {
        "je": left == right,
        "jne": left != right,
        "ja": left > right,
        "jae": left >= right,
        "jb": left < right,
        "jbe": left <= right,
        "jg": low > high,
        "jge": low >= high,
        "jl": low < high,
        "jle": low <= high,
        "js": low < high,
        "jns": low >= high,
    }
    return table.get(name)
