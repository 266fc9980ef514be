"""What the guest sees when mappings, contents and code change under it."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from enisle.abi.types import FRAMES_PER_HUGE, HUGE, PAGE, Gpa, Gva
from enisle.abi.x86 import RAX, RCX, RDI, RIP, Pte
from enisle.machine import AddressSpace, BusError, PageFault, Syscall, leaf_flags
from machine.guest import (
    ALL_RIGHTS,
    CODE,
    DATA,
    HOLE,
    READ_EXECUTE,
    READ_ONLY,
    READ_WRITE,
    SYSCALL,
    Guest,
    mov,
)

LOAD = b"\x48\x8b\x07" + SYSCALL  # mov rax, [rdi]
STORE = b"\x48\x89\x07" + SYSCALL  # mov [rdi], rax
ACCESSED, DIRTY = Pte.ACCESSED, Pte.DIRTY
FORTY_TWO, FORTY_THREE = (bytes((0xB8, number, 0, 0, 0)) + SYSCALL for number in (42, 43))  # mov eax, n


def load(guest: Guest, address: int = DATA) -> int:
    guest.load(LOAD)
    guest.gpr[RDI] = address
    exit = guest.processor.run()
    assert isinstance(exit, Syscall), exit
    return guest.gpr[RAX]


def try_store(guest: Guest, address: int = DATA, value: int = 7) -> object:
    guest.load(STORE)
    guest.gpr[RDI], guest.gpr[RAX] = address, value
    return guest.processor.run()


def answer(guest: Guest, address: int = CODE) -> int:
    """Run the code at `address`, which loads a number and makes a system call."""
    guest.begin(guest.processor, address)
    exit = guest.processor.run()
    assert isinstance(exit, Syscall), exit
    return guest.gpr[RAX]


def test_the_host_and_the_guest_see_one_memory(kind_guest: Guest) -> None:
    kind_guest.memory.write(kind_guest.data, (123).to_bytes(8, "little"))
    assert load(kind_guest) == 123
    assert isinstance(try_store(kind_guest, value=456), Syscall)
    assert kind_guest.word(kind_guest.data) == 456


def test_accessed_and_dirty_are_set_as_hardware_does(guest: Guest) -> None:
    assert guest.space.entry(DATA) & (ACCESSED | DIRTY) == 0
    load(guest)
    assert guest.space.entry(DATA) & (ACCESSED | DIRTY) == ACCESSED
    try_store(guest)
    assert guest.space.entry(DATA) & (ACCESSED | DIRTY) == ACCESSED | DIRTY


def test_a_downgrade_is_seen_after_the_flush_and_keeps_the_content(kind_guest: Guest) -> None:
    assert isinstance(try_store(kind_guest), Syscall)
    kind_guest.space.protect(DATA, 1, READ_ONLY)
    exit = try_store(kind_guest)
    assert isinstance(exit, PageFault)
    assert (exit.address, exit.write, exit.present) == (DATA, True, True)
    assert load(kind_guest) == 7
    kind_guest.space.protect(DATA, 1, leaf_flags(False, False, False))
    exit = try_store(kind_guest)
    assert isinstance(exit, PageFault)
    assert not exit.present
    kind_guest.space.protect(DATA, 1, READ_WRITE)
    assert load(kind_guest) == 7


def test_an_upgrade_needs_no_flush(kind_guest: Guest) -> None:
    kind_guest.space.protect(DATA, 1, READ_ONLY)
    assert isinstance(try_store(kind_guest), PageFault)
    kind_guest.space.protect(DATA, 1, READ_WRITE)
    assert isinstance(kind_guest.processor.run(), Syscall)
    flushes = kind_guest.memory.flushes
    assert isinstance(try_store(kind_guest, HOLE), PageFault)
    kind_guest.page(HOLE, READ_WRITE)
    assert isinstance(kind_guest.processor.run(), Syscall)
    assert kind_guest.memory.flushes == flushes


def test_an_unmapped_page_is_gone_and_its_frame_comes_back_empty(kind_guest: Guest) -> None:
    assert isinstance(try_store(kind_guest), Syscall)
    kind_guest.space.unmap(DATA, 1)
    assert isinstance(try_store(kind_guest), PageFault)
    for index in range(32):  # one of them is the old frame
        kind_guest.page(DATA + index * PAGE, READ_WRITE)
        assert load(kind_guest, DATA + index * PAGE) == 0


def test_a_copy_on_write_page_leaves_the_other_space_alone(kind_guest: Guest) -> None:
    guest = kind_guest
    try_store(guest, value=1)
    child = guest.machine.new_address_space()
    for run in guest.space.clone_range(child, Gva(CODE), 0x20_0000 >> 12, private=True):
        guest.memory.flush(*run)
    for run in guest.space.clone_range(child, DATA, 1, private=True):
        guest.memory.flush(*run)
    exit = try_store(guest, value=2)
    assert isinstance(exit, PageFault)
    assert exit.present
    assert exit.write
    guest.space.break_cow(DATA, flush=False)
    assert isinstance(guest.processor.run(), Syscall)
    assert load(guest) == 2
    guest.processor.enter(child.root)
    assert load(guest) == 1
    guest.processor.enter(guest.space.root)
    assert load(guest) == 2


def test_two_spaces_share_addresses_but_not_pages(guest: Guest) -> None:
    other = guest.machine.new_address_space()
    other.map(CODE, guest.code, 1, READ_EXECUTE)
    guest.memory.share(guest.code, 1)
    frame = guest.page(DATA, READ_WRITE, other)
    guest.memory.write(frame, (2).to_bytes(8, "little"))
    guest.memory.write(guest.data, (1).to_bytes(8, "little"))
    for _ in range(3):
        guest.processor.enter(guest.space.root)
        assert load(guest) == 1
        guest.processor.enter(other.root)
        assert load(guest) == 2


@pytest.mark.parametrize("seed", range(3))
def test_spaces_that_come_and_go_never_see_each_other(kind_guest: Guest, seed: int) -> None:
    """A shadow-paging hypervisor must not mix up page tables that are used again."""
    guest, machine, chance = kind_guest, kind_guest.machine, random.Random(seed)
    spaces: list[tuple[AddressSpace, dict[int, int]]] = []
    stamp = 0
    for _ in range(150):
        if len(spaces) < 2 or (len(spaces) < 6 and chance.random() < 0.1):
            space = machine.new_address_space()
            guest.memory.share(guest.code, 1)
            space.map(CODE, guest.code, 1, READ_EXECUTE)
            spaces.append((space, {}))
        elif chance.random() < 0.1:
            machine.release_address_space(spaces.pop(chance.randrange(len(spaces)))[0])
            continue
        space, content = chance.choice(spaces)
        address = (
            0x4000_0000 + chance.randrange(3) * (1 << 30) + chance.randrange(6) * HUGE + chance.randrange(3) * PAGE
        )
        if address in content and chance.random() < 0.5:
            space.unmap(Gva(address), 1)
            del content[address]
        elif address not in content:
            stamp += 1
            frame = guest.page(address, READ_WRITE, space)
            guest.memory.write(frame, stamp.to_bytes(8, "little"))
            content[address] = stamp
        guest.processor.enter(space.root)
        for address in chance.sample(sorted(content), min(4, len(content))):
            assert load(guest, address) == content[address]
        if address not in content:
            assert isinstance(try_store(guest, address), PageFault)


def test_two_mebibyte_pages_work_and_can_be_split(kind_guest: Guest) -> None:
    guest, start = kind_guest, Gva(0x4000_0000)
    ((gpa, frames),) = guest.memory.allocate_chunks(1)
    guest.space.map(start, gpa, frames, READ_WRITE)
    for page in (0, 1, 511):
        assert isinstance(try_store(guest, start + page * PAGE, page + 1), Syscall)
    guest.space.protect(Gva(start + PAGE), 1, READ_ONLY)
    assert isinstance(try_store(guest, start + PAGE), PageFault)
    assert isinstance(try_store(guest, start + 2 * PAGE), Syscall)
    assert load(guest, start + 511 * PAGE) == 512
    guest.space.unmap(start, FRAMES_PER_HUGE)
    assert isinstance(try_store(guest, start + HUGE - PAGE), PageFault)


def test_memory_in_many_extents_is_reachable(machine: object, backend: str) -> None:
    from enisle.machine import Machine

    with Machine(backend, 1 << 30) as big:
        guest = Guest(big)
        load(guest)
        base = Gva(0x1_0000_0000)
        for index, (gpa, frames) in enumerate(run for _ in range(5) for run in big.memory.allocate_chunks(40)):
            start = Gva(base + index * (512 << 20))
            guest.space.map(start, gpa, frames, READ_WRITE)
            for offset in (0, frames * PAGE - PAGE):
                assert isinstance(try_store(guest, start + offset, index + 1), Syscall)
                assert load(guest, start + offset) == index + 1


# ---- code ------------------------------------------------------------------------------------------------------------


def test_code_that_the_host_rewrites_is_run_as_it_is_now(kind_guest: Guest) -> None:
    for code, number in ((FORTY_TWO, 42), (FORTY_THREE, 43), (FORTY_TWO, 42)):
        kind_guest.memory.write(kind_guest.code, code)
        assert answer(kind_guest) == number


def test_code_read_into_a_pinned_page_is_run_as_it_is_now(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(FORTY_TWO.ljust(PAGE, b"\0") + FORTY_THREE.ljust(PAGE, b"\0"))
    with (tmp_path / "code").open("rb", buffering=0) as file:
        for number in (42, 43):
            view = guest.memory.pin(guest.code, PAGE)
            os.readv(file.fileno(), [view])
            view.release()
            assert answer(guest) == number


def test_a_frame_with_new_code_does_not_run_the_old(guest: Guest) -> None:
    for turn in range(40):
        frame = guest.page(HOLE, READ_EXECUTE)
        guest.memory.write(frame, (FORTY_TWO, FORTY_THREE)[turn & 1])
        assert answer(guest, HOLE) == 42 + (turn & 1)
        guest.space.unmap(HOLE, 1)


def test_a_page_may_be_written_then_executed_as_compilers_at_run_time_do(guest: Guest) -> None:
    frame = guest.page(HOLE, READ_WRITE)
    for turn in range(6):
        code = (FORTY_TWO, FORTY_THREE)[turn & 1]
        assert isinstance(try_store(guest, HOLE, int.from_bytes(code + b"\0", "little")), Syscall)
        guest.space.protect(HOLE, 1, READ_EXECUTE)
        assert answer(guest, HOLE) == 42 + (turn & 1)
        guest.space.protect(HOLE, 1, READ_WRITE)
    assert guest.memory.references(frame) == 1


def test_code_that_the_guest_rewrites_through_an_alias_is_run_as_it_is_now(guest: Guest) -> None:
    alias = Gva(HOLE + HUGE)
    frame = guest.page(HOLE, READ_EXECUTE)
    guest.memory.share(frame, 1)
    guest.space.map(alias, frame, 1, READ_WRITE)
    for turn in range(6):
        code = (FORTY_TWO, FORTY_THREE)[turn & 1]
        assert isinstance(try_store(guest, alias, int.from_bytes(code + b"\0", "little")), Syscall)
        assert answer(guest, HOLE) == 42 + (turn & 1)


def test_code_may_rewrite_itself(guest: Guest) -> None:
    guest.page(HOLE, ALL_RIGHTS)
    # inc byte [rip - 0x?]: mov eax, imm whose immediate the loop before it raises
    code = b"\xb9\x05\0\0\0" + b"\xfe\x05\x05\0\0\0" + b"\xff\xc9" + b"\x75\xf6" + b"\xb8\x05\0\0\0" + SYSCALL
    guest.load(code, HOLE)
    assert answer(guest, HOLE) == 10


def test_code_that_another_processor_rewrites_is_run_as_it_is_now(guest: Guest) -> None:
    frame = guest.page(HOLE, ALL_RIGHTS)
    guest.memory.write(frame, FORTY_TWO)
    assert answer(guest, HOLE) == 42
    with guest.another() as other:
        guest.memory.write(guest.code, STORE)
        guest.begin(other)
        other.gpr[RDI], other.gpr[RAX] = HOLE, int.from_bytes(FORTY_THREE + b"\0", "little")
        assert isinstance(other.run(), Syscall)
    assert answer(guest, HOLE) == 43


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes((11).to_bytes(8, "little") + bytes(PAGE - 8) + (22).to_bytes(8, "little"))
    return path


def place(guest: Guest, path: Path, pages: int, shared: bool) -> Gpa:
    descriptor = os.open(path, os.O_RDWR)
    try:
        gpa = guest.memory.place_file(descriptor, 0, pages, shared, writable=True)
    finally:
        os.close(descriptor)
    guest.space.map(HOLE, gpa, pages, READ_WRITE)
    return gpa


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_is_memory(kind_guest: Guest, file: Path, shared: bool) -> None:
    place(kind_guest, file, 2, shared)
    assert (load(kind_guest, HOLE), load(kind_guest, HOLE + PAGE)) == (11, 22)
    assert isinstance(try_store(kind_guest, HOLE, 99), Syscall)
    assert int.from_bytes(file.read_bytes()[:8], "little") == (99 if shared else 11)
    assert load(kind_guest, HOLE) == 99


def test_beyond_the_end_of_a_file_is_a_bus_error_until_the_file_grows(guest: Guest, file: Path) -> None:
    place(guest, file, 4, True)
    for _ in range(3):
        guest.load(LOAD)
        guest.gpr[RDI] = HOLE + 3 * PAGE
        assert isinstance(guest.processor.run(), BusError)
        assert load(guest, HOLE + PAGE) == 22
    os.truncate(file, 4 * PAGE)
    assert load(guest, HOLE + 3 * PAGE) == 0
    os.truncate(file, 8)
    assert isinstance(try_store(guest, HOLE + PAGE), BusError)
    assert load(guest, HOLE) == 11
    guest.space.unmap(HOLE, 4)
    assert isinstance(try_store(guest, HOLE), PageFault)


# ---- several processors ----------------------------------------------------------------------------------------------


def test_locked_instructions_of_several_processors_are_exact(guest: Guest) -> None:
    rounds, workers = 30_000, 4
    code = b"\xf0\x48\xff\x07\xff\xc9\x75\xf8" + SYSCALL  # again: lock inc qword [rdi]; dec ecx; jnz again
    guest.load(code)
    exits: list[object] = []

    def work() -> None:
        with guest.another() as processor:
            guest.begin(processor)
            processor.gpr[RDI], processor.gpr[RCX] = DATA, rounds
            exits.append(processor.run())

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(exit) for exit in exits] == [Syscall] * workers
    assert guest.word(guest.data) == rounds * workers


def test_a_downgrade_reaches_a_processor_that_is_running(kind_guest: Guest) -> None:
    guest, exits = kind_guest, list[object]()
    guest.load(b"\x48\xff\x07\xeb\xfb")  # again: inc qword [rdi]; jmp again
    guest.gpr[RDI] = DATA
    thread = threading.Thread(target=lambda: exits.append(guest.processor.run()))
    thread.start()
    while not guest.word(guest.data):
        time.sleep(0.001)
    guest.space.protect(DATA, 1, READ_ONLY)
    before = guest.word(guest.data)
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(exits[0], PageFault)
    assert guest.word(guest.data) == before
    assert guest.gpr[RIP] == CODE


def test_a_page_taken_away_from_a_running_processor_is_not_written_any_more(kind_guest: Guest) -> None:
    guest, exits = kind_guest, list[object]()
    for _ in range(5):
        guest.load(b"\x48\xff\x07\xeb\xfb")
        guest.gpr[RDI] = DATA
        thread = threading.Thread(target=lambda: exits.append(guest.processor.run()))
        thread.start()
        time.sleep(0.002)
        guest.space.unmap(DATA, 1)
        frames = guest.memory.allocate(64)
        thread.join(10)
        assert not thread.is_alive()
        assert isinstance(exits[-1], PageFault)
        for gpa, count in frames:
            assert guest.memory.read(gpa, count * PAGE) == bytes(count * PAGE)
            guest.memory.release(gpa, count)
        guest.page(DATA, READ_WRITE)


def test_new_memory_reaches_a_processor_that_is_running(guest: Guest) -> None:
    exits: list[object] = []
    # wait until [rdi] holds an address, store there
    guest.load(b"\x48\x8b\x07\x48\x85\xc0\x74\xf8" + mov(RCX, 77) + b"\x48\x89\x08" + SYSCALL)
    guest.gpr[RDI] = DATA
    thread = threading.Thread(target=lambda: exits.append(guest.processor.run()))
    thread.start()
    ((gpa, frames),) = guest.memory.allocate_chunks(1)
    guest.space.map(Gva(0x4000_0000), gpa, frames, READ_WRITE)
    guest.memory.write(guest.data, (0x4000_0000).to_bytes(8, "little"))
    thread.join(10)
    assert isinstance(exits[0], Syscall)
    assert guest.word(gpa) == 77
