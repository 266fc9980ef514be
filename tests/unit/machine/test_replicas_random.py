"""Random changes over four copies against a flat dictionary: no copy ever says anything else, nothing leaks.

Twelve thousand operations here; `make soak` (ENISLE_SOAK=1) does 200,000.
"""

import os
import random

import pytest

from enisle.abi.types import FRAMES_PER_HUGE, HUGE, PAGE, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine import replica_trees as trees
from enisle.machine.memory import OutOfMemory
from enisle.machine.nodes import NodeMemory
from enisle.machine.pagetables import AddressSpace, leaf_flags
from enisle.machine.replica_check import verify
from enisle.machine.replicas import ReplicatedTables, TableStore
from unit.machine.test_pagetables import walk

OPERATIONS = 200_000 if os.environ.get("ENISLE_SOAK") else 12_000
VERIFY_EVERY = 1000
NODES = 4
BASE, HUGES = 0x7F_C000_0000 - HUGE, 3
PAGES = HUGES * FRAMES_PER_HUGE
COW, WRITABLE, PRESENT = Pte.COW, Pte.WRITABLE, Pte.PRESENT
STATE = PRESENT | WRITABLE | Pte.USER | Pte.NX | COW | Pte.HELD
RIGHTS = [leaf_flags("r" in word, "w" in word, "x" in word) for word in ("rw", "r", "rx", "rwx", "")]
MARKS = (Pte.ACCESSED, Pte.ACCESSED | Pte.DIRTY)


