"""AVX and AVX2 instructions that rearrange elements, in software: packs, shuffles, permutations, blends (SDM 2)."""

from enisle.machine.software.context import LANE
from enisle.machine.software.flags import AF, ALL, CF, OF, PF, SF, ZF
from enisle.machine.software.lanes import (
    Handler,
    by_lane,
    elements,
    lanes_of,
    pack,
    saturated,
    unary,
    unary_with_immediate,
    with_immediate,
)
from enisle.machine.software.operands import Step


def _pack_saturated(size: int, signed: bool) -> Handler:
    """Return a pack of signed elements of `size` bytes into halves of them."""
    limit = saturated(size // 2, signed)
    return by_lane(
        lambda first, second: pack(map(limit, elements(first, size, True) + elements(second, size, True)), size // 2)
    )


def _interleave(size: int, high: bool) -> Handler:
    def work(first: bytes, second: bytes) -> bytes:
        half = slice(LANE // 2, None) if high else slice(0, LANE // 2)
        a, b = elements(first[half], size), elements(second[half], size)
        return pack((item for pair in zip(a, b, strict=True) for item in pair), size)

    return by_lane(work)


def _shuffle_bytes(value: bytes, control: bytes) -> bytes:
    return bytes(0 if choice & 0x80 else value[choice & 15] for choice in control)


def _chosen(immediate: int, bits: int, count: int) -> list[int]:
    return [immediate >> bits * index & (1 << bits) - 1 for index in range(count)]


def _shuffle_doublewords(value: bytes, immediate: int) -> bytes:
    words = elements(value, 4)
    return pack((words[choice] for choice in _chosen(immediate, 2, 4)), 4)


def _shuffle_low_words(value: bytes, immediate: int) -> bytes:
    words = elements(value[:8], 2)
    return pack((words[choice] for choice in _chosen(immediate, 2, 4)), 2) + value[8:]


def _shuffle_high_words(value: bytes, immediate: int) -> bytes:
    return value[:8] + _shuffle_low_words(value[8:], immediate)


def _shuffle_singles(first: bytes, second: bytes, immediate: int) -> bytes:
    a, b = elements(first, 4), elements(second, 4)
    choices = _chosen(immediate, 2, 4)
    return pack((a[choices[0]], a[choices[1]], b[choices[2]], b[choices[3]]), 4)


def _select_by_bits(step: Step, size: int) -> None:
    """Blend by the bits of the immediate, which repeat when there are more elements than bits."""
    pairs = zip(elements(step.first(), size), elements(step.source(step.width), size), strict=True)
    immediate = step.it.immediate & 0xFF
    step.set_vector(step.it.reg, pack((b if immediate >> i % 8 & 1 else a for i, (a, b) in enumerate(pairs)), size))


def _blend_by_bits(size: int) -> Handler:
    return lambda step: _select_by_bits(step, size)


def _blend_by_mask(size: int) -> Handler:
    """Return a blend by the sign bits of the register that the immediate's upper half names (SDM 2A, /is4)."""

    def handler(step: Step) -> None:
        width = step.width
        masks = elements(step.vector(step.it.immediate >> 4 & 15, width), size, True)
        pairs = zip(elements(step.first(), size), elements(step.source(width), size), strict=True)
        step.set_vector(step.it.reg, pack((b if m < 0 else a for m, (a, b) in zip(masks, pairs, strict=True)), size))

    return handler


# ---- across lanes ----------------------------------------------------------------------------------------------------


def _permute_quadwords(step: Step) -> None:
    words = elements(step.source(step.width), 8)
    step.set_vector(step.it.reg, pack((words[choice] for choice in _chosen(step.it.immediate, 2, 4)), 8))


def _permute_doublewords(step: Step) -> None:
    choices, words = elements(step.first(), 4), elements(step.source(step.width), 4)
    step.set_vector(step.it.reg, pack((words[choice & 7] for choice in choices), 4))


def _permute_lanes(step: Step) -> None:
    lanes = lanes_of(step.first()) + lanes_of(step.source(step.width))
    immediate = step.it.immediate
    choices = (immediate & 15, immediate >> 4 & 15)
    step.set_vector(step.it.reg, b"".join(bytes(LANE) if choice & 8 else lanes[choice & 3] for choice in choices))


def _insert_lane(step: Step) -> None:
    lanes = lanes_of(step.first())
    lanes[step.it.immediate & 1] = step.source(LANE)
    step.set_vector(step.it.reg, b"".join(lanes))


def _extract_lane(step: Step) -> None:
    step.set_target(lanes_of(step.vector(step.it.reg, 32))[step.it.immediate & 1])


def _permute_in_lane(size: int) -> Handler:
    """Return VPERMILPS or VPERMILPD with a vector of choices."""
    shift = size.bit_length() - 3  # doublewords by bits 0-1, quadwords by bit 1

    def work(value: bytes, control: bytes) -> bytes:
        items = elements(value, size)
        return pack((items[choice >> shift & len(items) - 1] for choice in elements(control, size)), size)

    return by_lane(work)


def _permute_doubles(step: Step) -> None:
    """VPERMILPD with an immediate: one bit an element."""
    items = elements(step.source(step.width), 8)
    immediate = step.it.immediate
    step.set_vector(step.it.reg, pack((items[i & ~1 | (immediate >> i & 1)] for i in range(len(items))), 8))


def _shuffle_doubles(step: Step) -> None:
    a, b = elements(step.first(), 8), elements(step.source(step.width), 8)
    immediate = step.it.immediate
    chosen = [(b if i & 1 else a)[i & ~1 | (immediate >> i & 1)] for i in range(len(a))]
    step.set_vector(step.it.reg, pack(chosen, 8))


def _repeat(size: int, from_odd: bool) -> Handler:
    """Return VMOVSLDUP, VMOVSHDUP: every second element, twice."""
    return unary(
        lambda value: pack((item for item in elements(value, size)[int(from_odd) :: 2] for _ in range(2)), size)
    )


def _repeat_doubles(step: Step) -> None:
    value = step.source(8).ljust(LANE, b"\0") if not step.it.l else step.source(32)
    step.set_vector(step.it.reg, b"".join(lane[:8] * 2 for lane in lanes_of(value)))


# ---- masks and tests -------------------------------------------------------------------------------------------------


def _move_mask(size: int) -> Handler:
    def handler(step: Step) -> None:
        signs = elements(step.vector(step.it.rm, step.width), size, True)
        step.set_gpr(step.it.reg, 8, sum(1 << index for index, item in enumerate(signs) if item < 0))

    return handler


def _test(pattern: int | None) -> Handler:
    """Return VPTEST, or VTESTPS and VTESTPD, which look at the sign bits alone."""

    def handler(step: Step) -> None:
        width = step.width
        first = int.from_bytes(step.vector(step.it.reg, width), "little")
        second = int.from_bytes(step.source(width), "little")
        mask = -1 if pattern is None else int.from_bytes(pattern.to_bytes(8, "little") * (width // 8), "little")
        both, only = first & second & mask, ~first & second & mask
        step.set_flags(ALL, (0 if both else ZF) | (0 if only else CF))

    return handler


assert ALL == CF | PF | AF | ZF | SF | OF  # VPTEST clears what it does not set

HANDLERS: dict[str, Handler] = {
    "VEX 66 0F 63": _pack_saturated(2, True),
    "VEX 66 0F 67": _pack_saturated(2, False),
    "VEX 66 0F 6B": _pack_saturated(4, True),
    "VEX 66 0F38 2B": _pack_saturated(4, False),
    **{f"VEX 66 0F {code}": _interleave(size, False) for size, code in ((1, "60"), (2, "61"), (4, "62"), (8, "6C"))},
    **{f"VEX 66 0F {code}": _interleave(size, True) for size, code in ((1, "68"), (2, "69"), (4, "6A"), (8, "6D"))},
    "VEX np 0F 14": _interleave(4, False),
    "VEX 66 0F 14": _interleave(8, False),
    "VEX np 0F 15": _interleave(4, True),
    "VEX 66 0F 15": _interleave(8, True),
    "VEX 66 0F38 00": by_lane(_shuffle_bytes),
    "VEX 66 0F 70": unary_with_immediate(_shuffle_doublewords),
    "VEX F3 0F 70": unary_with_immediate(_shuffle_high_words),
    "VEX F2 0F 70": unary_with_immediate(_shuffle_low_words),
    "VEX np 0F C6": with_immediate(_shuffle_singles),
    "VEX 66 0F C6": _shuffle_doubles,
    "VEX 66 0F3A 0E": _blend_by_bits(2),
    "VEX 66 0F3A 02": _blend_by_bits(4),
    "VEX 66 0F3A 0C": _blend_by_bits(4),
    "VEX 66 0F3A 0D": _blend_by_bits(8),
    "VEX 66 0F3A 4C": _blend_by_mask(1),
    "VEX 66 0F3A 4A": _blend_by_mask(4),
    "VEX 66 0F3A 4B": _blend_by_mask(8),
    "VEX 66 0F3A 00": _permute_quadwords,
    "VEX 66 0F3A 01": _permute_quadwords,
    "VEX 66 0F38 36": _permute_doublewords,
    "VEX 66 0F38 16": _permute_doublewords,
    "VEX 66 0F3A 06": _permute_lanes,
    "VEX 66 0F3A 46": _permute_lanes,
    "VEX 66 0F3A 18": _insert_lane,
    "VEX 66 0F3A 38": _insert_lane,
    "VEX 66 0F3A 19": _extract_lane,
    "VEX 66 0F3A 39": _extract_lane,
    "VEX 66 0F38 0C": _permute_in_lane(4),
    "VEX 66 0F38 0D": _permute_in_lane(8),
    "VEX 66 0F3A 04": unary_with_immediate(_shuffle_doublewords),
    "VEX 66 0F3A 05": _permute_doubles,
    "VEX F3 0F 12": _repeat(4, from_odd=False),
    "VEX F3 0F 16": _repeat(4, from_odd=True),
    "VEX F2 0F 12": _repeat_doubles,
    "VEX 66 0F D7": _move_mask(1),
    "VEX np 0F 50": _move_mask(4),
    "VEX 66 0F 50": _move_mask(8),
    "VEX 66 0F38 17": _test(None),
    "VEX 66 0F38 0E": _test(0x8000_0000_8000_0000),
    "VEX 66 0F38 0F": _test(0x8000_0000_0000_0000),
}
