"""The emulated processor and AVX: it stops before what it would get wrong, and keeps upper halves of registers."""

import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.abi.types import PAGE, PAGE_SHIFT
from enisle.abi.x86 import RAX, RIP, Vector
from enisle.machine import Machine, ProcessorException, Syscall
from enisle.machine.emulated import Vm
from enisle.machine.emulated_traps import suspects
from enisle.machine.software.decode import VEX, decode_at
from instruction_maker import known
from machine.guest import CODE, SYSCALL, Guest

INC = bytes.fromhex("48ffc0")  # inc rax
VPXOR = bytes.fromhex("c5f9efc0")
ANDN = bytes.fromhex("c4e2f8f2c3")
AVX, AREA = 4, 832


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Machine("emulated", 64 << 20) as machine:
        yield Guest(machine)


def trap(guest: Guest, code: bytes) -> None:
    vm = guest.machine._vm
    assert isinstance(vm, Vm)
    traps = vm.traps or vm.trap_code()
    traps.note(guest.space.root, CODE >> PAGE_SHIFT, code.ljust(PAGE, b"\xcc"))


def test_the_processor_stops_before_an_avx_instruction_in_the_middle_of_a_block(guest: Guest) -> None:
    code = INC + INC + VPXOR + INC + SYSCALL
    trap(guest, code)
    ended = guest.run(code)
    assert isinstance(ended, ProcessorException)
    assert (ended.vector, ended.error_code) == (Vector.UD, 0)
    assert (guest.gpr[RIP], guest.gpr[RAX]) == (CODE + 6, 2)
    again = guest.processor.run()
    assert isinstance(again, ProcessorException)
    assert (guest.gpr[RIP], guest.gpr[RAX]) == (CODE + 6, 2)
    guest.gpr[RIP] += len(VPXOR)
    assert isinstance(guest.processor.run(), Syscall)
    assert guest.gpr[RAX] == 3


def test_every_avx_instruction_that_software_has_is_stopped_at(guest: Guest) -> None:
    rng = random.Random(7)
    codes = {maker.encoding: maker.make(rng)[1] for maker, _ in known() if maker.is_vex}
    stopped = 0
    for encoding, instruction in codes.items():
        if {"bmi1", "bmi2"} & set(instruction.features):
            continue
        code = instruction.bytes + SYSCALL
        trap(guest, code)
        ended = guest.run(code)
        assert isinstance(ended, ProcessorException), encoding
        assert (ended.vector, guest.gpr[RIP]) == (Vector.UD, CODE), encoding
        stopped += 1
    assert stopped > 180


def test_general_vex_instructions_are_not_stopped_at(guest: Guest) -> None:
    code = ANDN + SYSCALL
    trap(guest, code)
    assert isinstance(guest.run(code), Syscall)


def test_another_address_space_is_not_stopped(guest: Guest) -> None:
    code = VPXOR + SYSCALL
    trap(guest, code)
    other = Guest(guest.machine)
    guest.machine._vm.traps.begin(other.space.root)
    assert isinstance(other.run(INC + INC + SYSCALL), Syscall)
    assert isinstance(guest.run(code), ProcessorException)


def test_code_that_was_overwritten_does_not_stop_any_more(guest: Guest) -> None:
    trap(guest, VPXOR + SYSCALL)
    assert isinstance(guest.run(VPXOR + SYSCALL), ProcessorException)
    code = INC + INC + INC + SYSCALL
    trap(guest, code)
    assert isinstance(guest.run(code), Syscall)
    assert guest.gpr[RAX] == 3


def test_what_might_be_an_avx_instruction_is_found_wherever_it_stands() -> None:
    page = bytearray(b"\x90" * PAGE)
    page[100:104] = VPXOR
    page[200:205] = ANDN
    page[300:310] = b"\x48\xb8\xc5\xf9\xef\xc0\xc5\xf9\xef\xc0"  # all inside an immediate
    page[400:] = b"\xff" * (PAGE - 400)  # no code before
    page[500:504] = VPXOR
    page[PAGE - 1] = 0xC5
    assert suspects(bytes(page)) == (100, 500, PAGE - 1)
    page[PAGE - 1] = 0xC4
    assert PAGE - 1 in suspects(bytes(page))


def test_no_avx_instruction_of_a_library_is_overlooked() -> None:
    content = Path(sys.executable).read_bytes()
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/libc" in line and " r-xp " in line:
            start, size = int(line.split()[2], 16), PAGE * 1000
            content = Path(line.split()[-1]).read_bytes()[start : start + size]
    expected = found = 0
    for base in range(0, len(content) - PAGE, PAGE):
        page = content[base : base + PAGE]
        if page.count(b"\xc5") < 40:
            continue
        noted = set(suspects(page))
        at = 0
        while at < PAGE:
            it = decode_at(content, base + at, 0)
            if it and it.encoding == VEX and not {"bmi1", "bmi2"} & set(it.features):
                expected += 1
                found += at in noted
            at += it.length if it else 1
    assert expected > 1000
    assert found == expected


def test_upper_halves_are_kept_and_sse_leaves_them(guest: Guest) -> None:
    processor = guest.processor
    area = bytearray(processor.xsave().ljust(AREA, b"\0"))
    area[512] |= AVX
    area[160:416], area[576:AREA] = bytes(range(256)), bytes(range(255, -1, -1))
    processor.xrstor(bytes(area))
    assert processor.xsave() == bytes(area)
    assert isinstance(guest.run(bytes.fromhex("660fefc0") + SYSCALL), Syscall)  # pxor xmm0, xmm0
    saved = processor.xsave()
    assert saved[160:176] == bytes(16)
    assert saved[576:AREA] == bytes(area[576:AREA])


def test_initial_upper_halves_take_no_room(guest: Guest) -> None:
    processor = guest.processor
    area = bytearray(AREA)
    struct.pack_into("<Q", area, 512, 7)
    processor.xrstor(bytes(area))
    assert len(processor.xsave()) == AREA
    struct.pack_into("<Q", area, 512, 3)
    processor.xrstor(bytes(area))
    assert len(processor.xsave()) == 576
