"""AVX floating point and F16C in software (SDM 2); not the approximations RCP and RSQRT, which makers choose."""

from collections.abc import Callable, Iterable

from enisle.abi.x86 import Vector
from enisle.machine.software import arithmetic
from enisle.machine.software.context import LANE, Fault
from enisle.machine.software.flags import ALL, CF, PF, ZF
from enisle.machine.software.floats import (
    DOUBLE,
    FTZ,
    HALF,
    INVALID,
    SINGLE,
    TRUNCATE,
    Environment,
    Format,
    Number,
    take,
)
from enisle.machine.software.lanes import Handler, elements, pack
from enisle.machine.software.operands import Step

Operation = Callable[[Number, Number, Environment], int]
PACKED = {"np": SINGLE, "66": DOUBLE}
SCALAR = {"F3": SINGLE, "F2": DOUBLE}


def begin(step: Step) -> Environment:
    return Environment(int.from_bytes(step.context.vectors.control(), "little"))


def finish(step: Step, environment: Environment) -> None:
    """Keep the flags that were raised; #XM when one is not masked."""
    if not environment.flags:
        return
    vectors = step.context.vectors
    control = (environment.control | environment.flags).to_bytes(4, "little")
    if environment.unmasked:
        vectors.set_control(control)  # the flags are the one thing that #XM leaves behind (SDM 1 11.5.3.2)
        raise Fault(Vector.XM, 0)
    step.then(lambda: vectors.set_control(control))


def numbers(value: bytes, format: Format, environment: Environment) -> list[Number]:
    return [take(bits, format, environment) for bits in elements(value, format.size)]


def write(step: Step, results: Iterable[int], format: Format, environment: Environment) -> None:
    """Write all elements of the destination."""
    value = pack(results, format.size)
    finish(step, environment)
    step.set_vector(step.it.reg, value)


def _set_scalar(step: Step, result: int, format: Format, environment: Environment) -> None:
    """Write the lowest element; the others are the first source's."""
    finish(step, environment)
    rest = step.vector(step.it.vvvv, LANE)[format.size :]
    step.set_vector(step.it.reg, pack((result,), format.size) + rest)


def _scalar(step: Step, format: Format, environment: Environment) -> Number:
    return take(int.from_bytes(step.source(format.size), "little"), format, environment)


def _packed(format: Format, operation: Operation) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        first = numbers(step.first(), format, environment)
        second = numbers(step.source(step.width), format, environment)
        write(step, [operation(a, b, environment) for a, b in zip(first, second, strict=True)], format, environment)

    return handler


def _single(format: Format, operation: Operation) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        first = take(int.from_bytes(step.vector(step.it.vvvv, format.size), "little"), format, environment)
        _set_scalar(step, operation(first, _scalar(step, format, environment), environment), format, environment)

    return handler


def _four(opcode: str, operation: Operation) -> dict[str, Handler]:
    """Return PS, PD, SS and SD of an operation."""
    return {f"VEX {p} 0F {opcode}": _packed(format, operation) for p, format in PACKED.items()} | {
        f"VEX {p} 0F {opcode}": _single(format, operation) for p, format in SCALAR.items()
    }


def _root(_: Number, a: Number, environment: Environment) -> int:
    return arithmetic.square_root(a, environment)


def _packed_root(format: Format) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        operands = numbers(step.source(step.width), format, environment)
        write(step, [arithmetic.square_root(a, environment) for a in operands], format, environment)

    return handler


# ---- horizontal ------------------------------------------------------------------------------------------------------


def _alternating(format: Format) -> Handler:
    """Return ADDSUB: differences in even places, sums in odd ones."""

    def handler(step: Step) -> None:
        environment = begin(step)
        first = numbers(step.first(), format, environment)
        second = numbers(step.source(step.width), format, environment)
        results = [
            (arithmetic.add if index & 1 else arithmetic.subtract)(a, b, environment)
            for index, (a, b) in enumerate(zip(first, second, strict=True))
        ]
        write(step, results, format, environment)

    return handler


def _horizontal(format: Format, operation: Operation) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        first, second = step.first(), step.source(step.width)
        results: list[int] = []
        for at in range(0, len(first), LANE):
            lane = numbers(first[at : at + LANE] + second[at : at + LANE], format, environment)
            results += [operation(a, b, environment) for a, b in zip(lane[::2], lane[1::2], strict=True)]
        write(step, results, format, environment)

    return handler


# ---- comparisons -----------------------------------------------------------------------------------------------------

