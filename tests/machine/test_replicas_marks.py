"""Accessed and dirty bits of replicated tables: the union is what happened, whichever node and backend it was."""

import random

import pytest

from enisle.abi.types import FRAMES_PER_HUGE, PAGE, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine import AddressSpace, Machine, Syscall
from enisle.machine.replica_check import verify
from enisle.machine.replica_trees import tables_of
from machine.guest import READ_WRITE
from machine.test_replicas_guest import NodeGuest, make

ACCESSED, DIRTY = Pte.ACCESSED, Pte.DIRTY
AREA, PAGES = 1 << 32, 48
ACCESSES = 10_000
Marks = dict[int, int]


def harvest(guest: NodeGuest, bits: int) -> Marks:
    """Return the marks of the area's pages, and begin anew: clear, then flush."""
    ops, found = tables_of(guest.space), Marks()
    for address in range(AREA, AREA + PAGES * PAGE, FRAMES_PER_HUGE * PAGE):
        table = guest.space.find_table(address, 0)
        assert table is not None
        for index, entry in enumerate(ops.clear_ad(table, 0, PAGES, bits)):
            found[index] = entry & bits
            if entry & bits:
                guest.memory.flush(Gpa(entry & PTE_ADDRESS), 1)
    return found


def use(guest: NodeGuest, seed: int, accesses: int, rounds: int) -> list[tuple[Marks, Marks]]:
    """Let random nodes load and store; return, for each round, the marks found and the marks there should be."""
    random_ = random.Random(seed)
    results: list[tuple[Marks, Marks]] = []
    for _ in range(rounds):
        truth = dict.fromkeys(range(PAGES), 0)
        for _ in range(accesses // rounds):
            node, page, write = random_.randrange(guest.nodes), random_.randrange(PAGES), random_.random() < 0.3
            if write:
                assert isinstance(guest.store(node, random_.randrange(1 << 32), AREA + page * PAGE), Syscall)
            else:
                guest.load(node, AREA + page * PAGE)
            truth[page] |= ACCESSED | (DIRTY if write else 0)
        results.append((harvest(guest, ACCESSED | DIRTY), truth))
    return results


def image(guest: NodeGuest) -> list[bytes]:
    return [guest.memory.read(Gpa(guest.space.entry(AREA + page * PAGE) & PTE_ADDRESS), PAGE) for page in range(PAGES)]


def prepare(machine: Machine, nodes: int) -> NodeGuest:
    guest = NodeGuest(machine, nodes)
    for page in range(PAGES):
        guest.page(AREA + page * PAGE, READ_WRITE)
    return guest


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_the_union_is_what_happened(backend: str, mode: str) -> None:
    with make(backend, 4, mode) as machine:
        guest = prepare(machine, 4)
        for found, truth in use(guest, 5, ACCESSES, 10):
            assert found == truth
        guest.replication.verify()


@pytest.mark.kvm
def test_the_union_is_what_happened_with_a_machine_per_node() -> None:
    with make("kvm", 2, "eager", machine_per_node=True) as machine:
        for found, truth in use(prepare(machine, 2), 6, ACCESSES, 10):
            assert found == truth


@pytest.mark.kvm
def test_both_backends_give_one_image_and_the_same_marks() -> None:
    told: list[tuple[list[tuple[Marks, Marks]], list[bytes]]] = []
    for backend in ("kvm", "emulated"):
        with make(backend, 4, "eager") as machine:
            guest = prepare(machine, 4)
            told.append((use(guest, 9, 400, 2), image(guest)))
    assert told[0] == told[1]


@pytest.mark.kvm
def test_dirty_pages_are_found_exactly_while_the_guest_runs_on() -> None:
    """What a copy of a running guest needs: the pages written since the last look, none missing and none else."""
    with make("kvm", 2, "eager") as machine:
        guest = prepare(machine, 2)
        copy = image(guest)
        harvest(guest, DIRTY)
        random_ = random.Random(3)
        for _ in range(20):
            written = {random_.randrange(PAGES) for _ in range(8)}
            for page in written:
                guest.store(random_.randrange(2), random_.randrange(1 << 60), AREA + page * PAGE)
            dirty = {page for page, bits in harvest(guest, DIRTY).items() if bits}
            assert dirty == written
            now = image(guest)
            for page in dirty:
                copy[page] = now[page]
            assert copy == now


def rebuilt(source: AddressSpace, target: Machine) -> AddressSpace:
    """Make the mappings and contents of a space again on another machine, as a restored snapshot would."""
    space = target.new_address_space()
    for address, entry in source.entries(Gva(AREA), PAGES):
        frame = target.memory.allocate_frame()
        target.memory.write(frame, source.memory.read(Gpa(entry & PTE_ADDRESS), PAGE))
        space.map(Gva(address), frame, 1, entry & ~PTE_ADDRESS)
    return space


def test_a_space_is_built_again_on_machines_with_other_nodes(backend: str) -> None:
    """Copies are no part of a space's state: four nodes, one, two, and the image stays."""
    with make(backend, 4, "eager") as four, Machine(backend, 64 << 20) as one, make(backend, 2, "lazy") as two:
        guest = prepare(four, 4)
        use(guest, 12, 200, 1)
        expected = image(guest)
        space = guest.space
        for machine in (one, two):
            space = rebuilt(space, machine)
            contents = [
                machine.memory.read(Gpa(space.entry(AREA + page * PAGE) & PTE_ADDRESS), PAGE) for page in range(PAGES)
            ]
            assert contents == expected
        verify(space)
