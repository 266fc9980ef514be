"""Model-specific registers by table: which are the processor's own, which the value answers, which do not exist.

Ring 3 gets #GP from RDMSR and WRMSR and is answered by the guard; code in ring 0 is stopped by KVM's filter, which
sends every access outside of the permitted ones to us (KVM_X86_SET_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR). Both ask
`answer`. No guest of an island runs in ring 0: the filter is for machines that have such guests.
"""

import ctypes
from collections.abc import Iterable

from enisle.abi import kvm_control as control
from enisle.machine.blocking.instructions import Action, Instruction
from enisle.machine.blocking.value import BlockingValue

DENY_BY_DEFAULT = 1
"""KVM_MSR_FILTER_DEFAULT_DENY."""
LOW, HIGH, AMD = 0x0, 0xC000_0000, 0xC001_0000
"""Where registers are: the three ranges that processors use (SDM 4, APM 2 A.8)."""


def answer(value: BlockingValue, index: int, write: bool) -> int | None:
    """Return the content an emulated register shows (0 for a write, which is forgotten), None for #GP."""
    kind = Instruction.WRMSR if write else Instruction.RDMSR
    if value.judge(kind, index) != Action.EMULATE:
        return None
    return 0 if write else value.answer(Instruction.RDMSR, index)


class Filter:
    """The filter of one virtual machine: registers that ring 0 may use natively are let through, all others come up."""

    def __init__(self, value: BlockingValue, permitted: Iterable[int]) -> None:
        self.value = value
        allowed = set(permitted)
        self._bitmaps: list[ctypes.Array[ctypes.c_uint8]] = []
        self._filter = control.kvm_msr_filter(flags=DENY_BY_DEFAULT)
        number = 0
        for base in (LOW, HIGH, AMD):
            for kind, flag in (
                (Instruction.RDMSR, control.KVM_MSR_FILTER_READ),
                (Instruction.WRMSR, control.KVM_MSR_FILTER_WRITE),
            ):
                self._filter.ranges[number] = self._range(base, flag, kind, allowed)
                number += 1

    def _range(self, base: int, flag: int, kind: Instruction, allowed: set[int]) -> control.kvm_msr_filter_range:
        count = control.MSR_FILTER_MAXIMUM * 8
        bitmap = (ctypes.c_uint8 * (count // 8))()
        for index in allowed:
            offset = index - base
            if 0 <= offset < count and self.value.judge(kind, index) == Action.ALLOW:
                bitmap[offset >> 3] |= 1 << (offset & 7)
        self._bitmaps.append(bitmap)  # KVM copies it, but not before the call
        return control.kvm_msr_filter_range(flag, count, base, 0, ctypes.addressof(bitmap))

    def install(self, vm_fd: int) -> None:
        """Put the filter in force. Raises OSError where KVM has no such filter."""
        reasons = (
            control.KVM_MSR_EXIT_REASON_INVAL | control.KVM_MSR_EXIT_REASON_UNKNOWN | control.KVM_MSR_EXIT_REASON_FILTER
        )
        capability = control.kvm_enable_cap(cap=control.KVM_CAP_X86_USER_SPACE_MSR)
        capability.args[0] = reasons
        control.KVM_ENABLE_CAP(vm_fd, capability)
        control.KVM_X86_SET_MSR_FILTER(vm_fd, self._filter)

    def serve(self, run: memoryview, reason: int) -> None:
        """Answer an access that came up: `run` is the mapped kvm_run, `reason` its exit reason."""
        write = reason == control.KVM_EXIT_X86_WRMSR
        index = int.from_bytes(run[control.RUN_MSR_INDEX : control.RUN_MSR_INDEX + 4], "little")
        found = answer(self.value, index, write)
        run[control.RUN_MSR_ERROR : control.RUN_MSR_ERROR + 1] = bytes((found is None,))
        if found is not None and not write:
            run[control.RUN_MSR_DATA : control.RUN_MSR_DATA + 8] = found.to_bytes(8, "little")


__all__ = ["Filter", "answer"]
