"""Virtual hardware: processors (`kvm`, `emulated`), memory, page tables.

Alone owns /dev/kvm, Unicorn and the mapping of guest memory. Knows nothing of Linux: what the guest does comes up as
an `Exit`. May import `abi` and `errors`.
"""

from enisle.machine.exitless import CallSlot
from enisle.machine.layout import SLOTS, USER_END, USER_START
from enisle.machine.machine import Machine, MachineStatistics
from enisle.machine.memory import GuestMemory, OutOfMemory
from enisle.machine.pagetables import AddressSpace, leaf_flags
from enisle.machine.processor import (
    BusError,
    Exit,
    Halt,
    Interrupted,
    PageFault,
    Processor,
    ProcessorException,
    Syscall,
)

__all__ = [
    "SLOTS",
    "USER_END",
    "USER_START",
    "AddressSpace",
    "BusError",
    "CallSlot",
    "Exit",
    "GuestMemory",
    "Halt",
    "Interrupted",
    "Machine",
    "MachineStatistics",
    "OutOfMemory",
    "PageFault",
    "Processor",
    "ProcessorException",
    "Syscall",
    "leaf_flags",
]
