"""General-register instructions in software: POPCNT, LZCNT, TZCNT, BMI1, BMI2, ADX, MOVBE, CRC32 (SDM 2)."""

from collections.abc import Callable

from enisle.abi.x86 import RFLAGS
from enisle.machine.software.decode import DWORD, QWORD
from enisle.machine.software.flags import ALL, CF, OF, SF, ZF, of_result
from enisle.machine.software.operands import MASKS, Step

CRC_POLYNOMIAL = 0x82F6_3B78
"""11EDC6F41 with its bits reflected (SDM 2A, CRC32)."""
LOGIC = ZF | SF | CF | OF
IMPLICIT = 2
"""EDX is a source of MULX."""


def popcnt(step: Step) -> None:
    value = step.rm(step.size)
    step.set_gpr(step.it.reg, step.size, value.bit_count())
    step.set_flags(ALL, 0 if value else ZF)


def tzcnt(step: Step) -> None:
    _count(step, lambda value, bits: (value & -value).bit_length() - 1 if value else bits)


def lzcnt(step: Step) -> None:
    _count(step, lambda value, bits: bits - value.bit_length())


def _count(step: Step, count: Callable[[int, int], int]) -> None:
    size = step.size
    value = step.rm(size)
    result = count(value, size * 8)
    step.set_gpr(step.it.reg, size, result)
    step.set_flags(CF | ZF, (0 if value else CF) | (0 if result else ZF))


# ---- BMI1 ------------------------------------------------------------------------------------------------------------


def andn(step: Step) -> None:
    size = step.size
    result = ~step.gpr(step.it.vvvv, size) & step.rm(size)
    step.set_gpr(step.it.reg, size, result)
    step.set_flags(LOGIC, of_result(result, size * 8))


def blsr(step: Step) -> None:
    _lowest(step, lambda value: value & (value - 1), carry_if_zero=True)


def blsmsk(step: Step) -> None:
    _lowest(step, lambda value: value ^ (value - 1), carry_if_zero=True)


def blsi(step: Step) -> None:
    _lowest(step, lambda value: value & -value, carry_if_zero=False)


def _lowest(step: Step, change: Callable[[int], int], carry_if_zero: bool) -> None:
    size = step.size
    value = step.rm(size)
    result = change(value) & MASKS[size]
    step.set_gpr(step.it.vvvv, size, result)
    step.set_flags(LOGIC, of_result(result, size * 8) | (CF if (value == 0) == carry_if_zero else 0))


def bextr(step: Step) -> None:
    size = step.size
    control = step.gpr(step.it.vvvv, size)
    result = step.rm(size) >> (control & 0xFF) & ((1 << (control >> 8 & 0xFF)) - 1)
    step.set_gpr(step.it.reg, size, result)
    step.set_flags(ZF | CF | OF, 0 if result else ZF)


# ---- BMI2 ------------------------------------------------------------------------------------------------------------


def bzhi(step: Step) -> None:
    size = step.size
    start = step.gpr(step.it.vvvv, 1)
    result = step.rm(size) & ((1 << start) - 1)
    step.set_gpr(step.it.reg, size, result)
    step.set_flags(LOGIC, of_result(result, size * 8) | (CF if start >= size * 8 else 0))


def mulx(step: Step) -> None:
    size = step.size
    product = step.rm(size) * step.gpr(IMPLICIT, size)
    step.set_gpr(step.it.vvvv, size, product & MASKS[size])
    step.set_gpr(step.it.reg, size, product >> size * 8)  # second: when both are one register the high half stays


def pdep(step: Step) -> None:
    value, mask = step.gpr(step.it.vvvv, step.size), step.rm(step.size)
    result = 0
    while mask:
        lowest = mask & -mask
        if value & 1:
            result |= lowest
        value >>= 1
        mask ^= lowest
    step.set_gpr(step.it.reg, step.size, result)


