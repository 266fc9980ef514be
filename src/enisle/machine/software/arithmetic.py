"""Operations on floating-point numbers as SSE and AVX do them: results, special cases, flags (SDM 1 4.8, 11.5)."""

from math import isqrt

from enisle.machine.software.floats import (
    DENORMAL,
    DOWN,
    INVALID,
    PRECISION,
    ZERO_DIVIDE,
    Environment,
    Format,
    Number,
    pack,
    rounded,
)

SPARE = 4
"""Bits kept below a rounded quotient or root."""


def nan_of(operands: tuple[Number, ...], environment: Environment) -> int | None:
    """Return the result when an operand is a NaN, else None; the first one is taken (SDM 1 table 4-7)."""
    if not any(operand.is_nan for operand in operands):
        return None
    if any(operand.is_signaling for operand in operands):
        environment.flags |= INVALID
    return next(operand.quiet for operand in operands if operand.is_nan)


def invalid(format: Format, environment: Environment) -> int:
    environment.flags |= INVALID
    return format.indefinite


def note_denormals(operands: tuple[Number, ...], environment: Environment) -> None:
    if any(operand.is_denormal for operand in operands):
        environment.flags |= DENORMAL


def add(a: Number, b: Number, environment: Environment) -> int:
    format = a.format
    found = nan_of((a, b), environment)
    if found is not None:
        return found
    if a.is_infinite or b.is_infinite:
        if a.is_infinite and b.is_infinite and a.negative != b.negative:
            return invalid(format, environment)
        note_denormals((a, b), environment)
        return a.bits if a.is_infinite else b.bits
    note_denormals((a, b), environment)
    return sum_of(a.value, b.value, (a.negative, b.negative), format, environment)


def sum_of(
    a: tuple[int, int], b: tuple[int, int], signs: tuple[bool, bool], format: Format, environment: Environment
) -> int:
    """Return the rounded sum of two exact numbers; the sign of a zero is theirs, or the rounding mode's."""
    low = min(a[1], b[1])
    if not a[0]:
        low = b[1]
    elif not b[0]:
        low = a[1]
    total = sum(mantissa << exponent - low for mantissa, exponent in (a, b) if mantissa)
    if total:
        return pack(total < 0, abs(total), low, format, environment)
    negative = signs[0] if signs[0] == signs[1] else environment.rounding == DOWN
    return format.sign_bit if negative else 0


def negated(a: Number) -> Number:
    """Return the number with the other sign; a NaN stays as it is."""
    return a if a.is_nan else Number(a.bits ^ a.format.sign_bit, a.format, False)


def subtract(a: Number, b: Number, environment: Environment) -> int:
    return add(a, negated(b), environment)


def multiply(a: Number, b: Number, environment: Environment) -> int:
    found = nan_of((a, b), environment)
    if found is not None:
        return found
    negative, format = a.negative != b.negative, a.format
    if a.is_infinite or b.is_infinite:
        if a.is_zero or b.is_zero:
            return invalid(format, environment)
        note_denormals((a, b), environment)
        return format.infinity | (format.sign_bit if negative else 0)
    note_denormals((a, b), environment)
    return pack(negative, a.mantissa * b.mantissa, a.exponent + b.exponent, format, environment)


def divide(a: Number, b: Number, environment: Environment) -> int:
    found = nan_of((a, b), environment)
    if found is not None:
        return found
    negative, format = a.negative != b.negative, a.format
    sign = format.sign_bit if negative else 0
    if (a.is_infinite and b.is_infinite) or (a.is_zero and b.is_zero):
        return invalid(format, environment)
    if b.is_zero and not a.is_infinite:
        environment.flags |= ZERO_DIVIDE
        return sign | format.infinity
    note_denormals((a, b), environment)
    if a.is_infinite:
        return sign | format.infinity
    if b.is_infinite or a.is_zero:
        return sign
    shift = max(format.precision + SPARE + b.mantissa.bit_length() - a.mantissa.bit_length(), 0)
    quotient, rest = divmod(a.mantissa << shift, b.mantissa)
    return pack(negative, quotient << 1 | (rest != 0), a.exponent - b.exponent - shift - 1, format, environment)


