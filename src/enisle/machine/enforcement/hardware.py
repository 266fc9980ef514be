"""The HW tier: what a processor is told so that it refuses by itself. Only where the probe saw each control work.

CPUID masks (KVM_SET_CPUID2), CPUID faulting (MSR_MISC_FEATURES_ENABLES, SDM 4), XCR0 (KVM_SET_XCRS) and bits of CR4
(SDM 3A 2.5). On a hypervisor that emulates ring 3 in software none of them may have an effect; then none is used.
"""

from typing import TYPE_CHECKING

from enisle.abi import kvm
from enisle.abi.x86 import Cr4, Msr
from enisle.errors import HostError
from enisle.machine.blocking.instructions import Action, Instruction
from enisle.machine.enforcement.tiers import Tier
from enisle.machine.kvm import KvmProcessor
from enisle.machine.processor import Processor

if TYPE_CHECKING:
    from enisle.machine.enforcement.enforcement import Enforcement

SUBLEAF_SIGNIFICANT = 1
"""KVM_CPUID_FLAG_SIGNIFCANT_INDEX."""
PLATFORM_CPUID_FAULT = 1 << 31
X87_SSE = 3


def apply(processor: Processor, enforcement: "Enforcement") -> None:
    """Set the controls of a processor that has not run yet. Raises HostError when one is refused after all."""
    if not isinstance(processor, KvmProcessor):
        return
    try:
        _apply(processor, enforcement)
    except OSError as error:
        hint = "delete the measurement kept in ~/.cache/enisle, so that the host is measured again"
        raise HostError("this KVM refuses a control it has had", str(error), hint) from error


def _apply(processor: KvmProcessor, enforcement: "Enforcement") -> None:
    value, matrix, tiers = enforcement.value, enforcement.matrix, enforcement.tiers
    trapped = value.trapped()
    if Instruction.CPUID in trapped and tiers[Instruction.CPUID].tier == Tier.HW:
        if matrix.cpuid_fault:
            kvm.KVM_SET_MSRS(processor.fd, kvm.msrs({Msr.PLATFORM_INFO: PLATFORM_CPUID_FAULT}))
            kvm.KVM_SET_MSRS(processor.fd, kvm.msrs({Msr.MISC_FEATURES_ENABLES: 1}))
        else:
            kvm.KVM_SET_CPUID2(processor.fd, masked_table(processor, enforcement))
    if matrix.xcr0 and enforcement.queries.xcr0 != enforcement.queries.host.xcr0:
        wanted = enforcement.queries.xcr0 or X87_SSE
        kvm.KVM_SET_XCRS(processor.fd, kvm.kvm_xcrs(1, 0, (kvm.kvm_xcr * 16)((0, 0, wanted))))
    set_bits, clear_bits = control_bits(enforcement)
    if set_bits or clear_bits:
        processor.change_cr4(set_bits, clear_bits)


def control_bits(enforcement: "Enforcement") -> tuple[int, int]:
    """Return the bits of CR4 to set and to clear."""
    value, matrix = enforcement.value, enforcement.matrix
    set_bits = clear_bits = 0
    counters = {Instruction.RDTSC, Instruction.RDTSCP} & value.trapped()
    if matrix.tsd and counters:
        set_bits |= Cr4.TSD
    if matrix.osxsave and value.actions.get("osxsave") == Action.BLOCK:
        clear_bits |= Cr4.OSXSAVE
    return set_bits, clear_bits


def masked_table(processor: KvmProcessor, enforcement: "Enforcement") -> kvm.kvm_cpuid2:
    """Return the processor's CPUID table as the value lets it be seen."""
    table = kvm.kvm_cpuid2.from_buffer_copy(processor.cpuid_table())
    for entry in table.entries[: table.nent]:
        subleaf = entry.index if entry.flags & SUBLEAF_SIGNIFICANT else 0
        entry.eax, entry.ebx, entry.ecx, entry.edx = enforcement.queries.cpuid(entry.function, subleaf)
    return table
