"""The greatest lower bound of processors: what all members of a domain have, so that a guest can move between them.

`meet` is idempotent, commutative and associative; its result is consistent (everything has what it needs). A
component of the XSAVE area that lies elsewhere on another member is left out: saved state could not be moved. Pure.
"""

from collections.abc import Iterable
from functools import reduce

from enisle.abi.cpuid import CpuidTable
from enisle.abi.x86_features import XCR0_BITS, closed
from enisle.errors import InvalidRequest
from enisle.machine.blocking.levels import showing
from enisle.machine.blocking.value import BlockingValue
from enisle.records import Record

OF_THE_SYSTEM = frozenset((
    *("smep", "smap", "umip", "la57", "svm", "vmx", "npt", "pku", "ospke", "x2apic", "apic", "hypervisor", "pcid"),
    *("invpcid", "arat", "tsc_deadline_timer", "tsc_adjust", "xcr0_pkru", "vme", "de", "pse", "msr", "pae", "mce"),
    *("mtrr", "pge", "mca", "pat", "pse36", "ht", "cmp_legacy", "topoext", "cr8_legacy", "extapic", "osvw", "pdpe1gb"),
    *("invtsc", "no_smm_ctl_msr", "shstk", "ibt", "xsaves", "xfd", "xsaveerptr", "lfence_rdtsc", "amd_psfd"),
    *("amd_stibp_always_on", "amd_ibpb", "amd_ibrs", "amd_stibp", "amd_ssbd", "spec_ctrl", "intel_stibp"),
    *("spec_ctrl_ssbd", "arch_capabilities", "md_clear", "flush_l1d", "wbnoinvd", "nodeid_msr", "dca", "monitor"),
))  # fmt: skip
"""Never demanded: no program of ring 3 executes them, or the system must switch them on first, which islands do not."""


class Host(Record):
    """What counts of a member of a domain."""

    vendor: str
    features: frozenset[str]
    layout: frozenset[tuple[int, int, int]] = frozenset()
    """Number, offset and size of each component of the XSAVE area beyond the first two."""


def host(table: CpuidTable) -> Host:
    """Return what counts of a processor."""
    layout = frozenset((bit, offset, size) for bit, (offset, size) in table.layout().items())
    return consistent(Host(table.vendor, table.features, layout))


def consistent(member: Host) -> Host:
    """Return the member without what lacks something it needs, or whose registers have no place to be saved."""
    placed = {XCR0_BITS[bit] for bit, _, _ in member.layout if bit in XCR0_BITS}
    unplaced = frozenset(name for bit, name in XCR0_BITS.items() if bit >= 2) - placed
    features = closed(member.features - unplaced)
    kept = frozenset(entry for entry in member.layout if XCR0_BITS.get(entry[0]) in features)
    return Host(member.vendor, features, kept)


def meet(first: Host, second: Host) -> Host:
    """Return what both have. Raises InvalidRequest for processors of two vendors."""
    if first.vendor != second.vendor:
        why = f"{first.vendor} and {second.vendor}: programs choose code by the vendor, and systems their workarounds"
        raise InvalidRequest("processors of two vendors have no baseline", why, "a level, such as x86-64-v2, fits both")
    return consistent(Host(first.vendor, first.features & second.features, first.layout & second.layout))


def baseline(hosts: Iterable[Host], name: str = "baseline") -> BlockingValue:
    """Return the value that every one of the hosts can be. Raises InvalidRequest when there is none."""
    members = [consistent(member) for member in hosts]
    if not members:
        raise InvalidRequest("no hosts, no baseline", "name at least one", "enisle cpu baseline HOST.json …")
    common = reduce(meet, members)
    return showing(name, common.features, common.features - OF_THE_SYSTEM)
