"""Memory by node: which guest-physical addresses belong to which (virtual) node, and taking frames from one of them.

Each node has an equal part of the frames and of the chunks, and an equal share of the limit. Ordinary memory is taken
from the caller's node first, then from the others; tables strictly (`take_on`). Where the host has a node of the same
number its part is bound to it (mbind(2)); otherwise the node is virtual. `prefer` is per host thread.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from enisle.abi import linux_mempolicy
from enisle.abi.types import FRAMES_PER_HUGE, HUGE_SHIFT, PAGE_SHIFT, Gpa, Hva
from enisle.errors import InvalidRequest
from enisle.machine.memory import GuestMemory
from enisle.machine.runs import RunPool

MOST_NODES = 64
HOST_NODES = "/sys/devices/system/node/online"


def parse_mask(text: str) -> int:
    """Return the mask for a list like `0-2,5` (the kernel's cpulist format). Raises ValueError."""
    mask = 0
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not 0 <= low <= high < 1 << 12:
            raise ValueError(text)
        mask |= (1 << high + 1) - (1 << low)
    return mask


def check_mask(mask: int, nodes: int) -> tuple[int, ...]:
    """Return the nodes of a mask. Raises InvalidRequest for an empty one, and for nodes there are not."""
    if mask <= 0:
        raise InvalidRequest("the mask of nodes is empty", "copies of page tables belong to nodes", "name one: 0-1")
    if mask >> nodes:
        foreign = mask.bit_length() - 1
        raise InvalidRequest(f"there is no node {foreign}", f"the island has nodes 0 to {nodes - 1}", "--nodes 2")
    return tuple(node for node in range(nodes) if mask >> node & 1)


def host_nodes() -> int:
    """Return the mask of the host's nodes with memory; 0 when it does not say."""
    try:
        with open(HOST_NODES) as file:
            return parse_mask(file.read())
    except (OSError, ValueError):
        return 0


class Wish:
    """Where a thread's memory is to come from."""

    __slots__ = ("interleave", "nodes", "turn")

    def __init__(self, nodes: tuple[int, ...], interleave: bool = False) -> None:
        self.nodes, self.interleave = nodes, interleave
        self.turn = -1


ANYWHERE = Wish((0,))
INTERLEAVED = FRAMES_PER_HUGE
"""Frames taken from one node before it is the next one's turn."""


class NodePools:
    """A pool of runs for each node, together one pool as `GuestMemory` wants it. Requires: the memory's lock."""

    def __init__(
        self, start: int, end: int, unit: int, nodes: int, order: Callable[[], Sequence[tuple[int, int]]]
    ) -> None:
        """Divide `[start, end)` into equal parts that begin at whole units of 2 MiB (`unit` places each).

        `order` says which nodes to try, and how many frames each has left of its share.
        """
        self._base, self._unit, self.nodes = start // unit * unit, unit, nodes
        self._units = (end - self._base) // unit
        edges = [self._base + node * self._units // nodes * unit for node in range(nodes + 1)]
        edges[0] = start
        self.parts = list(pairwise(edges))
        self.pools = [RunPool(*part) for part in self.parts]
        self._order, self._frames_each = order, FRAMES_PER_HUGE // unit

    @property
    def free(self) -> int:
        return sum(pool.free for pool in self.pools)

    def node_of(self, place: int) -> int:
        return (((place - self._base) // self._unit + 1) * self.nodes - 1) // self._units

    def used(self, node: int) -> int:
        first, end = self.parts[node]
        return end - first - self.pools[node].free

    def take_some(self, count: int) -> tuple[int, int] | None:
        order = self._order()
        for node, room in order:
            here = min(count, room // self._frames_each)
            if here > 0 and (taken := self.pools[node].take_some(here)):
                return taken
        for node, _ in order:  # the limit is the island's: a node may go beyond its share
            if taken := self.pools[node].take_some(count):
                return taken
        return None

    def give(self, start: int, count: int) -> None:
        while count:
            node = self.node_of(start)
            here = min(count, self.parts[node][1] - start)
            self.pools[node].give(start, here)
            start, count = start + here, count - here


class NodeMemory(GuestMemory):
    """Guest memory in as many parts as there are nodes."""

    def __init__(
        self,
        limit: int,
        kind: str = "anonymous",
        add_extent: Callable[[Gpa, Hva, int], None] | None = None,
        nodes: int = 2,
    ) -> None:
        if not 1 <= nodes <= MOST_NODES:
            raise InvalidRequest(f"cannot make {nodes} nodes", f"there are 1 to {MOST_NODES}", "--nodes 2")
        super().__init__(limit, kind, add_extent)
        self.nodes = nodes
        self._wishes: dict[int, Wish] = {}
        """By the identifier of the host thread."""
        start, window = self._chunks_start, self._window_start
        self._frames = self._frame_pools = NodePools(1, start >> PAGE_SHIFT, FRAMES_PER_HUGE, nodes, self._order)
        self._chunks = self._chunk_pools = NodePools(start >> HUGE_SHIFT, window >> HUGE_SHIFT, 1, nodes, self._order)
        self.bound = 0
        """Nodes whose part is bound to the host's node of that number, as a mask."""
        self._bind(host_nodes())

    def _bind(self, online: int) -> None:
        for node in range(self.nodes):
            if online >> node & 1:
                for shift, pools in ((PAGE_SHIFT, self._frame_pools), (HUGE_SHIFT, self._chunk_pools)):
                    first, end = pools.parts[node]
                    address = self.base + (first << shift)
                    try:
                        linux_mempolicy.bind(address, (end - first) << shift, 1 << node)
                    except OSError:  # a cpuset without that node, a kernel without NUMA: stays virtual
                        return
                self.bound |= 1 << node

    # ---- placement -----------------------------------------------------------------------------------------------

    def prefer(self, *nodes: int, interleave: bool = False, thread: int = 0) -> None:
        """Let a host thread's allocations (the caller's, or of that identifier) come from these nodes, then from any.

        In this order; with `interleave` in turns, a chunk or a few frames from each. None: as at the beginning.
        """
        thread = thread or threading.get_ident()
        if nodes:
            self._wishes[thread] = Wish(nodes, interleave)
        else:
            self._wishes.pop(thread, None)

    @contextmanager
    def preferring(self, nodes: tuple[int, ...], interleave: bool) -> Generator[None]:
        """Let the calling thread's allocations come from these nodes for a while."""
        before = self.wish()
        self.prefer(*nodes, interleave=interleave)
        try:
            yield
        finally:
            self.prefer(*before.nodes, interleave=before.interleave)

    def wish(self) -> "Wish":
        """Return what the calling thread prefers."""
        return self._wishes.get(threading.get_ident(), ANYWHERE)

    def preferred(self) -> tuple[int, ...]:
        """Return the nodes that the calling thread's memory comes from."""
        return self.wish().nodes

    def _order(self) -> Sequence[tuple[int, int]]:
        """Return the nodes to try, each with how many frames may be taken at once: the caller's wish, then all others.

        That is what is left of its share, or little when the caller takes turns.
        """
        wish = self.wish()
        wished, most = wish.nodes, INTERLEAVED if wish.interleave else 1 << 62
        if wish.interleave:
            wish.turn += 1
            wished = wished[wish.turn % len(wished) :] + wished[: wish.turn % len(wished)]
        others = [node for node in range(self.nodes) if node not in wished]
        return [(node, min(most, self.room(node))) for node in (*wished, *others)]

    def room(self, node: int) -> int:
        """Return how many frames of its share a node has left."""
        used = self._frame_pools.used(node) + self._chunk_pools.used(node) * FRAMES_PER_HUGE
        return self.part_frames - used

    @property
    def part_frames(self) -> int:
        """Frames of the limit that are a node's own."""
        return self.limit_frames // self.nodes

    def node_of(self, gpa: int) -> int:
        """Return the node an address belongs to; -1: a host file's, which is wherever the host has it."""
        if gpa >= self._window_start:
            return -1
        if gpa >= self._chunks_start:
            return self._chunk_pools.node_of(gpa >> HUGE_SHIFT)
        return self._frame_pools.node_of(gpa >> PAGE_SHIFT)

    def take_on(self, node: int, count: int) -> list[Gpa]:
        """Return up to `count` zeroed frames of that node alone, each with one reference."""
        taken: list[Gpa] = []
        with self.lock:
            count = min(count, self.room(node), self.limit_frames - self.used_frames)
            while count > 0 and (run := self._frame_pools.pools[node].take_some(count)):
                self._charge(run[1])
                self._set_references(*run, 1)
                taken += (Gpa(frame << PAGE_SHIFT) for frame in range(run[0], run[0] + run[1]))
                count -= run[1]
        return taken
