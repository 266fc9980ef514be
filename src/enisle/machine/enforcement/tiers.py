"""How well each function can be kept from a program on this host: the tiers, chosen by what was measured.

HW: a control of the processor does it. PATCH: trapped opcodes are replaced before a page may be executed. STEP: a page
where that would change something else is executed instruction by instruction. DETECT: the use of vector state is seen
soon after, and ends in SIGILL. ADVISORY: it is only not announced. The measurement is kept until the host boots again.
"""

from enum import IntEnum
from functools import cache
from typing import Any, cast

from enisle.machine.blocking import kept
from enisle.machine.blocking.apart import apart
from enisle.machine.blocking.instructions import LEVELS, Action, Instruction
from enisle.machine.blocking.value import BlockingValue
from enisle.machine.enforcement.matrix import SAMPLES, Matrix, measure
from enisle.machine.enforcement.opcodes import CODED, HARMLESS
from enisle.machine.software.opcodes import EVEX, LEGACY, VEX, XOP, rules
from enisle.records import Record

MEASUREMENT = "controls-4"
"""What the probe's findings are kept under; what another probe found does not count."""


class Tier(IntEnum):
    """How a function is kept from a program, the best last."""

    ADVISORY = 0
    DETECT = 1
    STEP = 2
    PATCH = 3
    HW = 4


VECTOR = frozenset(
    Instruction(name)
    for name in ("avx", "f16c", "fma", "avx2", "vaes", "vpclmul", "avx_vnni", "avx512", "amx", "xop", "fma4")
)
"""Classes whose instructions leave a mark in the XSAVE area's header."""
SHORT = frozenset((Instruction.AVX, Instruction.AES, Instruction.PCLMUL))
"""Classes with VEX encodings of 128 bits that SSE has too."""
CONTROLS: dict[Instruction, str] = {
    Instruction.XGETBV: "xcr0",
    Instruction.XSETBV: "xsetbv",
    Instruction.RDTSC: "tsd",
    Instruction.RDTSCP: "tsd",
    Instruction.RDPMC: "rdpmc",
    Instruction.RDMSR: "rdmsr",
    Instruction.WRMSR: "rdmsr",
    Instruction.FSGSBASE: "fsgsbase",
    **dict.fromkeys(VECTOR, "xcr0"),
}
"""The control of a `Matrix` that keeps a class from ring 3 by hardware."""
MAPS = {LEGACY: (0, 1, 2, 3), VEX: (1, 2, 3), EVEX: (1, 2, 3, 5, 6), XOP: (8, 9, 10)}


class Row(Record):
    """One class of a tier table. `way` says in a few words how it is done or why not."""

    instruction: Instruction
    tier: Tier
    way: str


def best(instruction: Instruction, matrix: Matrix, value: BlockingValue | None = None) -> Row:
    """Return how a class can be kept from ring 3 on a host that is like `matrix`, under a value when one is given."""
    if instruction is Instruction.SYSCALL:
        return Row(instruction, Tier.HW, "every system call passes our kernel")
    if matrix.short_vectors and instruction in SHORT:
        return Row(instruction, Tier.ADVISORY, "VEX encodings of 128 bits execute as SSE")
    if instruction in matrix.undefined:
        return Row(instruction, Tier.HW, "the processor has none")
    control = CONTROLS.get(instruction, "")
    if control and getattr(matrix, control):
        return Row(instruction, Tier.HW, f"control {control}")
    if instruction is Instruction.CPUID and (matrix.cpuid_fault or (matrix.cpuid_mask and not _denies_leaves(value))):
        return Row(instruction, Tier.HW, "control cpuid_fault" if matrix.cpuid_fault else "control cpuid_mask")
    if not matrix.patch or not matrix.step:
        return Row(instruction, Tier.ADVISORY, "exceptions or page rights do not work as they must")
    if instruction in CODED:
        return Row(instruction, Tier.PATCH, "opcode replaced")
    return _best_of_encodings(instruction, matrix, value)