def square_root(a: Number, environment: Environment) -> int:
    found = nan_of((a,), environment)
    if found is not None:
        return found
    if a.is_zero:
        return a.bits
    if a.negative:
        return invalid(a.format, environment)
    note_denormals((a,), environment)
    if a.is_infinite:
        return a.bits
    shift = 2 * (a.format.precision + SPARE)
    shift += (a.exponent - shift) & 1
    scaled = a.mantissa << shift
    root = isqrt(scaled)
    return pack(False, root << 1 | (root * root != scaled), (a.exponent - shift) // 2 - 1, a.format, environment)


def multiply_add(a: Number, b: Number, c: Number, negate: bool, environment: Environment) -> int:
    """Return a * b + c, the product's sign changed by `negate`, rounded once."""
    format = a.format
    found = nan_of((a, b, c), environment)
    mixed = (a.is_infinite and b.is_zero) or (a.is_zero and b.is_infinite)
    if found is not None:
        return found
    if mixed:
        return invalid(format, environment)
    negative = (a.negative != b.negative) != negate
    if a.is_infinite or b.is_infinite:
        if c.is_infinite and c.negative != negative:
            return invalid(format, environment)
        note_denormals((a, b, c), environment)
        return format.infinity | (format.sign_bit if negative else 0)
    note_denormals((a, b, c), environment)
    if c.is_infinite:
        return c.bits
    product = a.mantissa * b.mantissa
    exact = (-product if negative else product, a.exponent + b.exponent)
    return sum_of(exact, c.value, (negative, c.negative), format, environment)


def least(a: Number, b: Number, environment: Environment) -> int:
    return _extreme(a, b, environment, smaller=True)


def greatest(a: Number, b: Number, environment: Environment) -> int:
    return _extreme(a, b, environment, smaller=False)


def _extreme(a: Number, b: Number, environment: Environment, smaller: bool) -> int:
    """Return MIN or MAX: the second operand where there is a NaN, or both are zeros (SDM 2B, MINPD)."""
    if a.is_nan or b.is_nan:
        environment.flags |= INVALID
        return b.bits
    note_denormals((a, b), environment)
    order = compare(a, b)
    return a.bits if order == (-1 if smaller else 1) else b.bits


def compare(a: Number, b: Number) -> int:
    """Return -1, 0 or 1 of two numbers that are no NaN."""
    if a.is_infinite or b.is_infinite:
        first = (0 if not a.is_infinite else -1 if a.negative else 1) - (
            0 if not b.is_infinite else -1 if b.negative else 1
        )
        return (first > 0) - (first < 0)
    (x, p), (y, q) = a.value, b.value
    low = min(p, q)
    x, y = x << p - low, y << q - low
    return (x > y) - (x < y)


# ---- conversions -----------------------------------------------------------------------------------------------------


def convert(a: Number, format: Format, environment: Environment) -> int:
    """Return a number in another format; a NaN keeps the upper bits of its payload."""
    sign = format.sign_bit if a.negative else 0
    if a.is_nan:
        if a.is_signaling:
            environment.flags |= INVALID
        shift = format.fraction_bits - a.format.fraction_bits
        payload = a.bits & (1 << a.format.fraction_bits) - 1
        payload = payload << shift if shift >= 0 else payload >> -shift
        return sign | format.infinity | format.quiet_bit | payload
    if a.is_infinite:
        return sign | format.infinity
    note_denormals((a,), environment)
    return pack(a.negative, a.mantissa, a.exponent, format, environment)


def to_integer(a: Number, size: int, mode: int, environment: Environment) -> int:
    """Return a signed integer of `size` bytes, the most negative one for what does not fit (SDM 1 11.5.2.1)."""
    bits = size * 8
    if not (a.is_nan or a.is_infinite):
        whole, inexact = rounded(a.mantissa, -a.exponent, mode, a.negative)
        whole = -whole if a.negative else whole
        if -1 << bits - 1 <= whole < 1 << bits - 1:
            environment.flags |= PRECISION if inexact else 0
            return whole
    environment.flags |= INVALID
    return -1 << bits - 1


def from_integer(value: int, format: Format, environment: Environment) -> int:
    return pack(value < 0, abs(value), 0, format, environment)


def to_integral(a: Number, mode: int, quiet: bool, environment: Environment) -> int:
    """Return ROUNDPS and its like: an integer as a floating-point number; `quiet`: without the precision flag."""
    found = nan_of((a,), environment)
    if found is not None:
        return found
    if a.is_infinite or a.exponent >= 0:
        return a.bits
    whole, inexact = rounded(a.mantissa, -a.exponent, mode, a.negative)
    if inexact and not quiet:
        environment.flags |= PRECISION
    return pack(a.negative, whole, 0, a.format, environment)
