"""AVX and AVX2 integer arithmetic in software: sums, products, comparisons, logic, shifts (SDM 2B, 2C)."""

from collections.abc import Callable

from enisle.machine.software.context import LANE
from enisle.machine.software.lanes import (
    Handler,
    by_element,
    by_lane,
    elements,
    lanes_of,
    pack,
    saturated,
    unary,
    whole,
    with_immediate,
)
from enisle.machine.software.operands import Step

SIZES = (1, 2, 4, 8)
U64 = 0xFFFF_FFFF_FFFF_FFFF


def _bitwise(function: Callable[[int, int], int]) -> Handler:
    def work(first: bytes, second: bytes) -> bytes:
        width = len(first)
        result = function(int.from_bytes(first, "little"), int.from_bytes(second, "little"))
        return result.to_bytes(width, "little")

    return whole(work)


def _saturating(size: int, signed: bool, function: Callable[[int, int], int]) -> Handler:
    limit = saturated(size, signed)
    return by_element(size, signed, lambda a, b: limit(function(a, b)))


def _sum(a: int, b: int) -> int:
    return a + b


def _difference(a: int, b: int) -> int:
    return a - b


def _absolute(size: int) -> Handler:
    return unary(lambda value: pack(map(abs, elements(value, size, True)), size))


def _with_sign(a: int, b: int) -> int:
    return -a if b < 0 else a if b else 0


# ---- products --------------------------------------------------------------------------------------------------------


def _even_products(signed: bool) -> Handler:
    """Return PMULUDQ or PMULDQ: every second doubleword, to quadwords."""
    return whole(
        lambda first, second: pack(
            (a * b for a, b in zip(elements(first, 4, signed)[::2], elements(second, 4, signed)[::2], strict=True)), 8
        )
    )


def _pair_sums(products: list[int], limit: Callable[[int], int]) -> list[int]:
    return [limit(low + high) for low, high in zip(products[::2], products[1::2], strict=True)]


def _madd_words(first: bytes, second: bytes) -> bytes:
    products = [a * b for a, b in zip(elements(first, 2, True), elements(second, 2, True), strict=True)]
    return pack(_pair_sums(products, lambda value: value), 4)


def _madd_bytes(first: bytes, second: bytes) -> bytes:
    products = [a * b for a, b in zip(elements(first, 1, False), elements(second, 1, True), strict=True)]
    return pack(_pair_sums(products, saturated(2, True)), 2)


def _sum_of_differences(first: bytes, second: bytes) -> bytes:
    differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
    return pack((sum(differences[at : at + 8]) for at in range(0, len(differences), 8)), 8)


def _offset_sums(first: bytes, second: bytes, immediate: int) -> bytes:
    """Return the sums of one quadruple of the second source against eight of the first, for one lane (MPSADBW)."""
    start, block = 4 * (immediate >> 2 & 1), second[4 * (immediate & 3) :][:4]
    windows = (first[start + index : start + index + 4] for index in range(8))
    return pack((sum(abs(a - b) for a, b in zip(window, block, strict=True)) for window in windows), 2)


def _multiple_sums(step: Step) -> None:
    """VMPSADBW: bits 0-2 of the immediate for the lower lane, bits 3-5 for the upper."""
    pairs = zip(lanes_of(step.first()), lanes_of(step.source(step.width)), strict=True)
    parts = (_offset_sums(a, b, step.it.immediate >> 3 * lane) for lane, (a, b) in enumerate(pairs))
    step.set_vector(step.it.reg, b"".join(parts))


def _horizontal(size: int, function: Callable[[int, int], int], limit: Callable[[int], int]) -> Handler:
    def work(first: bytes, second: bytes) -> bytes:
        values = elements(first, size, True) + elements(second, size, True)
        return pack((limit(function(a, b)) for a, b in zip(values[::2], values[1::2], strict=True)), size)

    return by_lane(work)