def pext(step: Step) -> None:
    value, mask = step.gpr(step.it.vvvv, step.size), step.rm(step.size)
    result, bit = 0, 1
    while mask:
        lowest = mask & -mask
        if value & lowest:
            result |= bit
        bit <<= 1
        mask ^= lowest
    step.set_gpr(step.it.reg, step.size, result)


def rorx(step: Step) -> None:
    bits = step.size * 8
    count, value = step.it.immediate & (bits - 1), step.rm(step.size)
    step.set_gpr(step.it.reg, step.size, (value >> count | value << (bits - count)) & MASKS[step.size])


def shlx(step: Step) -> None:
    _shift(step, lambda value, count, bits: value << count)


def shrx(step: Step) -> None:
    _shift(step, lambda value, count, bits: value >> count)


def sarx(step: Step) -> None:
    _shift(step, lambda value, count, bits: (value - (value >> (bits - 1) << bits)) >> count)


def _shift(step: Step, shift: Callable[[int, int, int], int]) -> None:
    size = step.size
    count = step.gpr(step.it.vvvv, size) & (size * 8 - 1)
    step.set_gpr(step.it.reg, size, shift(step.rm(size), count, size * 8) & MASKS[size])


# ---- ADX, MOVBE, CRC32 -----------------------------------------------------------------------------------------------


def adcx(step: Step) -> None:
    _add(step, CF)


def adox(step: Step) -> None:
    _add(step, OF)


def _add(step: Step, carry: int) -> None:
    size = QWORD if step.it.w else DWORD  # 66 is part of ADCX
    total = step.gpr(step.it.reg, size) + step.rm(size) + bool(step.context.gpr[RFLAGS] & carry)
    step.set_gpr(step.it.reg, size, total & MASKS[size])
    step.set_flags(carry, carry if total > MASKS[size] else 0)


def movbe_load(step: Step) -> None:
    step.set_gpr(step.it.reg, step.size, int.from_bytes(step.load(step.size), "big"))


def movbe_store(step: Step) -> None:
    step.store(step.gpr(step.it.reg, step.size).to_bytes(step.size, "big"))


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (CRC_POLYNOMIAL if byte & 1 else 0)
    return byte


CRC_TABLE = tuple(map(_crc_of, range(256)))


def crc32_byte(step: Step) -> None:
    _crc32(step, 1)


def crc32(step: Step) -> None:
    _crc32(step, step.size)


def _crc32(step: Step, size: int) -> None:
    remainder = step.gpr(step.it.reg, DWORD)
    for byte in step.rm(size).to_bytes(size, "little"):
        remainder = remainder >> 8 ^ CRC_TABLE[(remainder ^ byte) & 0xFF]
    step.set_gpr(step.it.reg, QWORD, remainder)


HANDLERS = {
    "F3 0F B8": popcnt,
    "F3 0F BC": tzcnt,
    "F3 0F BD": lzcnt,
    "np 0F38 F0": movbe_load,
    "66 0F38 F0": movbe_load,
    "np 0F38 F1": movbe_store,
    "66 0F38 F1": movbe_store,
    "F2 0F38 F0": crc32_byte,
    "F2 0F38 F1": crc32,
    "66 0F38 F6": adcx,
    "F3 0F38 F6": adox,
    "VEX np 0F38 F2": andn,
    "VEX np 0F38 F3 /1": blsr,
    "VEX np 0F38 F3 /2": blsmsk,
    "VEX np 0F38 F3 /3": blsi,
    "VEX np 0F38 F5": bzhi,
    "VEX F3 0F38 F5": pext,
    "VEX F2 0F38 F5": pdep,
    "VEX F2 0F38 F6": mulx,
    "VEX np 0F38 F7": bextr,
    "VEX 66 0F38 F7": shlx,
    "VEX F3 0F38 F7": sarx,
    "VEX F2 0F38 F7": shrx,
    "VEX F2 0F3A F0": rorx,
}
"""Handlers by encoding, as the manual writes it: read by `execute`."""
