"""The same value for a full guest: QEMU's -cpu words (qemu-system-x86_64 -cpu help), derived from what is visible.

`base` has no features at all; those that are visible are added, so that nothing else appears. Pure.
"""

from collections.abc import Iterable

from enisle.abi.x86_features import FEATURES
from enisle.machine.blocking.query import Queries

NAMES = {
    "sse4_1": "sse4.1", "sse4_2": "sse4.2", "cr8_legacy": "cr8legacy", "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni", "avx512_bitalg": "avx512bitalg", "amd_ibrs": "ibrs", "amd_ibpb": "ibpb",
    "spec_ctrl_ssbd": "ssbd", "intel_stibp": "stibp", "tsc_deadline_timer": "tsc-deadline", "sgx_lc": "sgxlc",
    "core_capabilities": "core-capability", "amd_stibp_always_on": "stibp-always-on", "autoibrs": "auto-ibrs",
    "lfence_rdtsc": "lfence-always-serializing", "tsxldtrk": "tsx-ldtrk", "dts": "ds", "pausefilter": "pause-filter",
}  # fmt: skip
"""QEMU's name where it is another one than Linux's with dashes."""
SET_BY_THE_SYSTEM = frozenset(("osxsave", "ospke", *(name for name in FEATURES if name.startswith("xcr0_"))))


def name_of(feature: str) -> str:
    """Return QEMU's name of a feature; not every QEMU knows each."""
    return NAMES.get(feature, feature.replace("_", "-"))


def cpu_words(queries: Queries, known: Iterable[str] | None = None) -> str:
    """Return the argument of -cpu: vendor, model and every visible feature that QEMU (or `known`) has a name for."""
    family, model, stepping = queries.host.model
    wanted = (name_of(name) for name in sorted(queries.visible - SET_BY_THE_SYSTEM))
    there = None if known is None else set(known)
    added = [f"+{name}" for name in wanted if there is None or name in there]
    last, extended = queries.host.last(0), queries.host.last(0x8000_0000)
    identity = [f"vendor={queries.host.vendor}", f"family={family}", f"model={model}", f"stepping={stepping}"]
    return ",".join(["base", *identity, f"level={last:#x}", f"xlevel={extended:#x}", *added])


def unknown(queries: Queries, known: Iterable[str]) -> list[str]:
    """Return the visible features that this QEMU cannot give a guest."""
    there = set(known)
    return sorted(name for name in queries.visible - SET_BY_THE_SYSTEM if name_of(name) not in there)


def parse_help(text: str) -> frozenset[str]:
    """Return the feature names that `qemu-system-x86_64 -cpu help` lists."""
    _, _, names = text.partition("Recognized CPUID flags:")
    return frozenset(names.split())
