"""FMA in software: products and sums rounded once (SDM 2C, VFMADD132PD and its like)."""

from collections.abc import Sequence

from enisle.machine.software import arithmetic
from enisle.machine.software.context import LANE
from enisle.machine.software.floats import FORMATS, Environment, Number, take
from enisle.machine.software.lanes import Handler, pack
from enisle.machine.software.operands import Step
from enisle.machine.software.vector_float import begin, finish, numbers, write


class Fused:
    """One of the FMA instructions: which operands are multiplied, and the signs."""

    def __init__(self, form: int, negate: bool, signs: tuple[int, int]) -> None:
        self.form, self.negate, self.signs = form, negate, signs
        """`signs`: of what is added, in even and odd places."""

    def of(self, operands: Sequence[Number], index: int, environment: Environment) -> int:
        """Return the result for the elements in place `index` of destination, second and third operand."""
        target, second, third = operands
        factors = {132: (target, third, second), 213: (second, target, third), 231: (second, third, target)}
        a, b, c = factors[self.form]
        if self.signs[index & 1] < 0:
            c = arithmetic.negated(c)
        return arithmetic.multiply_add(a, b, c, self.negate, environment)

    def packed(self, step: Step) -> None:
        environment, format = begin(step), FORMATS[8 if step.it.w else 4]
        sources = (step.vector(step.it.reg, step.width), step.first(), step.source(step.width))
        operands = zip(*(numbers(source, format, environment) for source in sources), strict=True)
        results = [self.of(three, index, environment) for index, three in enumerate(operands)]
        write(step, results, format, environment)

    def scalar(self, step: Step) -> None:
        environment, format = begin(step), FORMATS[8 if step.it.w else 4]
        target = step.vector(step.it.reg, LANE)
        low = (target[: format.size], step.vector(step.it.vvvv, format.size), step.source(format.size))
        three = [take(int.from_bytes(part, "little"), format, environment) for part in low]
        result = pack((self.of(three, 0, environment),), format.size)
        finish(step, environment)
        step.set_vector(step.it.reg, result + target[format.size :])


def _all() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    kinds = {0x6: (False, (-1, 1)), 0x7: (False, (1, -1))}  # VFMADDSUB subtracts in even places, VFMSUBADD adds
    kinds |= {0x8: (False, (1, 1)), 0xA: (False, (-1, -1)), 0xC: (True, (1, 1)), 0xE: (True, (-1, -1))}
    for form, row in ((132, 0x90), (213, 0xA0), (231, 0xB0)):
        for low, (negate, signs) in kinds.items():
            fused = Fused(form, negate, signs)
            found[f"VEX 66 0F38 {row | low:02X}"] = fused.packed
            if low >= 8:
                found[f"VEX 66 0F38 {row | low | 1:02X}"] = fused.scalar
    return found


HANDLERS = _all()
