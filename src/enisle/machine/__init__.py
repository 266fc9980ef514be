"""Virtual hardware: processors (`kvm`, `emulated`), memory, page tables.

Alone owns /dev/kvm, Unicorn and the mapping of guest memory. Knows nothing of Linux: what the guest does comes up as
an `Exit`. May import `abi` and `errors`.
"""

from typing import TYPE_CHECKING

from enisle.machine.exitless import POSTED, STATE_WORD, CallSlot
from enisle.machine.layout import USER_END, USER_START, VDSO, VVAR
from enisle.machine.machine import Machine, MachineStatistics
from enisle.machine.memory import GuestMemory, OutOfMemory
from enisle.machine.pagetables import AddressSpace, leaf_flags
from enisle.machine.processor import (
    SYSCALL,
    BusError,
    Exit,
    Halt,
    Interrupted,
    PageFault,
    Processor,
    ProcessorException,
    Registers,
    Syscall,
)

__all__ = [
    "POSTED",
    "STATE_WORD",
    "SYSCALL",
    "USER_END",
    "USER_START",
    "VDSO",
    "VVAR",
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
    "Registers",
    "Syscall",
    "describe_tables",
    "leaf_flags",
    "probe",
]

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from enisle.machine.findings import Findings
    from enisle.machine.outline import Outline as Outline


def describe_tables(space: AddressSpace, lock: "AbstractContextManager[bool]", limit: int) -> "Outline":
    """Return what the page tables of a space look like, at most `limit` of them; `lock` is the space's."""
    from enisle.machine import outline  # when somebody looks

    with lock:
        tree = outline.outline(space, limit)
    return outline.count(space.memory, tree)


def probe() -> "Findings":
    """Measure what this host's processors do; see `findings.Findings`."""
    from enisle.machine import findings  # rarely wanted: keep it out of every start

    return findings.measure()
