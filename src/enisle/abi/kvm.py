"""/dev/kvm: structures and ioctls of linux/kvm.h (Documentation/virt/kvm/api.rst), listed under the fd that answers.

An ioctl is a typed function; a failure names the request. Integers are passed by value, structures by address.
"""

import ctypes
import os
from ctypes import addressof, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Annotated, Any

from enisle.abi.cstruct import Struct, array, cstruct, s32, u8, u16, u32, u64

_libc = ctypes.CDLL(None, use_errno=True)
host_ioctl = _libc.ioctl
host_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)

KVMIO = 0xAE


@cstruct(size=24)
class kvm_segment(Struct):
    base: u64
    limit: u32
    selector: u16
    type: u8
    present: u8
    dpl: u8
    db: u8
    s: u8
    l: u8  # the manual's name
    g: u8
    avl: u8
    unusable: u8
    padding: u8


@cstruct(size=16)
class kvm_dtable(Struct):
    base: u64
    limit: u16
    padding: Annotated[Any, array(c_uint16, 3)]


@cstruct(size=312)
class kvm_sregs(Struct):
    cs: Annotated[Any, kvm_segment]
    ds: Annotated[Any, kvm_segment]
    es: Annotated[Any, kvm_segment]
    fs: Annotated[Any, kvm_segment]
    gs: Annotated[Any, kvm_segment]
    ss: Annotated[Any, kvm_segment]
    tr: Annotated[Any, kvm_segment]
    ldt: Annotated[Any, kvm_segment]
    gdt: Annotated[Any, kvm_dtable]
    idt: Annotated[Any, kvm_dtable]
    cr0: u64
    cr2: u64
    cr3: u64
    cr4: u64
    cr8: u64
    efer: u64
    apic_base: u64
    interrupt_bitmap: Annotated[Any, array(c_uint64, 4)]


@cstruct(size=32)
class kvm_userspace_memory_region(Struct):
    slot: u32
    flags: u32
    guest_phys_addr: u64
    memory_size: u64
    userspace_addr: u64


@cstruct(size=16)
class kvm_msr_entry(Struct):
    index: u32
    reserved: u32
    value: u64


@cstruct(size=40)
class kvm_cpuid_entry2(Struct):
    function: u32
    index: u32
    flags: u32
    eax: u32
    ebx: u32
    ecx: u32
    edx: u32
    padding: Annotated[Any, array(c_uint32, 3)]


CPUID_ENTRIES = 256


@cstruct(size=8 + 40 * CPUID_ENTRIES)
class kvm_cpuid2(Struct):
    nent: u32
    padding: u32
    entries: Annotated[Any, array(kvm_cpuid_entry2, CPUID_ENTRIES)]


@cstruct(size=4096)
class kvm_xsave(Struct):
    region: Annotated[Any, array(c_uint8, 4096)]


@cstruct(size=16)
class kvm_xcr(Struct):
    xcr: u32
    reserved: u32
    value: u64


@cstruct(size=392)
class kvm_xcrs(Struct):
    nr_xcrs: u32
    flags: u32
    xcrs: Annotated[Any, array(kvm_xcr, 16)]
    padding: Annotated[Any, array(c_uint64, 16)]


@cstruct(size=24)
class kvm_device_attr(Struct):
    flags: u32
    group: u32
    attr: u64
    addr: u64


@cstruct(size=8)
class kvm_signed(Struct):
    low: s32
    high: s32


def msrs(values: dict[int, int]) -> ctypes.Array[ctypes.c_char]:
    """Return a `struct kvm_msrs` holding `values`."""
    import struct

    entries = b"".join(struct.pack("<IIQ", index, 0, value) for index, value in values.items())
    return ctypes.create_string_buffer(struct.pack("<II", len(values), 0) + entries, 8 + len(entries))


