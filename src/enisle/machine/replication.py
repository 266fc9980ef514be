"""Replication of page tables as one machine does it: the mode, which processor walks which tree, and what is counted.

Modes: `off`, `eager` (whole trees for the nodes of a mask), `lazy` (filled as their nodes fault), `auto` (eager where
the judge says so), `migrate` (one tree, on the node where all processors of a space are). Any thread may change the
mode while guests run: a processor is moved off a tree before the tree goes. Order of locks: of the address space, then
ours, then those of tables and memory.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enisle.abi.types import Gpa
from enisle.abi.x86 import Pte
from enisle.errors import InvalidRequest
from enisle.machine import layout, replica_trees, replication_view
from enisle.machine.memory import OutOfMemory
from enisle.machine.nodes import check_mask
from enisle.machine.pagetables import AddressSpace, Shadows
from enisle.machine.processor import Processor
from enisle.machine.replica_check import verify
from enisle.machine.replicas import PRESENT, TableStore
from enisle.machine.replication_view import ReplicationStatistics, TreesView

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from enisle.machine.replication_auto import Pilot

LIMBO = 128
"""Tables that may wait to be freed."""
MODES = ("off", "eager", "lazy", "auto", "migrate")


class Replication:
    """The replicated page tables of one machine."""

    def __init__(self, store: TableStore, shadows: Shadows, mode: str = "off", mask: int = 0) -> None:
        self.store, self.shadows, self.memory = store, shadows, store.memory
        self.nodes = store.nodes
        self.lock = threading.RLock()
        self._changing = threading.Lock()
        self.pilot: Pilot | None = None
        """Decides in mode auto."""
        self.supervisor: AddressSpace | None = None
        self._supervisor_lock: Any = None
        self.machines = 1
        self.checked = False
        """Look at every tree after each change of mode."""
        self.mode = "off"
        self.mask: tuple[int, ...] = tuple(range(self.nodes))
        self.toggles = self.migrations = self.refused = 0
        self._spaces: dict[AddressSpace, Any] = {}
        """Spaces in use and their locks."""
        self._pooled: set[AddressSpace] = set()
        """Spaces out of use that wait for their next one."""
        self._limbo: list[Gpa] = []
        """Tables that no tree has any more, but the hypervisor may have a shadow of."""
        self._residents: dict[Processor, tuple[AddressSpace, int]] = {}
        self._chosen: set[AddressSpace] = set()
        """In mode auto: those that are to have copies."""
        self._start = self._checked(mode, mask)

    def _checked(self, mode: str, mask: int) -> tuple[str, tuple[int, ...]]:
        if mode not in MODES:
            raise InvalidRequest(f"no such mode of page tables: {mode!r}", hint=f"one of {', '.join(MODES)}")
        return mode, check_mask(mask, self.nodes) if mask else tuple(range(self.nodes))

    def begin(self, supervisor: AddressSpace, lock: Any) -> None:
        """Start in the mode that was asked for. `supervisor` is the space whose half all others share."""
        self.supervisor, self._supervisor_lock = supervisor, lock
        self.mode, self.mask = self._start
        self._share_supervisor()

    # ---- spaces and processors -----------------------------------------------------------------------------------

    def adopt(self, space: AddressSpace, lock: Any) -> None:
        """Keep the trees of a space in use as the mode wants them; `lock` guards its tables."""
        with self._using(space), lock:  # whoever is at it by its former lock comes to an end first
            with self.lock:
                self._spaces[space] = lock
                self._pooled.discard(space)
            self._conform(space)

    def leave(self, space: AddressSpace, pooled: bool) -> None:
        """A space is out of use: its tables wait for the next user (`pooled`), or are freed soon."""
        with self.lock:
            self._spaces.pop(space, None)
            self._chosen.discard(space)
            self._residents = {who: where for who, where in self._residents.items() if where[0] is not space}
            ops = replica_trees.tables_of(space)
            if ops.lazy and pooled:  # the next user may run on other nodes
                replica_trees.shrink(space, ops.nodes, self._limbo)
            if pooled:
                self._pooled.add(space)
            self._empty_limbo(LIMBO)
        if self.store.may_go_home():
            self.repair()

    def _empty_limbo(self, most: int = 0) -> None:
        """Free the pages that only old shadows may lead to. Requires: our lock."""
        if len(self._limbo) > most:
            self.shadows.forget()
            self.store.give(*self._limbo)
            self._limbo.clear()

    def spaces(self) -> list[AddressSpace]:
        with self.lock:
            return list(self._spaces)

    def lock_of(self, space: AddressSpace) -> Any:
        """Return the lock of a space in use. Raises KeyError."""
        with self.lock:
            return self._spaces[space]

    def enter(self, processor: Processor, space: AddressSpace, node: int) -> None:
        """Let a processor, on its own thread, translate by the tree of `node` from its next run on."""
        with self._locked(space):
            self._open(space, node)
            with self.lock:
                self._residents[processor] = space, node
            processor.enter(replica_trees.tables_of(space).root_on(space.table, node))
        self._follow(space)

    def place(self, processor: Processor, node: int) -> None:
        """Move a processor to another node, from any thread: it walks that node's tree when this returns."""
        with self.lock:
            resident = self._residents.get(processor)
        if resident is None:
            return
        space = resident[0]
        with self._locked(space):
            self._open(space, node)
            with self.lock:
                if self._residents.get(processor) != resident:
                    return  # it has gone elsewhere meanwhile
                self._residents[processor] = space, node
            processor.redirect(replica_trees.tables_of(space).root_on(space.table, node))
        self._follow(space)

    def remove(self, processor: Processor) -> None:
        """A processor has left its space for good."""
        with self.lock:
            resident = self._residents.pop(processor, None)
        if resident:
            self._follow(resident[0])

    def node_of(self, processor: Processor) -> int:
        """Return the node a processor is on, 0 while it is in no space. Takes no lock: called while it runs."""
        resident = self._residents.get(processor)
        return resident[1] if resident else 0

    def residents(self, space: AddressSpace) -> list[tuple[Processor, int]]:
        """Return the processors in a space, with their nodes."""
        with self.lock:
            return [(processor, node) for processor, (where, node) in self._residents.items() if where is space]

    @contextmanager
    def _using(self, space: AddressSpace) -> Generator[bool]:
        """Hold the lock of a space, and tell whether it is still in use: for those who are not its user."""
        with self.lock:
            lock = self._spaces.get(space)
        if lock is None:
            yield False
            return
        with lock:
            with self.lock:
                still = self._spaces.get(space) is lock
            yield still

    def guarding(self, space: AddressSpace) -> "AbstractContextManager[bool]":
        """Return a guard of a space's tables that tells whether it is still in use."""
        return self._using(space)

    def _locked(self, space: AddressSpace) -> Any:
        with self.lock:
            return self._spaces.get(space, self.lock)

    def _open(self, space: AddressSpace, node: int) -> None:
        """Make the root of a lazy tree. Without memory for it the node walks the first tree."""
        ops = replica_trees.tables_of(space)
        if ops.lazy and node in self.mask:
            try:
                replica_trees.open_root(space, node, layout.SYSCALL_STUB)
            except OutOfMemory:
                self.refused += 1

    def _redirect(self, space: AddressSpace) -> None:
        """Load every processor of a space with the root it is to walk now. Requires: the space's lock."""
        ops = replica_trees.tables_of(space)
        for processor, node in self.residents(space):
            processor.redirect(ops.root_on(space.table, node))

    # ---- faults --------------------------------------------------------------------------------------------------

    def fill(self, space: AddressSpace, node: int, address: int, write: bool, execute: bool) -> bool:
        """Give a lazy tree the entry that its node's processor has just missed; return whether it had missed it.

        Requires: the space's lock. False when the page is not there for this access, or was in the tree already.
        """
        ops = replica_trees.tables_of(space)
        if not ops.lazy or node not in ops.nodes:
            return False
        entry = space.entry(address)
        if not entry & PRESENT or (write and not entry & Pte.WRITABLE) or (execute and entry & Pte.NX):
            return False
        try:
            return bool(replica_trees.fill(space, node, address))
        except OutOfMemory:
            self.refused += 1
            self._drop(space, (node,))  # the node goes on with the first tree
            return True

    # ---- modes ---------------------------------------------------------------------------------------------------

    def set_mode(self, mode: str, mask: int = 0) -> None:
        """Change how page tables are replicated, while guests run. Raises InvalidRequest."""
        checked = self._checked(mode, mask)
        with self._changing:
            self._change_mode(*checked)
            if self.checked:
                self.verify()

    def _change_mode(self, mode: str, mask: tuple[int, ...]) -> None:
        if self.pilot:
            self.pilot.stop()
        with self.lock:
            self.mode, self.mask, self.pilot = mode, mask, None
            self._chosen.clear()
        if mode != "off":
            self._share_supervisor()
        for space in self.spaces():
            with self._using(space) as used:
                if used:
                    self._conform(space)
            self._follow(space)
        with self.lock:
            for space in self._pooled:
                self._conform(space)
            self._empty_limbo()
        self.launch()

    def launch(self) -> None:
        """Begin to look at spaces if the mode is auto: from here on the process has one more thread."""
        if self.mode == "auto" and not self.pilot:
            from enisle.machine.replication_auto import Pilot

            self.pilot = Pilot(self)
            self.pilot.start()

    def choose(self, space: AddressSpace, wanted: bool) -> None:
        """In mode auto: let a space have copies, or not."""
        with self._using(space) as used:
            if used:
                with self.lock:
                    (self._chosen.add if wanted else self._chosen.discard)(space)
                self._conform(space)

    def chosen(self, space: AddressSpace) -> bool:
        with self.lock:
            return space in self._chosen

    def _share_supervisor(self) -> None:
        """Give every node its own copy of the half that all spaces share; kept from then on, a few tables a node."""
        assert self.supervisor is not None
        try:
            with self._supervisor_lock:
                replica_trees.grow(self.supervisor, tuple(range(self.nodes)))
        except OutOfMemory:
            self.refused += 1

    def _wanted(self, space: AddressSpace) -> tuple[int, ...]:
        with self.lock:
            if self.mode == "eager" or (self.mode == "auto" and space in self._chosen):
                return self.mask
            return ()

    def _conform(self, space: AddressSpace) -> None:
        """Bring the trees of a space to what the mode wants. Requires: its lock."""
        ops = replica_trees.tables_of(space)
        before = ops.nodes
        lazy = self.mode == "lazy"
        if ops.lazy != lazy:
            self._drop(space, ops.nodes)
            ops.lazy = lazy
        if lazy:
            for _, node in self.residents(space):
                self._open(space, node)
        else:
            wanted = set(self._wanted(space)) - {ops.home}
            self._drop(space, tuple(set(ops.nodes) - wanted))
            try:
                replica_trees.grow(space, tuple(sorted(wanted)))
            except OutOfMemory:
                self.refused += len(wanted)
        self._redirect(space)
        self.toggles += bool(before) != bool(ops.nodes)

    def _drop(self, space: AddressSpace, nodes: tuple[int, ...]) -> None:
        """Drop trees, after every processor has left them. Requires: the space's lock."""
        if not nodes:
            return
        for processor, node in self.residents(space):
            if node in nodes:
                processor.redirect(space.table)
        replica_trees.shrink(space, nodes)

    def migrate(self, space: AddressSpace, node: int, keep: bool = False) -> None:
        """Move the first tree of a space to `node`; the old one stays only if `keep`. Raises OutOfMemory, unmoved."""
        check_mask(1 << node, self.nodes)
        with self._using(space) as used:
            ops = replica_trees.tables_of(space)
            source = ops.home
            if node == source or not used:
                return
            if lazy := ops.lazy:
                self._drop(space, ops.nodes)
                ops.lazy = False
            try:
                replica_trees.grow(space, (node,))
                replica_trees.move_home(space, node)
                self.migrations += 1
                self._redirect(space)
                if not keep and (lazy or source not in self._wanted(space)):
                    self._drop(space, (source,))
            finally:
                ops.lazy = lazy
            if lazy:
                self._conform(space)

    def _follow(self, space: AddressSpace) -> None:
        """Move the tables after their processors, once all of them are on one node that is not theirs."""
        if self.mode not in ("migrate", "auto"):
            return
        nodes = {node for _, node in self.residents(space)}
        if len(nodes) == 1 and replica_trees.tables_of(space).home not in nodes:
            try:
                self.migrate(space, nodes.pop())
            except OutOfMemory:
                self.refused += 1

    def repair(self) -> int:
        """Bring tables home that had to lie on a foreign node; return how many."""
        count = 0
        for space in self.spaces():
            with self._using(space) as used:
                if used:
                    moved = replica_trees.repair(space)
                    self._redirect(space)
                    replica_trees.retire(space, moved)
                    count += len(moved)
        return count

    # ---- being seen ----------------------------------------------------------------------------------------------

    def verify(self) -> int:
        """Check the tables of every space in use; return how many copies there are. Raises BrokenTables."""
        checked = 0
        for space in self.spaces():
            with self._using(space) as used:
                checked += verify(space).copies if used else 0
        if self.supervisor:
            with self._supervisor_lock:
                checked += verify(self.supervisor).copies
        return checked

    def statistics(self) -> ReplicationStatistics:
        """Return what there is and what was done since the machine began."""
        with self.lock:
            return replication_view.statistics(self, len(self._spaces))

    def describe(self, space: AddressSpace) -> TreesView:
        """Return the trees of a space as they stand, a tree for each node that has one of its own."""
        with self._locked(space):
            return replication_view.describe(space)

    def root_on(self, space: AddressSpace, node: int) -> Gpa:
        """Return the root that processors of `node` walk."""
        return replica_trees.tables_of(space).root_on(space.table, node)
