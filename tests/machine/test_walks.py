"""Emulated processors whose walks are counted: whose tables they read, and that counting changes nothing else."""

import random
import struct
import threading
from collections.abc import Iterator

import pytest

from enisle.abi.types import PAGE
from enisle.abi.x86 import RBX, RCX, RIP
from enisle.machine import Machine, PageFault, ProcessorException, Syscall, leaf_flags
from enisle.machine.node_machine import NodePlan
from enisle.machine.walks import Walks, WalkStatistics
from machine.guest import CODE, DATA, HOLE, READ_WRITE, SYSCALL, UD2, Guest, mov

NODES, PAGES, UPDATES = 4, 4096, 6000
TABLE = 0x1000_0000
RANDOM_LOADS = (
    b"\x48\x69\xdb\x6d\x4e\xc6\x41"  # imul rbx, rbx, 1103515245
    b"\x48\x81\xc3\x39\x30\x00\x00"  # add rbx, 12345
    b"\x48\x89\xd8\x48\xc1\xe8\x10"  # mov rax, rbx; shr rax, 16
    b"\x48\x25\xff\x0f\x00\x00"  # and rax, 4095
    b"\x48\xc1\xe0\x0c"  # shl rax, 12
    b"\x48\x05\x00\x00\x00\x10"  # add rax, TABLE
    b"\x48\x8b\x10\x48\xff\xc9"  # mov rdx, [rax]; dec rcx
)
UPDATING = RANDOM_LOADS + b"\x75" + struct.pack("b", -len(RANDOM_LOADS) - 2) + SYSCALL


class Updates:
    """A thread on each node, all reading random pages of one table."""

    def __init__(self, machine: Machine) -> None:
        assert machine.walks
        assert machine.replication
        self.machine, self.guest = machine, Guest(machine)
        self.walks: Walks = machine.walks
        for page in range(PAGES):
            self.guest.page(TABLE + page * PAGE, READ_WRITE)
        self.guest.load(mov(RCX, UPDATES) + mov(RBX, 12345) + UPDATING)
        others = [machine.acquire_processor() for _ in range(NODES - 1)]
        self.processors = [self.guest.processor, *others]

    def run(self, nodes: list[int]) -> WalkStatistics:
        self.walks.reset()
        for processor, node in zip(self.processors, nodes, strict=True):
            self.machine.enter(processor, self.guest.space, node)
            self.guest.begin(processor)
        exits: list[object] = []
        threads = [threading.Thread(target=lambda p=p: exits.append(p.run())) for p in self.processors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(isinstance(exit, Syscall) for exit in exits), exits
        return self.walks.statistics()


@pytest.fixture
def updates() -> Iterator[Updates]:
    with Machine("emulated", 64 << 20, nodes=NodePlan(NODES, "off")) as machine:
        yield Updates(machine)


def test_three_of_four_reads_are_remote_until_every_node_has_its_own_tables(updates: Updates) -> None:
    everywhere = list(range(NODES))
    counted = updates.run(everywhere)
    assert counted.walks > UPDATES  # the table is larger than what an engine remembers
    assert all(row[0] and not any(row[1:]) for row in counted.reads), counted  # all tables lie on node 0
    assert 0.72 <= counted.remote_share <= 0.78, counted
    assert updates.machine.replication
    updates.machine.replication.set_mode("eager")
    counted = updates.run(everywhere)
    assert counted.walks > UPDATES
    assert (counted.remote, counted.leaf_remote) == (0, 0), counted
    assert all(counted.reads[node][node] for node in everywhere)


def test_a_moved_program_reads_far_tables_until_they_move_after_it(updates: Updates) -> None:
    away = [2] * NODES
    counted = updates.run(away)
    assert counted.remote_share == 1.0, counted
    assert updates.machine.replication
    updates.machine.replication.migrate(updates.guest.space, 2)
    counted = updates.run(away)
    assert counted.walks > UPDATES
    assert counted.remote_share == 0.0, counted


def test_a_processor_that_is_moved_while_it_computes_is_counted_where_it_is(updates: Updates) -> None:
    machine, guest = updates.machine, updates.guest
    guest.load(mov(RCX, 1 << 30) + mov(RBX, 1) + UPDATING)
    machine.enter(guest.processor, guest.space, 0)
    guest.begin(guest.processor)
    runner = threading.Thread(target=lambda: [guest.processor.run() for _ in range(2)])
    runner.start()
    assert machine.replication
    for node in (1, 3):
        machine.replication.place(guest.processor, node)
        before = updates.walks.reads[node][0][0]
        while updates.walks.reads[node][0][0] < before + 100:
            guest.memory.flush(guest.data, 1)  # an engine with time to learn remembers the whole table
            assert runner.is_alive()
    while runner.is_alive():
        guest.processor.kick()
        runner.join(0.01)


# ---- nothing else changes --------------------------------------------------------------------------------------------


def outcome(exit: object, guest: Guest) -> object:
    if isinstance(exit, PageFault):
        return ("fault", exit.address, exit.write, exit.execute, exit.present, guest.gpr[RIP])
    if isinstance(exit, ProcessorException):
        return ("exception", exit.vector, exit.error_code, guest.gpr[RIP])
    return type(exit).__name__


def programs(seed: int) -> list[bytes]:
    """Return loads, stores, jumps and read-modify-writes of pages of all kinds, across page ends too."""
    chosen = random.Random(seed)
    places = (DATA, DATA + PAGE - 4, HOLE, CODE, TABLE, TABLE + PAGE, TABLE + 2 * PAGE, 0xFFFF_8000_0000_0000, 1 << 47)
    bodies = (b"\x48\x8b\x18", b"\x48\x89\x18", b"\x48\xff\x00", b"\x0f\xae\x38", b"\xf0\x48\x01\x18")
    found = [mov(0, chosen.choice(places)) + chosen.choice(bodies) + SYSCALL for _ in range(60)]
    found += [mov(0, place) + b"\xff\xe0" for place in (DATA, HOLE, TABLE, TABLE + 2 * PAGE, TABLE + 3 * PAGE)]
    return [*found, UD2, mov(0, 0x2B) + b"\x8e\xc0" + SYSCALL, b"\xcd\x80", b"\xcc"]


def observed(plan: NodePlan | None, seed: int) -> list[object]:
    """Return what the programs do, and the marks they leave, on a machine with or without our walker."""
    with Machine("emulated", 64 << 20, nodes=plan) as machine:
        guest = Guest(machine)
        for index, rights in enumerate(((True, False, False), (True, True, True), (False, False, False))):
            guest.page(TABLE + index * PAGE, leaf_flags(*rights))
        guest.memory.write(guest.page(TABLE + 3 * PAGE, leaf_flags(True, False, True)), SYSCALL)
        found: list[object] = []
        for program in programs(seed):
            found.append(outcome(guest.run(program), guest))
            places = (CODE, DATA, *range(TABLE, TABLE + 4 * PAGE, PAGE))
            found.append([guest.space.entry(place) & 0xFFF for place in places])
        return found


@pytest.mark.parametrize("seed", range(3))
def test_faults_exceptions_and_marks_are_those_of_the_engines_own_walk(seed: int) -> None:
    assert observed(NodePlan(2, "off"), seed) == observed(None, seed)
