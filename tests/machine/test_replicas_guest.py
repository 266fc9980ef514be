"""Guests on replicated page tables: each node walks its own tree, and all see one memory."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from enisle.abi.types import HUGE, PAGE, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, RAX, RCX, RDI, RSI, Pte
from enisle.machine import Interrupted, Machine, PageFault, Processor, Syscall
from enisle.machine.frames import BrokenTables
from enisle.machine.node_machine import NodePlan
from enisle.machine.replica_check import check_ring
from enisle.machine.replica_trees import copy_on, tables_of
from enisle.machine.replication import Replication
from machine.guest import DATA, HOLE, READ_ONLY, READ_WRITE, SPIN, SYSCALL, Guest

LOAD = b"\x48\x8b\x07" + SYSCALL  # mov rax, [rdi]
STORE = b"\x48\x89\x07" + SYSCALL  # mov [rdi], rax
ACCESSED, DIRTY = Pte.ACCESSED, Pte.DIRTY
SHOOTDOWNS = 10_000 if os.environ.get("ENISLE_SOAK") else 500


class NodeGuest(Guest):
    """A guest with one processor on every node."""

    def __init__(self, machine: Machine, nodes: int) -> None:
        super().__init__(machine)
        self.nodes = nodes
        assert machine.replication
        self.replication: Replication = machine.replication
        self.on = [self.processor_on(node) for node in range(nodes)]

    def processor_on(self, node: int) -> Processor:
        processor = self.machine.acquire_processor(node)
        self.machine.enter(processor, self.space, node)
        return processor

    def serve(self, node: int, fault: PageFault) -> bool:
        """Do about a fault what the kernel would; return whether the access is allowed."""
        with self.replication.lock_of(self.space):
            if self.replication.fill(self.space, node, fault.address, fault.write, fault.execute):
                return True
            entry = self.space.entry(fault.address)
            if not entry & Pte.PRESENT or (fault.write and not entry & Pte.WRITABLE):
                return False
            self.memory.flush(Gpa(entry & PTE_ADDRESS), 1)  # it came from a tree that is gone
            return True

    def go(self, node: int, code: bytes, address: int = DATA, value: int = 0) -> object:
        """Run code on the processor of a node; a lazy tree is filled as the kernel would."""
        self.memory.write(self.code, code)
        processor = self.on[node]
        for _ in range(8):
            self.begin(processor)
            processor.gpr[RDI], processor.gpr[RAX] = address, value
            exit = processor.run()
            if isinstance(exit, Interrupted) or (isinstance(exit, PageFault) and self.serve(node, exit)):
                continue
            return exit
        raise AssertionError("faults without end")

    def load(self, node: int, address: int = DATA) -> int:  # type: ignore[override]
        exit = self.go(node, LOAD, address)
        assert isinstance(exit, Syscall), exit
        return self.on[node].gpr[RAX]

    def store(self, node: int, value: int, address: int = DATA) -> object:
        return self.go(node, STORE, address, value)


def make(backend: str, nodes: int, mode: str, **more: bool) -> Machine:
    return Machine(backend, 128 << 20, nodes=NodePlan(nodes, mode, **more))


@pytest.fixture(params=["eager", "lazy"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def node_guest(backend: str, mode: str) -> Iterator[NodeGuest]:
    with make(backend, 4, mode, checked=True) as machine:
        yield NodeGuest(machine, 4)


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_every_node_walks_a_tree_of_its_own_on_its_own_memory(backend: str, nodes: int) -> None:
    with make(backend, nodes, "eager", checked=True) as machine:
        guest = NodeGuest(machine, nodes)
        ((chunk, frames),) = machine.memory.allocate_chunks(1)
        guest.space.map(Gva(1 << 32), chunk, frames, READ_WRITE)
        for node in range(nodes):
            assert isinstance(guest.store(node, 100 + node, (1 << 32) + PAGE * node), Syscall)
            assert guest.load(node, (1 << 32) + PAGE * node) == 100 + node
        roots = {guest.replication.root_on(guest.space, node) for node in range(nodes)}
        assert len(roots) == nodes
        views = guest.replication.describe(guest.space).trees
        assert sorted(views) == list(range(nodes))
        for node, tree in views.items():
            pending = [tree]
            while pending:
                view = pending.pop()
                assert (view.node, view.memory_node) == (node, node), view
                pending += view.children
        assert guest.replication.verify() > 0
        assert guest.replication.statistics().fallbacks == 0


def test_all_nodes_see_one_memory(node_guest: NodeGuest) -> None:
    for node in range(4):
        assert isinstance(node_guest.store(node, 7 + node), Syscall)
        assert [node_guest.load(other) for other in range(4)] == [7 + node] * 4
    node_guest.replication.verify()


def test_accessed_and_dirty_are_seen_whichever_node_it_was(node_guest: NodeGuest) -> None:
    space = node_guest.space
    for node in range(4):
        index = DATA >> 12 & 511
        table = space.find_table(DATA, 0)
        assert table is not None
        assert node_guest.load(node) == 0
        assert space.entry(DATA) & (ACCESSED | DIRTY) == ACCESSED, f"{node=}"
        node_guest.store(node, 0)
        assert space.entry(DATA) & DIRTY, f"{node=}"
        node_guest.replication.store.frames.ring(table)
        before = space.ops.clear_ad(table, index, 1)  # type: ignore[attr-defined]
        assert before[0] & DIRTY
        node_guest.memory.flush(node_guest.data, 1)
        assert not space.entry(DATA) & (ACCESSED | DIRTY)


def test_a_downgrade_and_a_remap_reach_every_node(node_guest: NodeGuest) -> None:
    for node in range(4):
        node_guest.store(node, 1)
    flushes = node_guest.memory.flushes
    node_guest.space.protect(DATA, 1, READ_ONLY)
    assert node_guest.memory.flushes == flushes + 1
    for node in range(4):
        exit = node_guest.store(node, 2)
        assert isinstance(exit, PageFault), f"{node=} {exit}"
        assert exit.write, f"{node=}"
        assert exit.present, f"{node=}"
    node_guest.space.protect(DATA, 1, READ_WRITE)
    for node in range(4):
        assert isinstance(node_guest.store(node, 3), Syscall)
    assert node_guest.memory.flushes == flushes + 1, "an upgrade needs no flush"
    node_guest.space.unmap(DATA, 1)
    for node in range(4):
        assert isinstance(node_guest.store(node, 4), PageFault)
    frame = node_guest.page(DATA, READ_WRITE)
    node_guest.memory.write(frame, (99).to_bytes(8, "little"))
    assert [node_guest.load(node) for node in range(4)] == [99] * 4


def test_a_guest_cannot_touch_its_page_tables(node_guest: NodeGuest) -> None:
    for node in range(4):
        root = node_guest.replication.root_on(node_guest.space, node)
        for address in (root, 0xFFFF_8000_0000_0000):
            assert isinstance(node_guest.store(node, 0, address), PageFault)
    assert isinstance(node_guest.store(0, 0, HOLE), PageFault)


def test_large_pages_are_split_and_copied_in_every_tree(node_guest: NodeGuest) -> None:
    space, memory, place = node_guest.space, node_guest.memory, 1 << 32
    ((chunk, frames),) = memory.allocate_chunks(1)
    space.map(Gva(place), chunk, frames, READ_WRITE)
    for node in range(4):
        node_guest.store(node, 50 + node, place + PAGE * node)
    space.protect(Gva(place + PAGE), 1, READ_ONLY)
    for node in range(4):
        assert isinstance(node_guest.store(node, 1, place + PAGE), PageFault)
        assert node_guest.load(node, place + PAGE * node) == 50 + node
    node_guest.replication.verify()
    space.unmap(Gva(place), frames)
    for node in range(4):
        assert isinstance(node_guest.store(node, 1, place + HUGE // 2), PageFault)


COUNT = b"\x48\xff\xc0\x48\x01\x07\x48\x39\xc8\x75\xf5" + SYSCALL  # l: inc rax; add [rdi], rax; cmp rax, rcx; jne l


class Computing:
    """A processor that computes on a thread of its own until it makes a system call."""

    def __init__(self, guest: NodeGuest, node: int, code: bytes, rounds: int, address: int) -> None:
        self.guest, self.node, self.processor = guest, node, guest.on[node]
        guest.memory.write(guest.code, code)
        guest.begin(self.processor)
        self.processor.gpr[RDI], self.processor.gpr[RCX] = address, rounds
        self.failure: object = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            exit = self.processor.run()
            if isinstance(exit, Interrupted) or (isinstance(exit, PageFault) and self.guest.serve(self.node, exit)):
                continue
            if not isinstance(exit, Syscall):
                self.failure = exit
            return


def test_the_mode_is_toggled_a_hundred_times_under_a_running_computation(backend: str) -> None:
    rounds = 30_000_000 if backend == "kvm" else 1_500_000
    with make(backend, 2, "off") as machine:
        guest = NodeGuest(machine, 2)
        other = guest.page(HOLE, READ_WRITE)
        computing = [Computing(guest, node, COUNT, rounds, (DATA, HOLE)[node]) for node in range(2)]
        toggles = 0
        while toggles < 100 or any(each.thread.is_alive() for each in computing):
            guest.replication.set_mode(("eager", "off", "lazy", "off")[toggles % 4])
            toggles += 1
            guest.replication.verify()
            if guest.replication.mode == "off":
                statistics = guest.replication.statistics()
                own = statistics.tables - guest.machine.supervisor.space.table_count
                assert statistics.replicas == guest.machine.supervisor.space.table_count, f"{own=}"
            time.sleep(0.002)
        for each in computing:
            each.thread.join()
            assert each.failure is None
        wanted = rounds * (rounds + 1) // 2
        assert [guest.word(guest.data), guest.word(other)] == [wanted, wanted]
        assert guest.replication.statistics().toggles >= 50


def test_tables_follow_a_processor_to_another_node(backend: str) -> None:
    with make(backend, 4, "migrate") as machine:
        guest = Guest(machine)
        assert machine.replication
        replication = machine.replication
        machine.enter(guest.processor, guest.space, 0)
        first = replication.root_on(guest.space, 0)
        computing_on: list[int] = []
        for node in (1, 3, 0, 2):
            replication.place(guest.processor, node)
            exit = guest.run(SYSCALL)
            if isinstance(exit, Interrupted):  # by the redirection
                exit = guest.processor.run()
            assert isinstance(exit, Syscall)
            view = replication.describe(guest.space)
            computing_on.append(view.home)
            assert list(view.trees) == [node], "the tree left behind is gone"
            assert guest.space.root == view.trees[node].gpa != first
        assert computing_on == [1, 3, 0, 2]
        assert replication.statistics().migrations == 4
        replication.verify()


@pytest.mark.kvm
def test_one_virtual_machine_per_node_over_one_memory() -> None:
    with make("kvm", 2, "eager", machine_per_node=True) as machine:
        guest = NodeGuest(machine, 2)
        statistics = guest.replication.statistics()
        assert (statistics.machines, len(guest.replication.describe(guest.space).trees)) == (2, 2)
        for node in range(2):
            guest.store(node, 10 + node)
            assert [guest.load(other) for other in range(2)] == [10 + node] * 2
        guest.space.protect(DATA, 1, READ_ONLY)
        for node in range(2):
            assert isinstance(guest.store(node, 1), PageFault), "one flush is for both machines"
        table, index = guest.space.find_table(DATA, 0), DATA >> 12 & 511
        assert table is not None
        guest.space.protect(DATA, 1, READ_WRITE)
        for node in range(2):
            guest.space.ops.clear_ad(table, index, 1)  # type: ignore[attr-defined]
            guest.memory.flush(guest.data, 1)
            guest.store(node, 5)
            assert guest.space.entry(DATA) & DIRTY, f"{node=}"


def test_a_spinning_processor_is_redirected_at_once(backend: str) -> None:
    with make(backend, 2, "off") as machine:
        guest = NodeGuest(machine, 2)
        computing = Computing(guest, 1, SPIN, 0, DATA)
        time.sleep(0.05)
        for turn in range(20):
            guest.replication.set_mode("eager" if turn % 2 == 0 else "off")
        guest.memory.write(guest.code, SYSCALL)
        guest.machine.memory.flush(guest.code, 1)
        guest.on[1].kick()
        computing.thread.join(10)
        assert not computing.thread.is_alive()
        assert computing.failure is None


# l: mov rax, [rdi]; inc rbx; mov [rsi], rax; mov [rsi+8], rbx; jmp l
READ_ON = b"\x48\x8b\x07\x48\xff\xc3\x48\x89\x06\x48\x89\x5e\x08\xeb\xf1"


class Readers:
    """A processor on each node that reads one word without end, and tells what it read and how often."""

    def __init__(self, guest: NodeGuest) -> None:
        self.guest, self.stopped = guest, False
        self.failures: list[object] = []
        self.outputs = [guest.page(0x90_0000 + PAGE * node, READ_WRITE) for node in range(guest.nodes)]
        guest.memory.write(guest.code, READ_ON)
        self.threads = [threading.Thread(target=self._run, args=(node,)) for node in range(guest.nodes)]
        for thread in self.threads:
            thread.start()

    def _run(self, node: int) -> None:
        processor = self.guest.on[node]
        self.guest.begin(processor)
        processor.gpr[RDI], processor.gpr[RSI] = DATA, 0x90_0000 + PAGE * node
        while not self.stopped:
            exit = processor.run()
            if isinstance(exit, Interrupted) or (isinstance(exit, PageFault) and self.guest.serve(node, exit)):
                continue
            self.failures.append(exit)
            return

    def read(self) -> list[int]:
        """Return what each has read in a round that it began after this call."""
        counts = [self.guest.word(Gpa(output + 8)) for output in self.outputs]
        deadline = time.monotonic() + 10
        while any(self.guest.word(Gpa(self.outputs[at] + 8)) < count + 2 for at, count in enumerate(counts)):
            assert time.monotonic() < deadline, "a processor stands still"
            time.sleep(0)
        return [self.guest.word(output) for output in self.outputs]

    def stop(self) -> None:
        self.stopped = True
        for processor in self.guest.on:
            processor.kick()
        for thread in self.threads:
            thread.join()
        assert not self.failures


def stale_reads(machine: Machine, rounds: int) -> int:
    """Put one of two pages in the place of the other under two readers, `rounds` times; count reads of the old one."""
    guest = NodeGuest(machine, 2)
    pages = [guest.page(0x80_0000 + PAGE * index, READ_WRITE) for index in range(2)]
    for index, frame in enumerate(pages):
        guest.memory.write(frame, (0x1111 * (index + 1)).to_bytes(8, "little"))
    readers, stale = Readers(guest), 0
    try:
        for turn in range(rounds):
            now = turn % 2
            with guest.replication.lock_of(guest.space):
                guest.memory.share(pages[now], 1)
                if turn % 3:
                    guest.space.protect(DATA, 1, READ_ONLY)
                guest.space.unmap(DATA, 1)
                guest.space.map(DATA, pages[now], 1, READ_WRITE)
            stale += sum(word != 0x1111 * (now + 1) for word in readers.read())
    finally:
        readers.stop()
    guest.replication.verify()
    return stale


@pytest.mark.kvm
@pytest.mark.timeout(300)
@pytest.mark.parametrize("plan", [("eager", False), ("lazy", False), ("eager", True)], ids=str)
def test_no_processor_reads_a_page_after_it_went(plan: tuple[str, bool]) -> None:
    with make("kvm", 2, plan[0], machine_per_node=plan[1]) as machine:
        assert stale_reads(machine, SHOOTDOWNS) == 0


def test_a_machine_that_is_to_verify_finds_a_damaged_copy(backend: str) -> None:
    """What `--verify-page-tables` does: at the next write of the table, and at the next change of mode."""
    with make(backend, 2, "eager", checked=True) as machine:
        guest = NodeGuest(machine, 2)
        tables = tables_of(guest.space)
        table = guest.space.tables[0][DATA >> 21]
        copy = copy_on(tables, table, 1)
        assert copy
        word = (copy >> 3) + (DATA >> 12 & 511)
        whole = guest.memory.words[word]
        guest.memory.words[word] = whole ^ Pte.WRITABLE
        with pytest.raises(BrokenTables, match="copies of a page table differ"):
            guest.replication.set_mode("eager", 3)
        guest.memory.words[word] = whole
        guest.replication.set_mode("lazy")
        guest.replication.set_mode("eager")
        ring = check_ring(tables, table, 0)
        tables.nodes = ()  # from now on there should be no copy
        with pytest.raises(BrokenTables, match="has not the copies it must have"):
            guest.space.protect(DATA, 1, READ_ONLY)
        tables.nodes = (1,)
        assert check_ring(tables, table, 0) == ring
