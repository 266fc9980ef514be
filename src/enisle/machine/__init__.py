"""Virtual hardware: processors (`kvm`, `emulated`), memory, page tables.

Alone owns /dev/kvm, Unicorn and the mapping of guest memory. Knows nothing of Linux: what the guest does comes up as
an `Exit`. May import `abi` and `errors`.
"""

from typing import TYPE_CHECKING, Any

from enisle.errors import InvalidRequest
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

BLOCKING = {
    "Action": "instructions",
    "BlockingValue": "value",
    "Instruction": "instructions",
    "Outcome": "instructions",
    "Queries": "query",
    "Refusal": "instructions",
    "SecondLevel": "codes",
    "find_value": "files",
    "read_key": "files",
    "resolve": "files",
}
"""Names of function blocking and their modules: loaded when first used, so that a machine without it pays nothing."""
ENFORCING = {
    "NOT_OURS": "enforcement.guard",
    "EnforcementStatistics": "enforcement.enforcement",
    "Guard": "enforcement.guard",
    "GuestFault": "enforcement.guard",
    "Tier": "enforcement.tiers",
    "TierTable": "enforcement.tiers",
    "probe_controls": "enforcement.tiers",
}

__all__ = [
    "NOT_OURS",
    "POSTED",
    "STATE_WORD",
    "SYSCALL",
    "USER_END",
    "USER_START",
    "VDSO",
    "VVAR",
    "Action",
    "AddressSpace",
    "BlockingValue",
    "BusError",
    "CallSlot",
    "EnforcementStatistics",
    "Exit",
    "Guard",
    "GuestFault",
    "GuestMemory",
    "Halt",
    "Instruction",
    "Interrupted",
    "Machine",
    "MachineStatistics",
    "OutOfMemory",
    "Outcome",
    "PageFault",
    "Processor",
    "ProcessorException",
    "Queries",
    "Refusal",
    "Registers",
    "SecondLevel",
    "Syscall",
    "Tier",
    "TierTable",
    "cpu_report",
    "describe_tables",
    "find_value",
    "leaf_flags",
    "node_mask",
    "node_plan",
    "probe",
    "read_key",
    "resolve",
]

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from enisle.machine.blocking import report as cpu_report
    from enisle.machine.blocking.codes import SecondLevel as SecondLevel
    from enisle.machine.blocking.files import find_value as find_value
    from enisle.machine.blocking.files import read_key as read_key
    from enisle.machine.blocking.files import resolve as resolve
    from enisle.machine.blocking.instructions import Action as Action
    from enisle.machine.blocking.instructions import Instruction as Instruction
    from enisle.machine.blocking.instructions import Outcome as Outcome
    from enisle.machine.blocking.instructions import Refusal as Refusal
    from enisle.machine.blocking.query import Queries as Queries
    from enisle.machine.blocking.value import BlockingValue as BlockingValue
    from enisle.machine.enforcement.enforcement import EnforcementStatistics as EnforcementStatistics
    from enisle.machine.enforcement.guard import NOT_OURS as NOT_OURS
    from enisle.machine.enforcement.guard import Guard as Guard
    from enisle.machine.enforcement.guard import GuestFault as GuestFault
    from enisle.machine.enforcement.tiers import Tier as Tier
    from enisle.machine.enforcement.tiers import TierTable as TierTable
    from enisle.machine.enforcement.tiers import probe_controls as probe_controls
    from enisle.machine.findings import Findings
    from enisle.machine.node_machine import NodePlan as NodePlan
    from enisle.machine.outline import Outline as Outline
    from enisle.machine.replication import Replication as Replication


def describe_tables(space: AddressSpace, lock: "AbstractContextManager[bool]", limit: int) -> "Outline":
    """Return what the page tables of a space look like, about `limit` pages of them; `lock` is the space's."""
    from enisle.machine import outline  # when somebody looks

    with lock:
        tree = outline.outline(space, limit)
    return outline.count(space.memory, tree)


def node_plan(
    nodes: int, page_tables: str = "off", machine_per_node: bool = False, checked: bool = False
) -> "NodePlan":
    """Return what `Machine` wants to be told of nodes; `page_tables` is MODE or MODE:NODES. Raises InvalidRequest."""
    from enisle.machine.node_machine import NodePlan

    mode, colon, mask = page_tables.partition(":")
    return NodePlan(nodes, mode, node_mask(mask, nodes) if colon else 0, machine_per_node, checked)


def node_mask(text: str, nodes: int) -> int:
    """Return the mask for a list of nodes like `0-2,5`. Raises InvalidRequest when there are none or not so many."""
    from enisle.machine.nodes import check_mask, parse_mask

    try:
        mask = parse_mask(text)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} names no nodes", "a list of numbers and ranges does", "0-1,3") from None
    check_mask(mask, nodes)
    return mask


def __getattr__(name: str) -> Any:
    place = f"blocking.{BLOCKING[name]}" if name in BLOCKING else ENFORCING.get(name)
    if name == "cpu_report":
        from enisle.machine.blocking import report

        return report
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"enisle.machine.{place}"), name)


def probe() -> "Findings":
    """Measure what this host's processors do; see `findings.Findings`."""
    from enisle.machine import findings  # rarely wanted: keep it out of every start

    return findings.measure()
