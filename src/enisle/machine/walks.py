"""Walks of page tables counted: which node's tables the processors of which node read. For the emulated backend.

The emulator calls `Walker` whenever its own translations miss; it reads our tables as a processor does (SDM 3A 4.5),
sets accessed and dirty bits in the copy it reads (4.8), and counts each table page read by the processor's node, the
page's node and the level. What it cannot translate is left to the emulator's own walk, which knows every exception.
How often an emulator misses says nothing about a TLB of hardware; where it has to read then, is the same everywhere:
the *share* of remote reads is a finding, cycles are an estimate of `CostModel`. Called by whoever runs the processor.
"""

from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, POINTER, c_bool, c_int, c_uint64, c_void_p
from typing import Any

from enisle.abi import atomic
from enisle.abi.types import HUGE_MASK, PAGE, Gpa
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import InvalidRequest
from enisle.machine.memory import GuestMemory
from enisle.records import Record

LEVELS = 4
PRESENT, WRITABLE, USER, HUGE_LEAF = int(Pte.PRESENT), int(Pte.WRITABLE), int(Pte.USER), int(Pte.HUGE)
ACCESSED, DIRTY, NX = int(Pte.ACCESSED), int(Pte.DIRTY), int(Pte.NX)
WALKED = ((39, 0), (30, (1 << 30) - 1), (21, HUGE_MASK), (12, PAGE - 1))
"""From the root down: address bits below the index, and the offset within a leaf of that level."""
LOW_HALF = 0xFFFF_FFFF
USER_END = 1 << 47

# unicorn/unicorn.h
TLB_EVENT = CFUNCTYPE(c_bool, c_void_p, c_uint64, c_int, POINTER(c_uint64), c_void_p)
MEM_WRITE, MEM_FETCH = 17, 18
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4


class CostModel(Record):
    """What a read of a page-table entry is assumed to cost, in cycles, when the processor's caches do not have it.

    The defaults are those of a four-socket Xeon as the literature on replicated page tables gives them; give your own.
    """

    local: int = 280
    remote: int = 580

    def check(self) -> "CostModel":
        """Return the model. Raises InvalidRequest."""
        if not 0 < self.local <= self.remote <= 1 << 20:
            why = f"local {self.local}, remote {self.remote} cycles"
            raise InvalidRequest("these latencies make no sense", why, "0 < local <= remote, as in 280 and 580")
        return self


class WalkStatistics(Record):
    """Counts of page-table reads; `reads[p][t]` are those of node p's processors in tables on node t."""

    walks: int
    local: int
    remote: int
    leaf_remote: int
    """Remote ones in tables of the lowest level: all that is left where a processor caches the levels above."""
    reads: tuple[tuple[int, ...], ...]
    model: CostModel = CostModel()

    @property
    def remote_share(self) -> float:
        """Remote reads of all; 0 when there were none."""
        return self.remote / (self.local + self.remote) if self.walks else 0.0

    def estimated_cycles(self) -> int:
        """Return what the reads would cost by the model: an estimate, no measurement."""
        return self.local * self.model.local + self.remote * self.model.remote


class Walks:
    """The counters of one machine. Its processors run one at a time, so plain additions are enough."""

    def __init__(self, memory: GuestMemory, nodes: int, node_of: Callable[[int], int]) -> None:
        atomic.prepare()
        self.memory, self.nodes, self.node_of = memory, nodes, node_of
        self.node_of_processor: Callable[[Any], int] = lambda _processor: 0
        self.model = CostModel()
        self.uncounted: Gpa | None = None
        """A root that is no guest's."""
        self.reset()

    def walker(self, root: Gpa) -> "Walker":
        """Return the walker of one more processor, which is at `root`."""
        made = Walker(self)
        made.root = root
        return made

    def reset(self) -> None:
        """Begin to count anew."""
        self.walks = 0
        self.reads = [[[0] * LEVELS for _ in range(self.nodes)] for _ in range(self.nodes)]

    def statistics(self) -> WalkStatistics:
        nodes = range(self.nodes)
        reads = tuple(tuple(sum(self.reads[p][t]) for t in nodes) for p in nodes)
        total, local = sum(map(sum, reads)), sum(reads[node][node] for node in nodes)
        leaf = sum(self.reads[p][t][0] for p in nodes for t in nodes if p != t)
        return WalkStatistics(self.walks, local, total - local, leaf, reads, self.model)


