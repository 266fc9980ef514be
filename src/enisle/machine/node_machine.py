"""A machine with nodes: its memory in parts, replicated page tables, and on request a hypervisor's machine per node.

Imported only when nodes or replicas are asked for. `NodePlan` is what is asked; the rest is put together here once.
"""

from typing import TYPE_CHECKING, Any

from enisle.abi.types import Gpa, Hva
from enisle.errors import InvalidRequest
from enisle.machine.nodes import MOST_NODES, NodeMemory
from enisle.machine.processor import Processor
from enisle.machine.replica_check import CheckedTables
from enisle.machine.replicas import ReplicatedTables, TableStore
from enisle.machine.replication import Replication
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.machine.kvm import Vm
    from enisle.machine.machine import Machine
    from enisle.machine.walks import Walks


class NodePlan(Record):
    """Nodes of a machine and how its page tables are replicated over them."""

    nodes: int = 1
    page_tables: str = "off"
    mask: int = 0
    """Nodes that get copies; 0: all."""
    machine_per_node: bool = False
    """A virtual machine of the hypervisor for each node, so that its own nested or shadow tables are per node too."""
    checked: bool = False
    """Check after every write, and whole trees after every change of mode, that all copies agree. Slow."""


class NodeVms:
    """One KVM machine per node over one memory: what `kvm.Vm` is to the rest of the machine."""

    def __init__(self, first: "Vm", nodes: int) -> None:
        self.vms = [first]
        try:
            for _ in range(1, nodes):
                self.vms.append(type(first)())
        except BaseException:
            self.close()
            raise
        self.processors: dict[Processor, int] = {}
        """The node of every processor made: it stays with its machine."""

    def __getattr__(self, name: str) -> Any:
        """What all machines have in common is asked of the first."""
        return getattr(self.vms[0], name)

    def add_extent(self, gpa: Gpa, hva: Hva, size: int) -> None:
        for vm in self.vms:
            vm.add_extent(gpa, hva, size)

    def forget_tables(self) -> None:
        for vm in self.vms:
            vm.forget_tables()

    def close(self) -> None:
        for vm in self.vms:
            vm.close()


def open_vms(vm: Any, plan: NodePlan, backend: str) -> Any:
    """Return what the machine's processors run on. Raises InvalidRequest, HostError."""
    if not 1 <= plan.nodes <= MOST_NODES:
        raise InvalidRequest(f"cannot make {plan.nodes} nodes", f"there are 1 to {MOST_NODES}", "--nodes 2")
    if not plan.machine_per_node or plan.nodes == 1:
        return vm
    if backend != "kvm":
        why = "the emulated processors have no tables of a hypervisor"
        raise InvalidRequest("no virtual machine per node", why, "leave --vm-per-node out, or use --processor kvm")
    return NodeVms(vm, plan.nodes)


def make_memory(limit: int, kind: str, vm: Any, plan: NodePlan) -> NodeMemory:
    return NodeMemory(limit, kind, vm.add_extent, plan.nodes)


def make_tables(machine: "Machine", memory: NodeMemory, plan: NodePlan) -> ReplicatedTables:
    """Return the page tables of the supervisor; every address space gets its own from them."""
    vm: Any = machine.vm
    notice = None
    if machine.backend == "emulated":
        from enisle.machine.emulated_code import notice_of

        notice = notice_of(vm.page_tables(memory).watch)
    store = TableStore(memory, notice)
    store.several_machines = isinstance(vm, NodeVms)
    return (CheckedTables if plan.checked else ReplicatedTables)(store)


def count_walks(machine: "Machine", memory: NodeMemory, replication: Replication) -> "Walks":
    """Let the processors of an emulated machine count the page tables they read. Before the first is made."""
    from enisle.machine.walks import Walks

    walks = Walks(memory, memory.nodes, memory.node_of)
    walks.node_of_processor = replication.node_of
    machine.vm.walks = walks
    return walks


def make_replication(machine: "Machine", tables: ReplicatedTables, plan: NodePlan) -> Replication:
    """Return what keeps the machine's trees, begun in the plan's mode. Raises InvalidRequest."""
    replication = Replication(tables.store, machine.shadows, plan.page_tables, plan.mask)
    if isinstance(machine.vm, NodeVms):
        replication.machines = len(machine.vm.vms)
    replication.checked = plan.checked
    from enisle.machine import replication_auto  # now: inside an island nothing is imported from files any more

    assert replication_auto
    replication.begin(machine.supervisor.space, machine.lock)
    return replication
