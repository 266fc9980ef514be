"""Code in ring 0 of a scratch virtual machine: RDMSR under KVM's filter."""

import ctypes
import fcntl
import mmap
import os

from enisle.abi import kvm, kvm_control
from enisle.machine import Machine
from enisle.machine.enforcement.msr import Filter

CODE_GPA, RDMSR_HLT = 0x1000, b"\x0f\x32\xf4"
HANDLER_GPA, STACK_GPA, VECTOR_GP, HLT = 0x2000, 0x8000, 13, 0xF4


class Ring0:
    """One virtual machine in real mode, kept for all reads: RDMSR is the same there."""

    def __init__(self, filter: Filter) -> None:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.vm = kvm.KVM_CREATE_VM(device)
        self.memory = mmap.mmap(-1, 1 << 16)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.memory[CODE_GPA : CODE_GPA + 3] = RDMSR_HLT
        self.memory[HANDLER_GPA] = HLT
        self.memory[4 * VECTOR_GP : 4 * VECTOR_GP + 4] = HANDLER_GPA.to_bytes(4, "little")
        kvm.KVM_SET_USER_MEMORY_REGION(self.vm, kvm.kvm_userspace_memory_region(0, 0, 0, 1 << 16, address))
        filter.install(self.vm)
        self.vcpu = kvm.KVM_CREATE_VCPU(self.vm, 0)
        self.run = mmap.mmap(self.vcpu, kvm.KVM_GET_VCPU_MMAP_SIZE(device))
        self.sregs = kvm.kvm_sregs()
        kvm.KVM_GET_SREGS(self.vcpu, self.sregs)
        self.sregs.cs.base = self.sregs.cs.selector = self.sregs.ss.base = self.sregs.ss.selector = 0
        kvm.KVM_SET_SREGS(self.vcpu, self.sregs)
        self.filter = filter

    def read(self, index: int) -> int | None:
        view = memoryview(self.run)
        words = view.cast("Q")
        base = kvm.RUN_REGS // 8
        words[kvm.RUN_VALID_REGS // 8] = words[kvm.RUN_DIRTY_REGS // 8] = kvm.KVM_SYNC_X86_REGS
        for register in range(18):
            words[base + register] = 0
        words[base + 2], words[base + 6] = index, STACK_GPA
        words[base + 16], words[base + 17] = CODE_GPA, 2
        kvm.KVM_SET_SREGS(self.vcpu, self.sregs)
        try:
            while True:
                fcntl.ioctl(self.vcpu, kvm.KVM_RUN.request, 0)
                reason = int.from_bytes(view[8:12], "little")
                if reason in (kvm_control.KVM_EXIT_X86_RDMSR, kvm_control.KVM_EXIT_X86_WRMSR):
                    self.filter.serve(view, reason)
                    words[kvm.RUN_DIRTY_REGS // 8] = 0
                    continue
                if reason == kvm.KVM_EXIT_HLT and words[base + 16] == CODE_GPA + 3:
                    return words[base + 3] << 32 | words[base]
                return None  # #GP: it halted in the handler
        finally:
            words.release()
            view.release()


_machines: dict[int, Ring0] = {}


def read_register(machine: Machine, filter: Filter, index: int) -> int | None:
    """Return what RDMSR finds in ring 0 under the filter, None when it faults. `machine` names the set of reads."""
    ring0 = _machines.get(id(machine))
    if ring0 is None:
        ring0 = _machines[id(machine)] = Ring0(filter)
    return ring0.read(index)


__all__ = ["Ring0", "read_register"]
