"""The machine of one island: memory, page tables, supervisor pages and a pool of processors on one backend."""

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.errors import HostError, InvalidRequest
from enisle.machine import layout
from enisle.machine.memory import GuestMemory
from enisle.machine.pagetables import AddressSpace, PageTableOps, PlainPageTables, Shadows
from enisle.machine.processor import Processor
from enisle.machine.supervisor import Supervisor
from enisle.records import Record

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from enisle.machine.blocking.query import Queries
    from enisle.machine.blocking.value import BlockingValue
    from enisle.machine.counter import Counter
    from enisle.machine.emulated_traps import CodeTraps
    from enisle.machine.enforcement.enforcement import Enforcement
    from enisle.machine.node_machine import NodePlan
    from enisle.machine.replication import Replication
    from enisle.machine.walks import Walks

MINIMUM_MEMORY = 16 << 20
XCR0_X87_SSE = 3
TREE_TABLES, CONDEMNED_TABLES = 64, 1024
"""Up to how many tables a tree is used again; how many of larger trees may wait to be freed."""


class MachineStatistics(Record):
    """Counters of a machine; sizes in bytes."""

    backend: str
    processors: int
    exits: int
    memory_limit: int
    memory_used: int
    memory_window: int
    page_tables: int
    flushes: int


class KvmFacts(Record):
    """What a KVM machine has learnt of its host."""

    syscall_ring: int | None
    xcr0: int
    max_processors: int


