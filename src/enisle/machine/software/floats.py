"""Binary floating point as SSE and AVX have it: exact arithmetic on integers, rounded once (SDM 1 chapters 4.8, 11.5).

A finite number is `mantissa * 2**exponent`. Inexact quotients and roots carry a sticky lowest bit, far below what is
kept. `Environment` is MXCSR: modes going in, exception flags coming out.
"""

from typing import NamedTuple

INVALID, DENORMAL, ZERO_DIVIDE, OVERFLOW, UNDERFLOW, PRECISION = 1, 2, 4, 8, 16, 32
DAZ, FTZ, UNDERFLOW_MASKED = 1 << 6, 1 << 15, 1 << 11
MASKS_SHIFT, ROUNDING_SHIFT = 7, 13
NEAREST, DOWN, UP, TRUNCATE = range(4)


class Format(NamedTuple):
    """A binary interchange format of IEEE 754."""

    size: int
    precision: int
    """Bits of the significand, with the hidden one."""
    bias: int

    @property
    def fraction_bits(self) -> int:
        return self.precision - 1

    @property
    def lowest(self) -> int:
        """The exponent of the smallest normal number."""
        return 1 - self.bias

    @property
    def special(self) -> int:
        """The biased exponent of infinities and NaNs."""
        return 2 * self.bias + 1

    @property
    def sign_bit(self) -> int:
        return 1 << self.size * 8 - 1

    @property
    def infinity(self) -> int:
        return self.special << self.fraction_bits

    @property
    def quiet_bit(self) -> int:
        return 1 << self.fraction_bits - 1

    @property
    def indefinite(self) -> int:
        """The QNaN that an invalid operation gives (SDM 1 table 4-3)."""
        return self.sign_bit | self.infinity | self.quiet_bit


HALF, SINGLE, DOUBLE = Format(2, 11, 15), Format(4, 24, 127), Format(8, 53, 1023)
FORMATS = {2: HALF, 4: SINGLE, 8: DOUBLE}


class Environment:
    """MXCSR during one instruction."""

    def __init__(self, control: int) -> None:
        self.control = control
        self.flags = 0
        self.rounding = control >> ROUNDING_SHIFT & 3
        self.daz = bool(control & DAZ)

    @property
    def unmasked(self) -> int:
        """Return the raised exceptions that are not masked."""
        return self.flags & ~(self.control >> MASKS_SHIFT)


class Number:
    """One operand, taken apart. `mantissa` is 0 for zeros, infinities and NaNs."""

    __slots__ = ("bits", "exponent", "format", "is_denormal", "is_infinite", "is_nan", "mantissa", "negative")

    def __init__(self, bits: int, format: Format, daz: bool) -> None:
        self.bits, self.format = bits, format
        self.negative = bits & format.sign_bit != 0
        biased = bits >> format.fraction_bits & format.special
        fraction = bits & (1 << format.fraction_bits) - 1
        special = biased == format.special
        self.is_nan, self.is_infinite = special and fraction != 0, special and fraction == 0
        self.is_denormal = biased == 0 and fraction != 0 and not daz
        if special or (biased == 0 and daz):
            self.mantissa = self.exponent = 0
            if biased == 0:
                self.bits = bits & format.sign_bit
        else:
            self.mantissa = fraction if biased == 0 else fraction | 1 << format.fraction_bits
            self.exponent = max(biased, 1) - format.bias - format.fraction_bits

    @property
    def is_signaling(self) -> bool:
        return self.is_nan and not self.bits & self.format.quiet_bit

    @property
    def is_zero(self) -> bool:
        return not (self.mantissa or self.is_nan or self.is_infinite)

    @property
    def quiet(self) -> int:
        return self.bits | self.format.quiet_bit

    @property
    def value(self) -> tuple[int, int]:
        """Return mantissa with its sign, and exponent."""
        return -self.mantissa if self.negative else self.mantissa, self.exponent


def take(bits: int, format: Format, environment: Environment) -> Number:
    return Number(bits, format, environment.daz)


def rounded(mantissa: int, drop: int, mode: int, negative: bool) -> tuple[int, bool]:
    """Return the mantissa without its `drop` lowest bits, rounded, and whether that was inexact."""
    if drop <= 0:
        return mantissa << -drop, False
    kept, lost = mantissa >> drop, mantissa & (1 << drop) - 1
    if not lost:
        return kept, False
    half = 1 << drop - 1
    if mode != NEAREST:
        return kept + (mode == (DOWN if negative else UP)), True
    return kept + (lost > half or (lost == half and kept & 1 == 1)), True


def pack(negative: bool, mantissa: int, exponent: int, format: Format, environment: Environment) -> int:
    """Return a finite number in a format; raises the flags of what is lost."""
    sign = format.sign_bit if negative else 0
    if not mantissa:
        return sign
    top = mantissa.bit_length() + exponent - 1
    quantum = max(top, format.lowest) - format.fraction_bits
    kept, inexact = rounded(mantissa, quantum - exponent, environment.rounding, negative)
    if kept >> format.precision:
        kept, quantum = kept >> 1, quantum + 1
    if top < format.lowest and _is_tiny(mantissa, exponent, top, negative, format, environment):
        masked = environment.control & UNDERFLOW_MASKED
        if masked and environment.control & FTZ:
            environment.flags |= UNDERFLOW | PRECISION
            return sign
        if inexact or not masked:
            environment.flags |= UNDERFLOW
    if kept.bit_length() == format.precision and quantum + format.fraction_bits > format.bias:
        environment.flags |= OVERFLOW | PRECISION
        to_infinity = environment.rounding in (NEAREST, DOWN if negative else UP)
        return sign | (format.infinity if to_infinity else format.infinity - 1)
    if inexact:
        environment.flags |= PRECISION
    if kept.bit_length() < format.precision:
        return sign | kept
    biased = quantum + format.fraction_bits + format.bias
    return sign | biased << format.fraction_bits | kept & (1 << format.fraction_bits) - 1


def _is_tiny(mantissa: int, exponent: int, top: int, negative: bool, format: Format, environment: Environment) -> bool:
    """Return whether the number would be below the normal ones, rounded as if exponents had no end (SDM 1 4.9.1.5)."""
    unbounded, _ = rounded(mantissa, top - format.fraction_bits - exponent, environment.rounding, negative)
    return top + (unbounded.bit_length() > format.precision) < format.lowest