LESS, EQUAL, GREATER, UNORDERED = 1, 2, 4, 8
RELATIONS = (EQUAL, LESS, LESS | EQUAL, UNORDERED, 13, 14, 12, 7, 10, 9, 11, 0, 5, GREATER | EQUAL, GREATER, 15)
"""Predicates 0-15 of CMPPS as sets of relations (SDM 2A table 3-1): NEQ 13, NLT 14, NLE 12, ORD 7, EQ_UQ 10, …"""
SIGNALING = (1, 2, 5, 6, 9, 10, 13, 14)
"""Predicates 0-15 that a QNaN makes invalid; for 16-31 it is the others."""


def _relation(a: Number, b: Number, signaling: bool, environment: Environment) -> int:
    if a.is_nan or b.is_nan:
        if signaling or a.is_signaling or b.is_signaling:
            environment.flags |= INVALID
        return UNORDERED
    arithmetic.note_denormals((a, b), environment)
    return (LESS, EQUAL, GREATER)[arithmetic.compare(a, b) + 1]


def _predicate(step: Step, format: Format) -> Operation:
    number = step.it.immediate & 31
    signaling = (number & 15 in SIGNALING) != (number >= 16)
    wanted, true = RELATIONS[number & 15], (1 << format.size * 8) - 1
    return lambda a, b, environment: true if _relation(a, b, signaling, environment) & wanted else 0


def _compare_packed(format: Format) -> Handler:
    return lambda step: _packed(format, _predicate(step, format))(step)


def _compare_single(format: Format) -> Handler:
    return lambda step: _single(format, _predicate(step, format))(step)


def _compare_flags(format: Format, signaling: bool) -> Handler:
    """Return COMISS or UCOMISS."""

    def handler(step: Step) -> None:
        environment = begin(step)
        first = take(int.from_bytes(step.vector(step.it.reg, format.size), "little"), format, environment)
        relation = _relation(first, _scalar(step, format, environment), signaling, environment)
        finish(step, environment)
        step.set_flags(ALL, {LESS: CF, EQUAL: ZF, GREATER: 0, UNORDERED: ZF | PF | CF}[relation])

    return handler


# ---- conversions -----------------------------------------------------------------------------------------------------


def _to_general(format: Format, truncates: bool) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        size = 8 if step.it.w else 4
        mode = TRUNCATE if truncates else environment.rounding
        result = arithmetic.to_integer(_scalar(step, format, environment), size, mode, environment)
        finish(step, environment)
        step.set_gpr(step.it.reg, size, result & (1 << size * 8) - 1)

    return handler


def _from_general(format: Format) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        size = 8 if step.it.w else 4
        value = step.rm(size)
        value -= (value >> size * 8 - 1) << size * 8
        _set_scalar(step, arithmetic.from_integer(value, format, environment), format, environment)

    return handler


def _between_scalars(source: Format, target: Format) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        result = arithmetic.convert(_scalar(step, source, environment), target, environment)
        _set_scalar(step, result, target, environment)

    return handler


def _converting(source: int, target: int, convert: Callable[[int, Environment], int]) -> Handler:
    """Return a conversion of packed elements from `source` to `target` bytes; the wider ones fill the vector."""

    def handler(step: Step) -> None:
        environment = begin(step)
        count = step.width // max(source, target)
        values = elements(step.source(count * source), source, True)
        results = [convert(value & (1 << source * 8) - 1, environment) for value in values]
        finish(step, environment)
        step.set_vector(step.it.reg, pack(results, target))

    return handler


def _float_to_float(source: Format, target: Format) -> Handler:
    return _converting(source.size, target.size, lambda bits, e: arithmetic.convert(take(bits, source, e), target, e))


def _float_to_integer(source: Format, truncates: bool) -> Handler:
    def convert(bits: int, environment: Environment) -> int:
        mode = TRUNCATE if truncates else environment.rounding
        return arithmetic.to_integer(take(bits, source, environment), 4, mode, environment)

    return _converting(source.size, 4, convert)


def _integer_to_float(target: Format) -> Handler:
    return _converting(4, target.size, lambda bits, e: arithmetic.from_integer(bits - (bits >> 31 << 32), target, e))


def _rounding(step: Step, environment: Environment) -> tuple[int, bool]:
    immediate = step.it.immediate
    return environment.rounding if immediate & 4 else immediate & 3, bool(immediate & 8)