class Ioctl:
    """One request; calling it with an fd issues it and raises OSError naming it."""

    __slots__ = ("name", "request")

    def __init__(self, name: str, request: int) -> None:
        self.name, self.request = name, request

    def __call__(self, fd: int, argument: Any = 0) -> int:
        pointer = argument if isinstance(argument, int) else addressof(argument)
        result = host_ioctl(fd, self.request, pointer)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{self.name}: {os.strerror(code)}")
        return result


def _io(name: str, number: int) -> Ioctl:
    return Ioctl(name, KVMIO << 8 | number)


def _ior(name: str, number: int, size: int) -> Ioctl:
    return Ioctl(name, 2 << 30 | size << 16 | KVMIO << 8 | number)


def _iow(name: str, number: int, size: int) -> Ioctl:
    return Ioctl(name, 1 << 30 | size << 16 | KVMIO << 8 | number)


def _iowr(name: str, number: int, size: int) -> Ioctl:
    return Ioctl(name, 3 << 30 | size << 16 | KVMIO << 8 | number)


# /dev/kvm
KVM_GET_API_VERSION = _io("KVM_GET_API_VERSION", 0x00)
KVM_CREATE_VM = _io("KVM_CREATE_VM", 0x01)
KVM_CHECK_EXTENSION = _io("KVM_CHECK_EXTENSION", 0x03)
KVM_GET_VCPU_MMAP_SIZE = _io("KVM_GET_VCPU_MMAP_SIZE", 0x04)
KVM_GET_SUPPORTED_CPUID = _iowr("KVM_GET_SUPPORTED_CPUID", 0x05, 8)
# a VM
KVM_CREATE_VCPU = _io("KVM_CREATE_VCPU", 0x41)
KVM_SET_USER_MEMORY_REGION = _iow("KVM_SET_USER_MEMORY_REGION", 0x46, 32)
KVM_SET_TSS_ADDR = _io("KVM_SET_TSS_ADDR", 0x47)
# a virtual processor
KVM_RUN = _io("KVM_RUN", 0x80)
KVM_GET_SREGS = _ior("KVM_GET_SREGS", 0x83, 312)
KVM_SET_SREGS = _iow("KVM_SET_SREGS", 0x84, 312)
KVM_GET_MSRS = _iowr("KVM_GET_MSRS", 0x88, 8)
KVM_SET_MSRS = _iow("KVM_SET_MSRS", 0x89, 8)
KVM_SET_CPUID2 = _iow("KVM_SET_CPUID2", 0x90, 8)
KVM_GET_TSC_KHZ = _io("KVM_GET_TSC_KHZ", 0xA3)
KVM_GET_XSAVE = _ior("KVM_GET_XSAVE", 0xA4, 4096)
KVM_SET_XSAVE = _iow("KVM_SET_XSAVE", 0xA5, 4096)
KVM_SET_XCRS = _iow("KVM_SET_XCRS", 0xA7, 392)
KVM_SET_DEVICE_ATTR = _iow("KVM_SET_DEVICE_ATTR", 0xE1, 24)

KVM_API_VERSION = 12
KVM_CAP_NR_VCPUS = 9
KVM_CAP_MAX_VCPUS = 66
KVM_CAP_SYNC_REGS = 74
KVM_CAP_IMMEDIATE_EXIT = 136
KVM_SYNC_X86_REGS = 1
KVM_SYNC_X86_SREGS = 2
KVM_VCPU_TSC_CTRL = 0
KVM_VCPU_TSC_OFFSET = 0

# struct kvm_run: byte offsets
RUN_IMMEDIATE_EXIT = 1
RUN_EXIT_REASON = 8
RUN_UNION = 32
RUN_VALID_REGS = 288
RUN_DIRTY_REGS = 296
RUN_REGS = 304
RUN_SREGS = 448

KVM_EXIT_UNKNOWN = 0
KVM_EXIT_EXCEPTION = 1
KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_SHUTDOWN = 8
KVM_EXIT_FAIL_ENTRY = 9
KVM_EXIT_INTR = 10
KVM_EXIT_INTERNAL_ERROR = 17