def _least_word(value: bytes) -> bytes:
    words = elements(value, 2)
    least = min(words)
    return pack((least, words.index(least), 0, 0, 0, 0, 0, 0), 2)


# ---- shifts ----------------------------------------------------------------------------------------------------------


def _left(value: int, count: int, bits: int) -> int:
    return value << count if count < bits else 0


def _right(value: int, count: int, bits: int) -> int:
    return value >> count if count < bits else 0


def _right_signed(value: int, count: int, bits: int) -> int:
    return value >> min(count, bits - 1)


Shift = Callable[[int, int, int], int]


def _shift_all(value: bytes, size: int, shift: Shift, count: int) -> bytes:
    return pack((shift(item, count, size * 8) for item in elements(value, size, shift is _right_signed)), size)


def _by_immediate(size: int, shift: Shift) -> Handler:
    def handler(step: Step) -> None:
        count = step.it.immediate & 0xFF
        step.set_vector(step.it.vvvv, _shift_all(step.vector(step.it.rm, step.width), size, shift, count))

    return handler


def _by_count(size: int, shift: Shift) -> Handler:
    """Return a shift of all elements by the low quadword of a 128-bit source."""

    def handler(step: Step) -> None:
        count = int.from_bytes(step.source(LANE)[:8], "little")
        step.set_vector(step.it.reg, _shift_all(step.first(), size, shift, count))

    return handler


def _by_elements(shift: Shift) -> Handler:
    def handler(step: Step) -> None:
        size = 8 if step.it.w else 4
        values = elements(step.first(), size, shift is _right_signed)
        counts = elements(step.source(step.width), size)
        result = (shift(value, count, size * 8) for value, count in zip(values, counts, strict=True))
        step.set_vector(step.it.reg, pack(result, size))

    return handler


def _bytes_by_immediate(left: bool) -> Handler:
    def handler(step: Step) -> None:
        count = min(step.it.immediate & 0xFF, LANE)
        value = step.vector(step.it.rm, step.width)
        lanes = (value[at : at + LANE] for at in range(0, len(value), LANE))
        zeros = bytes(count)
        moved = [zeros + lane[: LANE - count] if left else lane[count:] + zeros for lane in lanes]
        step.set_vector(step.it.vvvv, b"".join(moved))

    return handler


def _align(first: bytes, second: bytes, count: int) -> bytes:
    return (second + first + bytes(LANE))[count : count + LANE].ljust(LANE, b"\0")


def _by_size(codes: str, make: Callable[[int], Handler], sizes: tuple[int, ...] = SIZES) -> dict[str, Handler]:
    """Return the handlers of an operation that comes with several sizes of elements."""
    return {f"VEX 66 {code}": make(size) for code, size in zip(codes.split(", "), sizes, strict=False)}


