"""Cryptographic instructions in software: AES-NI and PCLMULQDQ (legacy and VEX.128), SHA (SDM 2, FIPS 197).

Not hardened against timing: tables are indexed by secrets, as in every software AES of its kind.
"""

import struct
from collections.abc import Callable

from enisle.machine.software.context import LANE
from enisle.machine.software.operands import Step

REDUCTION = 0x11B
"""The field of AES: x^8 + x^4 + x^3 + x + 1."""
U32 = 0xFFFF_FFFF


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (REDUCTION if a & 0x80 else 0)
        b >>= 1
    return product


def _substitution() -> bytes:
    """Return the S-box: the inverse in the field, then an affine map (FIPS 197 5.1.1)."""
    box = bytearray(256)
    for value in range(256):
        inverse = value
        for _ in range(6):  # value^254 = value^-1
            inverse = _times(_times(inverse, inverse), value)
        inverse = _times(inverse, inverse)
        twice = inverse << 8 | inverse
        box[value] = (twice ^ twice >> 4 ^ twice >> 5 ^ twice >> 6 ^ twice >> 7) & 0xFF ^ 0x63
    return bytes(box)


SUBSTITUTE = _substitution()
RESTORE = bytes(SUBSTITUTE.index(value) for value in range(256))
MULTIPLY = {factor: bytes(_times(value, factor) for value in range(256)) for factor in (2, 3, 9, 11, 13, 14)}
SHIFT_ROWS = tuple((index + 4 * (index % 4)) % LANE for index in range(LANE))
SHIFT_ROWS_BACK = tuple((index - 4 * (index % 4)) % LANE for index in range(LANE))
ROTATE_COLUMN = tuple(tuple(index & ~3 | (index + by) & 3 for index in range(LANE)) for by in range(4))


def _permute(value: bytes, order: tuple[int, ...]) -> bytes:
    return bytes([value[index] for index in order])


def _xor(*values: bytes) -> bytes:
    result = 0
    for value in values:
        result ^= int.from_bytes(value, "little")
    return result.to_bytes(LANE, "little")


def _mix(state: bytes, factors: tuple[int, ...]) -> bytes:
    """Multiply the columns by the matrix whose first row is `factors` (FIPS 197 5.1.3)."""
    parts = (
        _permute(state if factor == 1 else state.translate(MULTIPLY[factor]), order)
        for factor, order in zip(factors, ROTATE_COLUMN, strict=True)
    )
    return _xor(*parts)


MIX, MIX_BACK = (2, 3, 1, 1), (14, 11, 13, 9)


def _round(step: Step, work: Callable[[bytes], bytes]) -> None:
    step.set_vector(step.it.reg, _xor(work(step.first()), step.source(LANE)))


def _sub_shift(state: bytes) -> bytes:
    return _permute(state.translate(SUBSTITUTE), SHIFT_ROWS)


def _sub_shift_back(state: bytes) -> bytes:
    return _permute(state.translate(RESTORE), SHIFT_ROWS_BACK)


def aesenc(step: Step) -> None:
    _round(step, lambda state: _mix(_sub_shift(state), MIX))


def aesenclast(step: Step) -> None:
    _round(step, _sub_shift)


def aesdec(step: Step) -> None:
    _round(step, lambda state: _mix(_sub_shift_back(state), MIX_BACK))


def aesdeclast(step: Step) -> None:
    _round(step, _sub_shift_back)


def aesimc(step: Step) -> None:
    step.set_vector(step.it.reg, _mix(step.source(LANE), MIX_BACK))


def aeskeygenassist(step: Step) -> None:
    words = struct.unpack("<4I", step.source(LANE).translate(SUBSTITUTE))
    constant = step.it.immediate & 0xFF
    turned = [(word >> 8 | word << 24) & U32 ^ constant for word in words]
    step.set_vector(step.it.reg, struct.pack("<4I", words[1], turned[1], words[3], turned[3]))


def pclmulqdq(step: Step) -> None:
    selector = step.it.immediate
    first, second = struct.unpack("<2Q", step.first())[selector & 1], step.source(LANE)
    factor = struct.unpack("<2Q", second)[selector >> 4 & 1]
    product = 0
    while factor:
        lowest = factor & -factor
        product ^= first * lowest
        factor ^= lowest
    step.set_vector(step.it.reg, product.to_bytes(LANE, "little"))


# ---- SHA: SDM 1 chapter 12, the pseudo-code of SDM 2B ----------------------------------------------------------------


