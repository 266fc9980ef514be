"""Vectors as elements: unpacking, packing, saturation, and handlers made of a function on elements."""

import struct
from collections.abc import Callable, Iterable
from functools import cache

from enisle.machine.software.context import LANE
from enisle.machine.software.operands import MASKS, Step

LETTERS = {1: "b", 2: "h", 4: "i", 8: "q"}
Handler = Callable[[Step], None]


@cache
def _format(width: int, size: int, signed: bool) -> struct.Struct:
    letter = LETTERS[size]
    return struct.Struct(f"<{width // size}{letter if signed else letter.upper()}")


def elements(value: bytes, size: int, signed: bool = False) -> tuple[int, ...]:
    """Return the elements of `size` bytes, the lowest first."""
    return _format(len(value), size, signed).unpack(value)


def pack(values: Iterable[int], size: int) -> bytes:
    """Return elements as a vector; bits beyond `size` bytes are dropped."""
    mask = MASKS[size]
    kept = [value & mask for value in values]
    return _format(len(kept) * size, size, False).pack(*kept)


def saturated(size: int, signed: bool) -> Callable[[int], int]:
    """Return what brings a number into the range of an element."""
    bits = size * 8
    low, high = (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return lambda value: low if value < low else high if value > high else value


def lanes_of(value: bytes) -> list[bytes]:
    return [value[at : at + LANE] for at in range(0, len(value), LANE)]


# ---- makers of handlers ----------------------------------------------------------------------------------------------


def whole(function: Callable[[bytes, bytes], bytes]) -> Handler:
    """Return a handler: destination = function(first source, second source)."""

    def handler(step: Step) -> None:
        step.set_vector(step.it.reg, function(step.first(), step.source(step.width)))

    return handler


def by_element(size: int, signed: bool, function: Callable[[int, int], int]) -> Handler:
    return whole(
        lambda first, second: pack(map(function, elements(first, size, signed), elements(second, size, signed)), size)
    )


def by_lane(function: Callable[[bytes, bytes], bytes]) -> Handler:
    """Return a handler that treats each 128 bits alone, as most of AVX2 does."""
    return whole(lambda first, second: b"".join(map(function, lanes_of(first), lanes_of(second))))


def unary(function: Callable[[bytes], bytes]) -> Handler:
    def handler(step: Step) -> None:
        step.set_vector(step.it.reg, function(step.source(step.width)))

    return handler


def with_immediate(function: Callable[[bytes, bytes, int], bytes]) -> Handler:
    """Return a handler of two sources and the immediate byte, 128 bits at a time."""

    def handler(step: Step) -> None:
        immediate = step.it.immediate & 0xFF
        pairs = zip(lanes_of(step.first()), lanes_of(step.source(step.width)), strict=True)
        step.set_vector(step.it.reg, b"".join(function(first, second, immediate) for first, second in pairs))

    return handler


def unary_with_immediate(function: Callable[[bytes, int], bytes]) -> Handler:
    def handler(step: Step) -> None:
        immediate = step.it.immediate & 0xFF
        step.set_vector(step.it.reg, b"".join(function(lane, immediate) for lane in lanes_of(step.source(step.width))))

    return handler
