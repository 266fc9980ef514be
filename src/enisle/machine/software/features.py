"""Which CPUID feature an instruction needs, named as Linux names it in /proc/cpuinfo."""

from enisle.machine.software.decode import Instruction

IMPLIED = {"avx2": ("avx",), "fma": ("avx",), "f16c": ("avx",), "vaes": ("avx",), "vpclmulqdq": ("avx",)}
"""Features that an instruction of another one needs as well: they are about YMM registers."""


def feature_of(instruction: Instruction) -> str | None:
    """Return the feature that brought the instruction, None when it is as old as x86-64 or a hint."""
    return instruction.features[0] if instruction.features else None


def features_of(instruction: Instruction) -> tuple[str, ...]:
    """Return all features without which the instruction is undefined, the most special one first."""
    found = instruction.features
    return found + tuple(name for feature in found for name in IMPLIED.get(feature, ()) if name not in found)
