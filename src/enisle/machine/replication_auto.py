"""The mode `auto` at work: looks at every address space now and then, and lets the judge decide on its copies.

A look clears the accessed bits of some pages (never where a dirty bit could be lost by it), lets the guest run
for a moment and counts which were accessed again. A thread of the island, started with the mode and ended with it.
"""

import threading
import time
from typing import TYPE_CHECKING

from enisle.abi.types import FRAMES_PER_HUGE, Gpa
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine import replica_trees
from enisle.machine.pagetables import AddressSpace
from enisle.machine.replicas import ENTRIES, HUGE_LEAF, PRESENT, WRITABLE, ReplicatedTables
from enisle.machine.replication_policy import Judge, Prices, Seen, walks

if TYPE_CHECKING:
    from enisle.machine.replication import Replication

INTERVAL, WINDOW = 0.4, 0.01
"""Seconds between two looks, and how long one lets the guest run."""
TABLES, PAGES = 4, 48
"""How many tables a look samples, and how many pages of each."""
ACCESSED, DIRTY = Pte.ACCESSED, Pte.DIRTY

Sample = tuple[Gpa, int, list[int]]
"""A table, how many of its entries were accessed, and the indices whose bit was cleared."""


class Pilot:
    """Looks at the spaces of one machine."""

    def __init__(self, replication: "Replication", prices: Prices | None = None) -> None:
        self.replication, self.prices = replication, prices
        self.looks = 0
        self.failure: BaseException | None = None
        self._judges: dict[AddressSpace, Judge] = {}
        self._churn: dict[AddressSpace, tuple[float, int, int]] = {}
        """Time, entries and runs at the last look."""
        self._remote: dict[AddressSpace, float] = {}
        """Walks per second by processors whose node has no tree of its own, as last seen."""
        self._end = threading.Event()
        self._host = threading.Thread(target=self._run, name="page-tables", daemon=True)

    def remote_walks(self) -> float:
        """Return the estimated walks per second in tables on a foreign node: a lower bound, of what a look can see."""
        return sum(list(self._remote.values()))

    def start(self) -> None:
        self._host.start()

    def stop(self) -> None:
        """Make no further decision; returns when the last one is made."""
        self._end.set()
        if self._host.is_alive() and self._host is not threading.current_thread():
            self._host.join()

    def _run(self) -> None:
        try:
            while not self._end.wait(INTERVAL):
                for space in self.replication.spaces():
                    self.look(space, time.monotonic())
        except BaseException as error:
            self.failure = error
            raise

    def look(self, space: AddressSpace, now: float) -> None:
        """Look at one space and act on what is seen; takes a moment, during which the guest runs."""
        replication = self.replication
        nodes = [node for _, node in replication.residents(space)]
        ops = replica_trees.tables_of(space)
        remote = sum(node != ops.home for node in nodes) / len(nodes) if nodes else 0.0
        self.looks += 1
        touched = self._touched(space) if remote else 0.0
        before, entries, calls = self._churn.get(space, (now, ops.changes, ops.calls))
        self._churn[space] = now, ops.changes, ops.calls
        wanted = sum(node != ops.home for node in replication.mask)
        seen = Seen(now - before, touched, WINDOW, remote, ops.changes - entries, ops.calls - calls, wanted)
        far = sum(node != ops.home and node not in ops.nodes for node in nodes) / len(nodes) if nodes else 0.0
        self._remote[space] = walks(seen) * far
        judge = self._judges.setdefault(space, Judge(self.prices))
        if not self._end.is_set() and judge.look(seen) != replication.chosen(space):
            replication.choose(space, judge.on)
        for gone in set(self._judges) - set(replication.spaces()):
            del self._judges[gone]
            self._churn.pop(gone, None)
            self._remote.pop(gone, None)

    def _touched(self, space: AddressSpace) -> float:
        """Return how many leaf entries of the whole space are accessed within the window, about."""
        with self.replication.guarding(space) as used:
            samples = [*self._begin(space, 0), *self._begin(space, 1)] if used else []
        if not samples:
            return 0.0
        self._end.wait(WINDOW)
        total = 0.0
        with self.replication.guarding(space) as used:
            if not used:
                return 0.0
            ops = replica_trees.tables_of(space)
            weights = [len(level) / max(1, min(TABLES, len(level))) for level in space.tables[:2]]
            for table, accessed, cleared in samples:
                if not ops.store.frames.is_table(table) or not cleared:
                    continue
                entries = ops.get_run(table, 0, ENTRIES)
                hits = sum(bool(entries[index] & ACCESSED) for index in cleared)
                total += accessed * hits / len(cleared) * weights[ops.store.frames.level(table)]
        return total

    def _begin(self, space: AddressSpace, level: int) -> list[Sample]:
        """Clear the accessed bits of a sample of the pages mapped by tables of `level`."""
        ops = replica_trees.tables_of(space)
        tables = list(space.tables[level].values())
        first = self.looks * TABLES % max(1, len(tables))
        return [self._clear(space, ops, table, level) for table in (tables[first:] + tables[:first])[:TABLES]]

    def _clear(self, space: AddressSpace, ops: ReplicatedTables, table: Gpa, level: int) -> Sample:
        entries = ops.get_run(table, 0, ENTRIES)
        wanted = PRESENT | ACCESSED | (HUGE_LEAF if level else 0)
        marked = [index for index, entry in enumerate(entries) if entry & wanted == wanted]
        # An entry that is writable and clean might lose the dirty bit that a processor sets in this moment.
        safe = [index for index in marked if entries[index] & DIRTY or not entries[index] & WRITABLE]
        chosen = safe[:: max(1, len(safe) // (4 if level else PAGES))]
        for index in chosen:
            ops.clear_ad(table, index, 1, ACCESSED)
            frame = entries[index] & PTE_ADDRESS
            space.memory.flush(Gpa(frame), FRAMES_PER_HUGE if level else 1)
        return table, len(marked), chosen