class Machine:
    """Virtual hardware. `backend` is "auto", "kvm" or "emulated"; `memory_limit` is in bytes."""

    def __init__(
        self,
        backend: str = "auto",
        memory_limit: int = 1 << 30,
        processors: int = 1,
        memory_kind: str = "anonymous",
        exitless: bool = True,
        blocking: "BlockingValue | None" = None,
        nodes: "NodePlan | None" = None,
    ) -> None:
        if memory_limit < MINIMUM_MEMORY:
            hint = f"give at least {MINIMUM_MEMORY >> 20}M"
            raise InvalidRequest("too little memory for an island", f"{memory_limit} bytes", hint)
        self.processors, self.exitless = processors, exitless
        self.fallback_reason = ""
        """Why the emulated backend was taken instead of KVM, when it was."""
        self._vm: Any = self._open(backend)
        self.backend = "kvm" if self.fallback_reason == "" and backend != "emulated" else "emulated"
        self._lock = threading.Lock()
        self.replication: Replication | None = None
        """Keeps copies of page tables per node; None: there is one node and one copy."""
        self.walks: Walks | None = None
        """Counts whose page tables are read, where processors are emulated on several nodes."""
        if nodes:
            self._make_nodes(nodes, memory_limit, memory_kind)
        else:
            self.memory = GuestMemory(memory_limit, memory_kind, self._vm.add_extent)
            kvm = self.backend == "kvm"
            self.page_tables: PageTableOps = PlainPageTables(self.memory) if kvm else self._vm.page_tables(self.memory)
            self.shadows = Shadows(self._vm.forget_tables)
            self.supervisor = Supervisor(self.memory, self.page_tables, self.shadows)
        self._spaces: list[AddressSpace] = []
        self._condemned: list[AddressSpace] = []
        self._idle: list[Processor] = []
        self._all: list[Processor] = []
        self.enforcement: Enforcement | None = None
        """What makes `blocking` true for programs."""
        self.blocking = blocking
        """What the processors may execute; None: all they can."""
        self.queries = self._take_up_blocking() if blocking else None
        """What the processors answer under `blocking`."""
        if blocking:
            self._make_enforcement()

    def _make_enforcement(self) -> None:
        from enisle.machine.enforcement.enforcement import Enforcement

        try:
            self.enforcement = Enforcement(self)
            if self.enforcement.uses_hardware:
                self._idle.clear()  # what has run already may not be changed any more (KVM_SET_CPUID2)
            for processor in self._idle:
                self.enforcement.prepare_processor(processor)
        except BaseException:
            self.close()
            raise

    def trap_code(self) -> "CodeTraps | None":
        """Return where processors must stop before an instruction; None when they get every instruction right."""
        return self._vm.trap_code() if self.backend == "emulated" else None

    def _take_up_blocking(self) -> "Queries":
        from enisle.machine.blocking.backing import take_up

        try:
            return take_up(self)
        except BaseException:
            self.close()
            raise

    def _make_nodes(self, plan: "NodePlan", limit: int, kind: str) -> None:
        from enisle.machine import node_machine

        self._vm = node_machine.open_vms(self._vm, plan, self.backend)
        memory = node_machine.make_memory(limit, kind, self._vm, plan)
        tables = node_machine.make_tables(self, memory, plan)
        self.memory, self.page_tables = memory, tables
        self.shadows = Shadows(self._vm.forget_tables)
        self.supervisor = Supervisor(self.memory, self.page_tables, self.shadows)
        self.replication = node_machine.make_replication(self, tables, plan)
        if self.backend == "emulated":
            self.walks = node_machine.count_walks(self, memory, self.replication)

    def _open(self, backend: str) -> Any:
        if backend in ("auto", "kvm"):
            try:
                return self._open_kvm()
            except HostError as error:
                if backend == "kvm":
                    raise
                self.fallback_reason = f"{error.message}: {error.why}"
        from enisle.machine.emulated import Vm as EmulatedVm  # Unicorn takes long to import

        return EmulatedVm()

    def _open_kvm(self) -> Any:
        from enisle.machine.kvm import Vm, install_kick_handler

        vm = Vm()
        install_kick_handler()
        return vm

    @property
    def vm(self) -> Any:
        """The hypervisor's side of the machine. For `machine`'s own parts."""
        return self._vm

    @property
    def lock(self) -> threading.Lock:
        """Guards the supervisor's tables and the pools."""
        return self._lock

    @property
    def xfeatures(self) -> int:
        """XCR0 of the guest: the components of its XSAVE area (SDM 1 13.1)."""
        return self.queries.xcr0 & self._vm.keeps | XCR0_X87_SSE if self.queries else self._vm.xcr0

    @property
    def xsave_size(self) -> int:
        """Bytes of the guest's standard-format XSAVE area."""
        return self.queries.xsave_size if self.queries else self._vm.xsave_size

    def add_common_page(self, address: Gva, content: bytes, execute: bool) -> Gpa:
        """Make a page that every address space has, readable in ring 3; before the first space is made."""
        return self.supervisor.add_common_page(address, content, execute)

    def new_address_space(self) -> AddressSpace:
        """Return an empty address space with the supervisor's half and the common pages. Raises OutOfMemory."""
        with self._lock:
            space = self._spaces.pop() if self._spaces else None
        space = space or self.supervisor.new_address_space()
        if self.replication:
            self.replication.adopt(space, threading.RLock())
        return space

    def release_address_space(self, space: AddressSpace) -> None:
        """Take a space back, with everything mapped in it. No processor may be in it.

        Its tables keep their places for the next user (see `AddressSpace`); large trees wait until the hypervisor
        has forgotten its shadows of them, all at once.
        """
        space.clear(keep=Gva(layout.SYSCALL_STUB))
        pooled = space.table_count <= TREE_TABLES
        if self.replication:
            self.replication.leave(space, pooled)
        with self._lock:
            if pooled:
                self._spaces.append(space)
                return
            self._condemned.append(space)
            if sum(other.table_count for other in self._condemned) < CONDEMNED_TABLES:
                return
            condemned, self._condemned = self._condemned, []
        for space in condemned:
            space.clear()
        self.shadows.forget()
        for space in condemned:
            space.close()

    def acquire_processor(self, node: int = 0) -> Processor:
        """Return an unused processor, made when there is none. Raises HostError when the host has no more.

        `node` counts where each node has a virtual machine of its own (`moves_processors`).
        """
        with self._lock:
            if self._idle and not self.moves_processors:
                return self._idle.pop()
            for processor in self._idle:
                if self._vm.processors[processor] == node:
                    self._idle.remove(processor)
                    return processor
            processor = self._new_processor(len(self._all), node)
            self._all.append(processor)
            if self.enforcement:
                self.enforcement.prepare_processor(processor)
            if self.moves_processors:
                self._vm.processors[processor] = node
            return processor

    @property
    def moves_processors(self) -> bool:
        """Return whether a thread that moves to another node needs another processor."""
        return self.replication is not None and self.replication.machines > 1

    def preferring(self, nodes: tuple[int, ...], interleave: bool) -> "AbstractContextManager[None]":
        """Let the calling thread's memory come from these nodes for a while. Requires: the machine has nodes."""
        assert self.replication
        return self.replication.memory.preferring(nodes, interleave)

    def enter(self, processor: Processor, space: AddressSpace, node: int = 0) -> None:
        """Let a processor, on its own thread, translate by `space` from its next run on, as `node` does."""
        if self.replication:
            self.replication.enter(processor, space, node)
        else:
            processor.enter(space.root)

    def _new_processor(self, number: int, node: int) -> Processor:
        if self.backend == "kvm":
            from enisle.machine.kvm import KvmProcessor

            vm = self._vm.vms[node] if self.moves_processors else self._vm
            try:
                return KvmProcessor(vm, self.supervisor, number)
            except OSError as error:
                raise HostError("no more virtual processors", str(error)) from error
        from enisle.machine.emulated import EmulatedProcessor

        return EmulatedProcessor(self._vm, self.supervisor, number)

    def release_processor(self, processor: Processor) -> None:
        """Give a processor back; its state is meaningless afterwards."""
        if self.replication:
            self.replication.remove(processor)
        with self._lock:
            self._idle.append(processor)

    def statistics(self) -> MachineStatistics:
        memory = self.memory
        return MachineStatistics(
            self.backend,
            len(self._all),
            sum(processor.exits for processor in self._all),
            memory.limit_frames * PAGE,
            memory.used_frames * PAGE,
            memory.window_frames * PAGE,
            self.page_tables.tables,
            memory.flushes,
        )

    def kvm_facts(self) -> KvmFacts:
        """Requires: the backend is KVM."""
        return KvmFacts(self._vm.syscall_ring, self._vm.xcr0, self._vm.max_processors)

    def check_extension(self, number: int) -> int:
        """Return what KVM says of a capability. Requires: the backend is KVM."""
        return self._vm.check_extension(number)

    def counter_khz(self) -> int:
        """Return the rate of the guest's time-stamp counter as the hypervisor knows it, else 0."""
        return self._vm.counter_khz() if self.backend == "kvm" else 0

    def counter(self) -> "Counter | None":
        """Return the guest's time-stamp counter, measured; None when there is none to rely on."""
        from enisle.machine import counter

        return counter.measure(self)

    def close(self) -> None:
        """Give everything back to the host. No processor may run."""
        if self.enforcement:
            self.enforcement.close()
        for processor in self._all:
            processor.close()
        self._vm.close()
        self.memory.close()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()