class Walker:
    """One processor's walker. `root` and `node` are set by whoever lets the processor run."""

    def __init__(self, walks: Walks) -> None:
        self.root = Gpa(0)
        self.node = 0
        self.refused = False
        """An access was left to the emulator; cleared by whoever lets the processor run."""
        self._walks, self._words = walks, walks.memory.words
        self._base = walks.memory.base
        self.callback: Any = TLB_EVENT(self._fill)

    def _fill(self, _engine: int, address: int, access: int, result: Any, _argument: int) -> bool:
        """Answer a miss; False leaves it to the emulator (and counts nothing, as it is walked again there)."""
        found = self.translate(address, access)
        if found is None:
            self.refused = True
            return False
        result[0], result[1] = found
        return True

    def translate(self, address: int, access: int) -> tuple[int, int] | None:
        """Return (physical address of the page, rights as PROT_ bits), None for what ring 3 may not do."""
        if address >= USER_END:
            return None  # the supervisor's: never walked by ring 3, and not known here who asks
        while True:
            path = self._read_path(address, access)
            if path is None:
                return None
            if self._mark(path, access):
                break
        self._count(path)
        return self._rights(path, address, access)

    def _read_path(self, address: int, access: int) -> "list[tuple[int, int]] | None":
        """Return (place of the entry, entry) from the root down to the leaf."""
        words, table = self._words, int(self.root)
        path: list[tuple[int, int]] = []
        needed = PRESENT | USER | (WRITABLE if access == MEM_WRITE else 0)
        for shift, _ in WALKED:
            place = table + (address >> shift - 3 & 0xFF8)
            entry = words[place >> 3]
            if entry & needed != needed or (entry & NX and access == MEM_FETCH):
                return None
            path.append((place, entry))
            if entry & HUGE_LEAF and shift != 12:
                break
            table = entry & PTE_ADDRESS
        return path

    def _mark(self, path: "list[tuple[int, int]]", access: int) -> bool:
        """Set accessed and dirty bits; False when an entry has changed since it was read."""
        last = len(path) - 1
        for index, (place, entry) in enumerate(path):
            wanted = ACCESSED | (DIRTY if access == MEM_WRITE and index == last else 0)
            if entry & wanted != wanted:
                low = entry & LOW_HALF
                # Two numbers of 32 bits, as the bits lie in the low one: a change of the other half only, from one
                # present entry to another, is followed by a flush, which takes this translation away as well.
                if atomic.compare_exchange_u32(self._base + place, low, low | wanted) != low:
                    return False
        return True

    def _count(self, path: Sequence[tuple[int, int]]) -> None:
        walks = self._walks
        if self.root == walks.uncounted:
            return
        walks.walks += 1
        counts, node_of = walks.reads[self.node], walks.node_of
        for depth, (place, _) in enumerate(path):
            counts[node_of(place)][LEVELS - 1 - depth] += 1

    def _rights(self, path: Sequence[tuple[int, int]], address: int, access: int) -> tuple[int, int]:
        every, some = ~0, 0
        for _, entry in path:
            every, some = every & entry, some | entry
        leaf = path[-1][1]
        offset = WALKED[len(path) - 1][1]
        # A page that is not dirty is given for reading only: the first write asks again, and is marked.
        writable = every & WRITABLE and (leaf & DIRTY or access == MEM_WRITE)
        rights = PROT_READ | (PROT_WRITE if writable else 0) | (0 if some & NX else PROT_EXEC)
        return (leaf & PTE_ADDRESS & ~offset) + (address & offset & ~(PAGE - 1)), rights
