"""Values that are built in: the levels x86-64-v1 to v4 of the System V psABI (AMD64 1.0, table 3.1), and `host`.

A level shows what its programs may count on and nothing else that a program could use, so that a guest can be moved
between any two processors that reach it. Pure.
"""

from enisle.abi.x86_features import NAMES
from enisle.machine.blocking.instructions import Action
from enisle.machine.blocking.value import BlockingValue


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


V1 = _set("fpu cx8 cmov mmx fxsr sse sse2 syscall lm nx")
V2 = V1 | _set("cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3")
V3 = V2 | _set("avx avx2 bmi1 bmi2 f16c fma abm movbe osxsave xsave")
V4 = V3 | _set("avx512f avx512bw avx512cd avx512dq avx512vl")
LEVELS = {"x86-64-v1": V1, "x86-64-v2": V2, "x86-64-v3": V3, "x86-64-v4": V4}
"""What a program of each level may count on."""

NEUTRAL = _set(
    "vme de pse tsc msr pae mce apic sep mtrr pge mca pat pse36 clflush ht hypervisor invtsc x2apic arat cmp_legacy"
    " topoext"
)
"""Shown where it is there: older than x86-64, of the system only, or about where things are."""
STATE = {
    "x86-64-v3": _set("xcr0_x87 xcr0_sse xcr0_ymm xsaveopt xsavec xgetbv1"),
    "x86-64-v4": _set("xcr0_x87 xcr0_sse xcr0_ymm xcr0_opmask xcr0_zmm_hi256 xcr0_hi16_zmm xsaveopt xsavec xgetbv1"),
}
"""How to save the registers of a level; glibc saves them on every first call of a function."""
HOST = "host"


def level(name: str) -> BlockingValue:
    """Return the value of a built-in name. Requires: it is in `names()`."""
    if name == HOST:
        return BlockingValue(HOST)
    wanted = LEVELS[name]
    return showing(name, wanted | NEUTRAL | STATE.get(name, frozenset()), wanted)


def showing(name: str, shown: frozenset[str], demanded: frozenset[str]) -> BlockingValue:
    """Return a strict value that shows these features where they are there, and demands some."""
    return BlockingValue(name, features=dict.fromkeys(NAMES - shown, Action.BLOCK), strict=True, demands=demanded)


def names() -> tuple[str, ...]:
    """Return the names of all built-in values."""
    return (HOST, *LEVELS)


def level_of(features: frozenset[str]) -> str:
    """Return the highest level whose features are all there, "" when not even the first."""
    return next((name for name, wanted in reversed(LEVELS.items()) if wanted <= features), "")
