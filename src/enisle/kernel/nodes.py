"""Nodes as the guest has them: which processors are whose, where threads run, and where their memory comes from.

A thread runs on one node: the next in turn at its birth, another when sched_setaffinity(2) leaves it no choice. Its
processor walks that node's page tables, its memory comes from there unless a policy says otherwise (numa(7)).
`Thread.node` and policies are guarded by kernel.lock. Exists only where an island was given nodes.
"""

import threading
from typing import TYPE_CHECKING

from enisle.abi import linux_mempolicy as m
from enisle.abi.types import PAGE_SHIFT, Gpa, Gva, page_down
from enisle.abi.x86 import GPR_COUNT, PTE_ADDRESS
from enisle.errors import HostError
from enisle.kernel.scheduling import processors_of
from enisle.machine import OutOfMemory, PageFault
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.thread import Thread
    from enisle.machine import Replication


class MemoryPolicy(Record):
    """What set_mempolicy(2) or mbind(2) was told."""

    mode: int
    flags: int
    nodes: tuple[int, ...]

    @property
    def turns(self) -> bool:
        """Return whether the nodes are taken in turns."""
        return self.mode == m.MPOL_INTERLEAVE

    @property
    def mask(self) -> int:
        return sum(1 << node for node in self.nodes)


class Nodes:
    """The nodes of one island."""

    def __init__(self, kernel: "Kernel", replication: "Replication") -> None:
        self.kernel, self.replication, self.memory = kernel, replication, replication.memory
        self.count = replication.nodes
        self.processors = processors_of(kernel.config.processors, self.count)
        """Masks of processors by node; a node may have none."""
        self._next = 0
        replication.launch()

    # ---- threads ---------------------------------------------------------------------------------------------------

    def begin(self, thread: "Thread") -> None:
        """Give a new thread its node, and the processor for it. Its registers are not set yet."""
        thread.node = self._choose(thread)
        if self.kernel.machine.moves_processors:
            self._change_processor(thread)

    def _choose(self, thread: "Thread") -> int:
        """Return the next node in turn whose processors the thread may use."""
        allowed = thread.scheduling.processors(self.kernel.config.processors)
        with self.kernel.lock:
            for _ in range(self.count):
                node = self._next % self.count
                self._next += 1
                if self.processors[node] & allowed:
                    return node
        raise AssertionError(f"{allowed=:#x}")

    def settle(self, thread: "Thread") -> None:
        """On the thread's own host thread, before its first instruction: its memory comes from its node."""
        self._prefer(thread, threading.get_ident())

    def end(self, thread: "Thread") -> None:
        """On the thread's own host thread: its identifier may be another's soon."""
        self.memory.prefer()

    def lend(self, thread: "Thread") -> None:
        """Let the calling thread, which serves a call of `thread`, allocate as it would."""
        self._prefer(thread, threading.get_ident())

    def _prefer(self, thread: "Thread", host_thread: int, policy: MemoryPolicy | None = None) -> None:
        policy = policy or thread.memory_policy
        if policy is None or not policy.nodes:
            self.memory.prefer(thread.node, thread=host_thread)
        else:
            self.memory.prefer(*policy.nodes, interleave=policy.turns, thread=host_thread)

    def set_policy(self, thread: "Thread", policy: MemoryPolicy | None) -> None:
        """Let the thread's memory follow a policy, or come from its node."""
        thread.memory_policy = policy
        self._prefer(thread, thread.host_ident)

    def affinity_changed(self, thread: "Thread") -> None:
        """Move a thread whose node has no processor left that it may use."""
        allowed = thread.scheduling.processors(self.kernel.config.processors)
        if not self.processors[thread.node] & allowed:
            self.move(thread, self._choose(thread))

    def move(self, thread: "Thread", node: int) -> None:
        """Let a thread run on `node` from its next instruction on. From any thread."""
        thread.node = node
        self._prefer(thread, thread.host_ident)
        if self.kernel.machine.moves_processors:
            thread.moving = True
            thread.notify()  # it changes its processor itself
        else:
            self.replication.place(thread.processor, node)

    def change_processor(self, thread: "Thread") -> None:
        """On the thread's own host thread, outside of the guest: go on upon a processor of its node's machine."""
        thread.moving = False
        self.kernel.poller.forget(thread)
        old = thread.processor
        registers, state = [thread.gpr[index] for index in range(GPR_COUNT)], old.xsave()
        bases = old.fs_base, old.gs_base
        if not self._change_processor(thread):
            return  # the host has no more: it stays where it was
        for index, value in enumerate(registers):
            thread.gpr[index] = value
        thread.processor.fs_base, thread.processor.gs_base = bases
        thread.processor.xrstor(state)
        self.kernel.machine.enter(thread.processor, thread.mm.space, thread.node)
        if thread.work:
            thread.processor.kick()  # whoever notified us meanwhile may have kicked the old one

    def _change_processor(self, thread: "Thread") -> bool:
        machine = self.kernel.machine
        try:
            processor = machine.acquire_processor(thread.node)
        except HostError:
            return False
        old, thread.processor, thread.gpr = thread.processor, processor, processor.gpr
        machine.release_processor(old)
        return True

    def processor_of(self, thread: "Thread") -> int:
        """Return the number of the processor the thread is told it runs on: one of its node's."""
        allowed = thread.scheduling.processors(self.kernel.config.processors)
        mask = self.processors[thread.node] & allowed or allowed
        numbers = [number for number in range(mask.bit_length()) if mask >> number & 1]
        return numbers[thread.tid % len(numbers)]

    # ---- memory ----------------------------------------------------------------------------------------------------

    def fill(self, thread: "Thread", fault: PageFault) -> bool:
        """Put an entry into a lazily made tree that lacked it; return whether the access can be tried again."""
        with thread.mm.lock:
            address = page_down(fault.address)
            return self.replication.fill(thread.mm.space, thread.node, address, fault.write, fault.execute)

    def policy_at(self, thread: "Thread", address: int) -> MemoryPolicy | None:
        """Return the policy for memory at an address, None where the default holds."""
        vma = thread.mm.vmas.find(address)
        return (vma.policy if vma else None) or thread.memory_policy

    def move_page(self, thread: "Thread", page: Gva, node: int) -> bool:
        """Move a page's contents to a frame on `node`; return whether it lies there now. Requires: the mm's lock."""
        memory, space = self.memory, thread.mm.space
        entry = space.entry(page)
        frame = Gpa(entry & PTE_ADDRESS)
        if memory.node_of(frame) == node:
            return True
        if thread.mm.has_pins or memory.is_window(frame) or memory.references(frame) != 1:
            return False
        taken = memory.take_on(node, 1)
        if not taken:
            raise OutOfMemory
        thread.mm.forget_pages((page >> PAGE_SHIFT,))
        space.relocate(page, taken[0])
        return True