def _denies_leaves(value: BlockingValue | None) -> bool:
    return value is not None and Instruction.CPUID in value.tables


def _best_of_encodings(instruction: Instruction, matrix: Matrix, value: BlockingValue | None) -> Row:
    """Judge by the weakest encoding: a class is kept no better than its instruction that escapes most easily."""
    marks = Tier.DETECT if matrix.audit else Tier.ADVISORY
    if instruction in VECTOR:
        return Row(instruction, marks, "XSTATE_BV looked at when the guest exits" if marks else "cannot be seen")
    kinds = encodings(instruction)
    if kinds & {"short", "harmless"} or not kinds:
        return Row(instruction, Tier.ADVISORY, "encodings that cannot be looked for")
    if "vector" not in kinds:
        return Row(instruction, Tier.PATCH, "opcode replaced")
    avx = value is not None and value.judge(Instruction.AVX) == Action.BLOCK
    if instruction in (Instruction.BMI1, Instruction.BMI2) or not (avx or matrix.xcr0):
        return Row(instruction, Tier.ADVISORY, "VEX encodings cannot be looked for")
    if matrix.xcr0:
        return Row(instruction, Tier.PATCH, "opcode replaced; VEX encodings by control xcr0")
    return Row(instruction, marks, "opcode replaced; VEX encodings by XSTATE_BV")


def encodings(instruction: Instruction) -> set[str]:
    """Return what sorts of encodings a class has: trapped, short (no 0F), harmless, vector (VEX, EVEX, XOP)."""
    sorts = _sorts()
    return {sort for feature in LEVELS.get(instruction, ()) for sort in sorts.get(feature, ())}


@cache
def _sorts() -> dict[str, set[str]]:
    """Return the sorts of encodings of every feature."""
    found: dict[str, set[str]] = {}
    for encoding, numbers in MAPS.items():
        for number in numbers:
            for opcode, alternatives in rules(encoding, number).items():
                sort = _sort(encoding, number, opcode)
                for _, needed in alternatives:
                    for feature in needed:
                        found.setdefault(feature, set()).add(sort)
    return found


def _sort(encoding: str, number: int, opcode: int) -> str:
    if encoding != LEGACY:
        return "vector"
    if not number:
        return "short"
    return "harmless" if (number, opcode) in HARMLESS else "trapped"


class TierTable:
    """The tiers of every class under one value on one host."""

    def __init__(self, matrix: Matrix, value: BlockingValue | None = None) -> None:
        self.matrix = matrix
        self.rows = {kind: best(kind, matrix, value) for kind in Instruction}

    def __getitem__(self, kind: Instruction) -> Row:
        return self.rows[kind]


# ---- the probe, once per boot ----------------------------------------------------------------------------------------


def probe_controls(backend: str, cached: bool = True) -> Matrix:
    """Return what this host's controls really do, measured once per boot. Raises HostError as `Machine` does."""
    if cached:
        known = _matrix(kept.recall(MEASUREMENT, backend), backend)
        if known:
            return known
    found: list[Any] = apart(lambda: list(measure(backend)))
    matrix = Matrix(*found[:-1], undefined=tuple(found[-1]))
    if cached:
        kept.keep(MEASUREMENT, backend, matrix._asdict())
    return matrix


def _matrix(found: Any, backend: str) -> Matrix | None:
    """Return a measurement that was kept; None when there is none, or it makes no sense."""
    if type(found) is not dict or set(cast("dict[str, Any]", found)) != set(Matrix._fields):
        return None
    found = dict(cast("dict[str, Any]", found))
    words = found.pop("undefined")
    if found.pop("backend") != backend or type(words) is not list or {type(it) for it in found.values()} != {bool}:
        return None
    undefined = tuple(str(name) for name in cast("list[Any]", words))
    return Matrix(backend, **found, undefined=undefined) if SAMPLES.keys() >= set(undefined) else None