def _rotate_left(value: int, count: int) -> int:
    return (value << count | value >> (32 - count)) & U32


def _rotate_right(value: int, count: int) -> int:
    return (value >> count | value << (32 - count)) & U32


def _sigma(value: int, first: int, second: int, shift: int) -> int:
    return _rotate_right(value, first) ^ _rotate_right(value, second) ^ value >> shift


def _words(step: Step) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return struct.unpack("<4I", step.first()), struct.unpack("<4I", step.source(LANE))


def _set_words(step: Step, *words: int) -> None:
    """Write the destination, lowest word first."""
    step.set_vector(step.it.reg, struct.pack("<4I", *(word & U32 for word in words)))


SHA1_CONSTANTS = (0x5A82_7999, 0x6ED9_EBA1, 0x8F1B_BCDC, 0xCA62_C1D6)


def _choose(b: int, c: int, d: int) -> int:
    return b & c ^ ~b & d


def _parity(b: int, c: int, d: int) -> int:
    return b ^ c ^ d


def _majority(b: int, c: int, d: int) -> int:
    return b & c ^ b & d ^ c & d


SHA1_FUNCTIONS = (_choose, _parity, _majority, _parity)


def sha1rnds4(step: Step) -> None:
    (d, c, b, a), (w3, w2, w1, w0) = _words(step)
    kind = step.it.immediate & 3
    mix, constant = SHA1_FUNCTIONS[kind], SHA1_CONSTANTS[kind]
    e = 0
    for word in (w0, w1, w2, w3):  # W0 comes with E added in
        a, b, c, d, e = (mix(b, c, d) + _rotate_left(a, 5) + word + e + constant) & U32, a, _rotate_left(b, 30), c, d
    _set_words(step, d, c, b, a)


def sha1nexte(step: Step) -> None:
    target, source = _words(step)
    _set_words(step, *source[:3], source[3] + _rotate_left(target[3], 30))


def sha1msg1(step: Step) -> None:
    (w3, w2, w1, w0), (_, _, w5, w4) = _words(step)
    _set_words(step, w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0)


def sha1msg2(step: Step) -> None:
    target, (w15, w14, w13, _) = _words(step)
    w16 = _rotate_left(target[3] ^ w13, 1)
    w17, w18 = _rotate_left(target[2] ^ w14, 1), _rotate_left(target[1] ^ w15, 1)
    _set_words(step, _rotate_left(target[0] ^ w16, 1), w18, w17, w16)


def sha256rnds2(step: Step) -> None:
    (h, g, d, c), (f, e, b, a) = _words(step)
    for word in struct.unpack("<2I", step.vector(0, 8)):  # XMM0
        big0 = _rotate_right(a, 2) ^ _rotate_right(a, 13) ^ _rotate_right(a, 22)
        big1 = _rotate_right(e, 6) ^ _rotate_right(e, 11) ^ _rotate_right(e, 25)
        first = _choose(e, f, g) + big1 + word + h
        a, b, c, d, e, f, g, h = (first + _majority(a, b, c) + big0) & U32, a, b, c, first + d & U32, e, f, g
    _set_words(step, f, e, b, a)


def sha256msg1(step: Step) -> None:
    target, source = _words(step)
    following = (*target[1:], source[0])
    _set_words(step, *(word + _sigma(after, 7, 18, 3) for word, after in zip(target, following, strict=True)))


def sha256msg2(step: Step) -> None:
    target, source = _words(step)
    w16 = target[0] + _sigma(source[2], 17, 19, 10) & U32
    w17 = target[1] + _sigma(source[3], 17, 19, 10) & U32
    _set_words(step, w16, w17, target[2] + _sigma(w16, 17, 19, 10), target[3] + _sigma(w17, 17, 19, 10))


AES = {
    "66 0F38 DB": aesimc,
    "66 0F38 DC": aesenc,
    "66 0F38 DD": aesenclast,
    "66 0F38 DE": aesdec,
    "66 0F38 DF": aesdeclast,
    "66 0F3A DF": aeskeygenassist,
    "66 0F3A 44": pclmulqdq,
}
HANDLERS = {
    **AES,
    **{f"VEX.128 {encoding}": handler for encoding, handler in AES.items()},
    "np 0F3A CC": sha1rnds4,
    "np 0F38 C8": sha1nexte,
    "np 0F38 C9": sha1msg1,
    "np 0F38 CA": sha1msg2,
    "np 0F38 CB": sha256rnds2,
    "np 0F38 CC": sha256msg1,
    "np 0F38 CD": sha256msg2,
}
