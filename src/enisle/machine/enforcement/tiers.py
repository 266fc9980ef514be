"""How well each function can be kept from a program on this host: the tiers, chosen by what was measured.

HW: a control of the processor does it. PATCH: trapped opcodes are replaced before a page may be executed. STEP: a page
where that would change something else is executed instruction by instruction. DETECT: the use of vector state is seen
soon after, and ends in SIGILL. ADVISORY: it is only not announced. The measurement is kept until the host boots again.
"""

import json
import os
from enum import IntEnum
from typing import Any

from enisle.machine.blocking.apart import apart
from enisle.machine.blocking.instructions import LEVELS, Action, Instruction
from enisle.machine.blocking.value import BlockingValue
from enisle.machine.enforcement.matrix import SAMPLES, Matrix, measure
from enisle.machine.enforcement.opcodes import CODED, HARMLESS
from enisle.machine.software.opcodes import EVEX, LEGACY, VEX, XOP, rules
from enisle.records import Record

BOOT_ID = "/proc/sys/kernel/random/boot_id"
VERSION = 3
"""Of the probe: a measurement kept by another one does not count."""


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
    wanted = set(LEVELS.get(instruction, ()))
    found: set[str] = set()
    for encoding, numbers in MAPS.items():
        for number in numbers:
            for opcode, alternatives in rules(encoding, number).items():
                if not any(wanted.intersection(needed) for _, needed in alternatives):
                    continue
                if encoding != LEGACY:
                    found.add("vector")
                elif not number:
                    found.add("short")
                else:
                    found.add("harmless" if (number, opcode) in HARMLESS else "trapped")
    return found


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
    path = _cache_path(backend)
    if cached and path:
        kept = _read(path, backend)
        if kept:
            return kept
    found: list[Any] = apart(lambda: list(measure(backend)))
    matrix = Matrix(*found[:-1], undefined=tuple(found[-1]))
    if cached and path:
        _write(path, matrix)
    return matrix


def _cache_path(backend: str) -> str:
    """Return where this boot's measurement is kept, "" where nothing tells one boot from the next."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return ""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "enisle", f"controls-{VERSION}-{backend}-{boot}.json")


def _read(path: str, backend: str) -> Matrix | None:
    """Return the kept measurement; None when there is none, or it is not ours to trust."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="ascii") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    well_formed = type(found) is dict and set(found) == set(Matrix._fields)
    if not well_formed or found.pop("backend") != backend:
        return None
    undefined = tuple(str(name) for name in found.pop("undefined"))
    if {type(value) for value in found.values()} != {bool} or not SAMPLES.keys() >= set(undefined):
        return None
    return Matrix(backend, **found, undefined=undefined)


def _write(path: str, matrix: Matrix) -> None:
    """Keep a measurement; a host where that is impossible measures again."""
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(matrix._asdict(), file)
        os.replace(temporary, path)
    except OSError:
        pass
