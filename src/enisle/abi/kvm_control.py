"""/dev/kvm: what restricts a guest's instructions (Documentation/virt/kvm/api.rst). Imported only where that is wanted.

Capabilities that must be enabled, filters of model-specific registers, and the exits that answer for them.
"""

from ctypes import c_uint8, c_uint64
from typing import Annotated, Any

from enisle.abi.cstruct import Struct, array, cstruct, u32, u64
from enisle.abi.kvm import KVMIO, Ioctl


@cstruct(size=104)
class kvm_enable_cap(Struct):
    cap: u32
    flags: u32
    args: Annotated[Any, array(c_uint64, 4)]
    padding: Annotated[Any, array(c_uint8, 64)]


MSR_FILTER_RANGES = 16
MSR_FILTER_MAXIMUM = 0x600
"""Registers one range may cover."""


@cstruct(size=24)
class kvm_msr_filter_range(Struct):
    flags: u32
    nmsrs: u32
    base: u32
    padding: u32
    bitmap: u64


@cstruct(size=8 + 24 * MSR_FILTER_RANGES)
class kvm_msr_filter(Struct):
    flags: u32
    padding: u32
    ranges: Annotated[Any, array(kvm_msr_filter_range, MSR_FILTER_RANGES)]


# a VM
KVM_ENABLE_CAP = Ioctl("KVM_ENABLE_CAP", 1 << 30 | 104 << 16 | KVMIO << 8 | 0xA3)
KVM_X86_SET_MSR_FILTER = Ioctl("KVM_X86_SET_MSR_FILTER", 1 << 30 | (8 + 24 * 16) << 16 | KVMIO << 8 | 0xC6)
# a virtual processor
KVM_GET_CPUID2 = Ioctl("KVM_GET_CPUID2", 3 << 30 | 8 << 16 | KVMIO << 8 | 0x91)

KVM_CAP_X86_USER_SPACE_MSR = 188
KVM_CAP_X86_MSR_FILTER = 189
KVM_MSR_EXIT_REASON_INVAL = 1
KVM_MSR_EXIT_REASON_UNKNOWN = 2
KVM_MSR_EXIT_REASON_FILTER = 4
KVM_MSR_FILTER_READ = 1
KVM_MSR_FILTER_WRITE = 2
KVM_EXIT_X86_RDMSR = 29
KVM_EXIT_X86_WRMSR = 30

# struct kvm_run.msr: byte offsets
RUN_MSR_ERROR = 32
RUN_MSR_REASON = 40
RUN_MSR_INDEX = 44
RUN_MSR_DATA = 48