def _round_packed(format: Format) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        mode, quiet = _rounding(step, environment)
        operands = numbers(step.source(step.width), format, environment)
        write(step, [arithmetic.to_integral(a, mode, quiet, environment) for a in operands], format, environment)

    return handler


def _round_single(format: Format) -> Handler:
    def handler(step: Step) -> None:
        environment = begin(step)
        mode, quiet = _rounding(step, environment)
        result = arithmetic.to_integral(_scalar(step, format, environment), mode, quiet, environment)
        _set_scalar(step, result, format, environment)

    return handler


def _from_half(step: Step) -> None:
    """VCVTPH2PS: DAZ does not count, denormals raise nothing (SDM 2C)."""
    environment = begin(step)
    environment.daz = False
    values = elements(step.source(step.width // 2), 2)
    results = [arithmetic.convert(take(bits, HALF, environment), SINGLE, environment) for bits in values]
    environment.flags &= INVALID
    write(step, results, SINGLE, environment)


def _to_half(step: Step) -> None:
    """VCVTPS2PH: FTZ does not count; the mode is the immediate's."""
    environment = begin(step)
    environment.control &= ~FTZ
    if not step.it.immediate & 4:
        environment.rounding = step.it.immediate & 3
    operands = numbers(step.vector(step.it.reg, step.width), SINGLE, environment)
    value = pack([arithmetic.convert(a, HALF, environment) for a in operands], 2)
    environment.control = int.from_bytes(step.context.vectors.control(), "little")
    finish(step, environment)
    step.set_target(value)


HANDLERS: dict[str, Handler] = {
    **_four("58", arithmetic.add),
    **_four("59", arithmetic.multiply),
    **_four("5C", arithmetic.subtract),
    **_four("5E", arithmetic.divide),
    **_four("5D", arithmetic.least),
    **_four("5F", arithmetic.greatest),
    **{f"VEX {p} 0F 51": _packed_root(format) for p, format in PACKED.items()},
    **{f"VEX {p} 0F 51": _single(format, _root) for p, format in SCALAR.items()},
    **{f"VEX {p} 0F C2": _compare_packed(format) for p, format in PACKED.items()},
    **{f"VEX {p} 0F C2": _compare_single(format) for p, format in SCALAR.items()},
    **{f"VEX {p} 0F 2E": _compare_flags(format, signaling=False) for p, format in PACKED.items()},
    **{f"VEX {p} 0F 2F": _compare_flags(format, signaling=True) for p, format in PACKED.items()},
    "VEX 66 0F D0": _alternating(DOUBLE),
    "VEX F2 0F D0": _alternating(SINGLE),
    "VEX 66 0F 7C": _horizontal(DOUBLE, arithmetic.add),
    "VEX F2 0F 7C": _horizontal(SINGLE, arithmetic.add),
    "VEX 66 0F 7D": _horizontal(DOUBLE, arithmetic.subtract),
    "VEX F2 0F 7D": _horizontal(SINGLE, arithmetic.subtract),
    **{f"VEX {p} 0F 2A": _from_general(format) for p, format in SCALAR.items()},
    **{f"VEX {p} 0F 2C": _to_general(format, truncates=True) for p, format in SCALAR.items()},
    **{f"VEX {p} 0F 2D": _to_general(format, truncates=False) for p, format in SCALAR.items()},
    "VEX F3 0F 5A": _between_scalars(SINGLE, DOUBLE),
    "VEX F2 0F 5A": _between_scalars(DOUBLE, SINGLE),
    "VEX np 0F 5A": _float_to_float(SINGLE, DOUBLE),
    "VEX 66 0F 5A": _float_to_float(DOUBLE, SINGLE),
    "VEX np 0F 5B": _integer_to_float(SINGLE),
    "VEX 66 0F 5B": _float_to_integer(SINGLE, truncates=False),
    "VEX F3 0F 5B": _float_to_integer(SINGLE, truncates=True),
    "VEX F3 0F E6": _integer_to_float(DOUBLE),
    "VEX F2 0F E6": _float_to_integer(DOUBLE, truncates=False),
    "VEX 66 0F E6": _float_to_integer(DOUBLE, truncates=True),
    "VEX 66 0F3A 08": _round_packed(SINGLE),
    "VEX 66 0F3A 09": _round_packed(DOUBLE),
    "VEX 66 0F3A 0A": _round_single(SINGLE),
    "VEX 66 0F3A 0B": _round_single(DOUBLE),
    "VEX 66 0F38 13": _from_half,
    "VEX 66 0F3A 1D": _to_half,
}