class Run:
    """Two spaces and the dictionaries that say what they must be; the second is forked from the first."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random.Random(seed)
        self.memory = NodeMemory(48 << 20, kind, nodes=NODES)
        self.store = TableStore(self.memory)
        self.spaces = [AddressSpace(self.memory, ReplicatedTables(self.store, home)) for home in (0, 2)]
        self.models: list[dict[int, tuple[int, int]]] = [{}, {}]
        self.marks: list[dict[int, int]] = [{}, {}]
        for space in self.spaces:
            trees.grow(space, tuple(range(NODES)))

    def range(self) -> tuple[int, int]:
        if self.random.random() < 0.05:
            first = self.random.randrange(HUGES) * FRAMES_PER_HUGE
            return first, FRAMES_PER_HUGE
        first = self.random.randrange(PAGES)
        return first, min(self.random.randint(1, 24), PAGES - first)

    def step(self) -> None:
        which = self.random.randrange(2)
        what = self.random.choices(
            (self.map, self.unmap, self.protect, self.clone, self.break_cow, self.move, self.mark, self.toggle),
            (24, 18, 18, 4, 12, 6, 16, 0.4),
        )[0]
        what(which, *self.range())

    def map(self, which: int, first: int, count: int) -> None:
        model = self.models[which]
        if count == FRAMES_PER_HUGE:
            self.unmap(which, first, count)
        if any(page in model for page in range(first, first + count)):
            return
        rights = self.random.choice(RIGHTS)
        try:
            if count == FRAMES_PER_HUGE and self.random.random() < 0.5:
                runs = self.memory.allocate_chunks(1)
            else:
                runs = self.memory.allocate(count)
        except OutOfMemory:
            return
        page = first
        for gpa, frames in runs:
            self.spaces[which].map(Gva(BASE + page * PAGE), gpa, frames, rights)
            for index in range(frames):
                model[page + index] = gpa + index * PAGE, rights & STATE
                self.marks[which].pop(page + index, None)
            page += frames

    def unmap(self, which: int, first: int, count: int) -> None:
        self.spaces[which].unmap(Gva(BASE + first * PAGE), count)
        for page in range(first, first + count):
            self.models[which].pop(page, None)

    def protect(self, which: int, first: int, count: int) -> None:
        rights, model = self.random.choice(RIGHTS), self.models[which]
        self.spaces[which].protect(Gva(BASE + first * PAGE), count, rights)
        for page in range(first, first + count):
            if page in model:
                frame, state = model[page]
                state = (state & COW) | (rights & STATE)
                model[page] = frame, state & ~WRITABLE if state & COW else state

    def clone(self, which: int, first: int, count: int) -> None:
        """Fork a range from `which` to the other."""
        parent, child = self.models[which], self.models[1 - which]
        if any(page in child for page in range(first, first + count)):
            return
        private = self.random.random() < 0.7
        try:
            self.spaces[which].clone_range(self.spaces[1 - which], Gva(BASE + first * PAGE), count, private)
        except OutOfMemory:
            return
        for page in range(first, first + count):
            if page in parent:
                frame, state = parent[page]
                parent[page] = child[page] = frame, (state & ~WRITABLE) | COW if private else state
                self.marks[1 - which][page] = self.marks[which].get(page, 0)

    def break_cow(self, which: int, first: int, _count: int) -> None:
        model = self.models[which]
        wanted = COW | PRESENT
        page = next((page for page in range(first, PAGES) if model.get(page, (0, 0))[1] & wanted == wanted), -1)
        if page < 0:
            return
        try:
            self.spaces[which].break_cow(Gva(BASE + page * PAGE), self.random.random() < 0.5)
        except OutOfMemory:
            return
        model[page] = self.spaces[which].entry(BASE + page * PAGE) & PTE_ADDRESS, (model[page][1] & ~COW) | WRITABLE

    def move(self, which: int, first: int, count: int) -> None:
        model, to = self.models[which], self.random.randrange(PAGES)
        count = min(count, PAGES - to)
        apart = first + count <= to or to + count <= first
        if not apart or any(page in model for page in range(to, to + count)):
            return
        self.spaces[which].move(Gva(BASE + first * PAGE), Gva(BASE + to * PAGE), count)
        marks = self.marks[which]
        for page in range(first, first + count):
            if page in model:
                model[page - first + to] = model.pop(page)
                marks[page - first + to] = marks.pop(page, 0)

    def mark(self, which: int, first: int, _count: int) -> None:
        """Let the processor of some node use a page: it marks the copy it walks, and no other."""
        space, model = self.spaces[which], self.models[which]
        if not model.get(first, (0, 0))[1] & PRESENT:
            return
        gva, bits = BASE + first * PAGE, self.random.choice(MARKS)
        level = 1 if gva >> 21 in space.huge else 0
        table = space.find_table(gva, level)
        assert table is not None
        copy = self.random.choice(self.store.frames.ring(table))
        self.memory.words[(copy >> 3) + (gva >> (21 if level else 12) & 511)] |= bits
        self.marks[which][first] = self.marks[which].get(first, 0) | bits

    def toggle(self, which: int, _first: int, _count: int) -> None:
        space = self.spaces[which]
        ops = trees.tables_of(space)
        wanted = {node for node in range(NODES) if self.random.random() < 0.6} - {ops.home}
        trees.shrink(space, tuple(set(ops.nodes) - wanted))
        try:
            trees.grow(space, tuple(sorted(wanted)))
            if wanted and self.random.random() < 0.3:
                trees.move_home(space, self.random.choice(sorted(wanted)))
        except OutOfMemory:
            return

    def check(self) -> None:
        for which, (space, model) in enumerate(zip(self.spaces, self.models, strict=True)):
            verify(space)
            ops = trees.tables_of(space)
            roots = [ops.root_on(space.table, node) for node in (ops.home, *ops.nodes)]
            for page in range(PAGES):
                for root in roots:
                    entry = walk(self.memory, root, BASE + page * PAGE)
                    assert (entry & PTE_ADDRESS, entry & STATE) == model.get(page, (0, 0)), f"{which=} {page=}"
            for page, (_, state) in model.items():
                bits = self.marks[which].get(page, 0)
                if state & PRESENT:
                    assert space.entry(BASE + page * PAGE) & bits == bits, f"{which=} {page=}: a mark is lost"

    def end(self) -> None:
        for space in self.spaces:
            space.close()
        assert self.store.tables == 0
        self.store.drain()
        assert self.memory.used_frames == 0
        self.memory.close()


@pytest.mark.parametrize("kind", ["anonymous", "shared"])
def test_no_copy_ever_differs_from_the_oracle_and_nothing_leaks(kind: str) -> None:
    run = Run(7, kind)
    for number in range(1, OPERATIONS // 2 + 1):
        run.step()
        if number % VERIFY_EVERY == 0:
            run.check()
    run.check()
    run.end()