HANDLERS: dict[str, Handler] = {
    **_by_size("0F FC, 0F FD, 0F FE, 0F D4", lambda size: by_element(size, False, _sum)),
    **_by_size("0F F8, 0F F9, 0F FA, 0F FB", lambda size: by_element(size, False, _difference)),
    "VEX 66 0F EC": _saturating(1, True, _sum),
    "VEX 66 0F ED": _saturating(2, True, _sum),
    "VEX 66 0F DC": _saturating(1, False, _sum),
    "VEX 66 0F DD": _saturating(2, False, _sum),
    "VEX 66 0F E8": _saturating(1, True, _difference),
    "VEX 66 0F E9": _saturating(2, True, _difference),
    "VEX 66 0F D8": _saturating(1, False, _difference),
    "VEX 66 0F D9": _saturating(2, False, _difference),
    **{f"VEX {code}": _bitwise(lambda a, b: a & b) for code in ("66 0F DB", "np 0F 54", "66 0F 54")},
    **{f"VEX {code}": _bitwise(lambda a, b: ~a & b) for code in ("66 0F DF", "np 0F 55", "66 0F 55")},
    **{f"VEX {code}": _bitwise(lambda a, b: a | b) for code in ("66 0F EB", "np 0F 56", "66 0F 56")},
    **{f"VEX {code}": _bitwise(lambda a, b: a ^ b) for code in ("66 0F EF", "np 0F 57", "66 0F 57")},
    **_by_size("0F 74, 0F 75, 0F 76, 0F38 29", lambda size: by_element(size, False, lambda a, b: -(a == b))),
    **_by_size("0F 64, 0F 65, 0F 66, 0F38 37", lambda size: by_element(size, True, lambda a, b: -(a > b))),
    **_by_size("0F DA, 0F38 3A, 0F38 3B", lambda size: by_element(size, False, min)),
    **_by_size("0F38 38, 0F EA, 0F38 39", lambda size: by_element(size, True, min)),
    **_by_size("0F DE, 0F38 3E, 0F38 3F", lambda size: by_element(size, False, max)),
    **_by_size("0F38 3C, 0F EE, 0F38 3D", lambda size: by_element(size, True, max)),
    **_by_size("0F38 1C, 0F38 1D, 0F38 1E", lambda size: _absolute(size)),
    **_by_size("0F38 08, 0F38 09, 0F38 0A", lambda size: by_element(size, True, _with_sign)),
    "VEX 66 0F E0": by_element(1, False, lambda a, b: a + b + 1 >> 1),
    "VEX 66 0F E3": by_element(2, False, lambda a, b: a + b + 1 >> 1),
    "VEX 66 0F D5": by_element(2, True, lambda a, b: a * b),
    "VEX 66 0F E5": by_element(2, True, lambda a, b: a * b >> 16),
    "VEX 66 0F E4": by_element(2, False, lambda a, b: a * b >> 16),
    "VEX 66 0F38 40": by_element(4, True, lambda a, b: a * b),
    "VEX 66 0F38 0B": by_element(2, True, lambda a, b: (a * b >> 14) + 1 >> 1),
    "VEX 66 0F F4": _even_products(False),
    "VEX 66 0F38 28": _even_products(True),
    "VEX 66 0F F5": whole(_madd_words),
    "VEX 66 0F38 04": whole(_madd_bytes),
    "VEX 66 0F F6": whole(_sum_of_differences),
    "VEX 66 0F3A 42": _multiple_sums,
    "VEX 66 0F38 01": _horizontal(2, _sum, lambda value: value),
    "VEX 66 0F38 02": _horizontal(4, _sum, lambda value: value),
    "VEX 66 0F38 03": _horizontal(2, _sum, saturated(2, True)),
    "VEX 66 0F38 05": _horizontal(2, _difference, lambda value: value),
    "VEX 66 0F38 06": _horizontal(4, _difference, lambda value: value),
    "VEX 66 0F38 07": _horizontal(2, _difference, saturated(2, True)),
    "VEX 66 0F38 41": unary(_least_word),
    **_by_size("0F 71 /2, 0F 72 /2, 0F 73 /2", lambda size: _by_immediate(size, _right), SIZES[1:]),
    **_by_size("0F 71 /4, 0F 72 /4", lambda size: _by_immediate(size, _right_signed), SIZES[1:]),
    **_by_size("0F 71 /6, 0F 72 /6, 0F 73 /6", lambda size: _by_immediate(size, _left), SIZES[1:]),
    "VEX 66 0F 73 /3": _bytes_by_immediate(left=False),
    "VEX 66 0F 73 /7": _bytes_by_immediate(left=True),
    **_by_size("0F D1, 0F D2, 0F D3", lambda size: _by_count(size, _right), SIZES[1:]),
    **_by_size("0F E1, 0F E2", lambda size: _by_count(size, _right_signed), SIZES[1:]),
    **_by_size("0F F1, 0F F2, 0F F3", lambda size: _by_count(size, _left), SIZES[1:]),
    "VEX 66 0F38 45": _by_elements(_right),
    "VEX 66 0F38 46": _by_elements(_right_signed),
    "VEX 66 0F38 47": _by_elements(_left),
    "VEX 66 0F3A 0F": with_immediate(_align),
}
