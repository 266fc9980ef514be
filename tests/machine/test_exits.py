"""What a processor's exits look like: the same on every backend."""

import struct

import pytest

from enisle.abi.types import PAGE
from enisle.abi.x86 import GPR_COUNT, R11, RAX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP, Pte, Vector
from enisle.machine import Exit, PageFault, ProcessorException, Syscall
from machine.guest import CODE, DATA, HOLE, READ_EXECUTE, READ_ONLY, SYSCALL, UD2, Guest, mov

CF, DF = 1, 1 << 10
RAW_SYSCALL_REGISTERS = {RCX, R11, RIP, RFLAGS, RSP}


def fault(exit: Exit) -> tuple[int, bool, bool, bool]:
    assert isinstance(exit, PageFault), exit
    return exit.address, exit.write, exit.execute, exit.present


def exception(exit: Exit) -> int:
    assert isinstance(exit, ProcessorException), exit
    return exit.vector


def test_a_system_call_leaves_the_registers_as_the_manual_says(guest: Guest) -> None:
    guest.load(b"\xf9" + SYSCALL)  # stc; syscall
    for index in range(GPR_COUNT):
        if index not in RAW_SYSCALL_REGISTERS:
            guest.gpr[index] = 0x1111_1111_1111_1111 * (index % 15 + 1)
    before = [guest.gpr[index] for index in range(GPR_COUNT)]
    assert isinstance(guest.processor.run(), Syscall)
    assert guest.gpr[RIP] == guest.gpr[RCX] == CODE + 3
    assert guest.gpr[RFLAGS] == guest.gpr[R11] == 0x203
    for index in set(range(GPR_COUNT)) - RAW_SYSCALL_REGISTERS:
        assert guest.gpr[index] == before[index], index
    assert guest.gpr[RSP] == before[RSP]


def test_system_calls_come_one_after_the_other_and_results_arrive(guest: Guest) -> None:
    guest.load(SYSCALL + b"\x48\x01\xc3" + b"\xeb\xf9")  # syscall; add rbx, rax; jmp back
    for number in range(200):
        assert isinstance(guest.processor.run(), Syscall)
        assert guest.gpr[1] == number * (number - 1) // 2
        guest.gpr[RAX] = number
    assert guest.processor.exits >= 200


def test_flags_survive_a_system_call(guest: Guest) -> None:
    guest.load(SYSCALL + b"\x9c\x58" + SYSCALL)  # pushf; pop rax
    guest.processor.run()
    guest.gpr[RFLAGS] = 0x202 | CF | DF
    guest.processor.run()
    assert guest.gpr[RAX] & (CF | DF) == CF | DF
    assert guest.gpr[RFLAGS] & (CF | DF) == CF | DF


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"\x48\x8b\x00", (HOLE, False, False, False)),
        (b"\x48\x89\x00", (HOLE, True, False, False)),
        (b"\xff\xe0", (HOLE, False, True, False)),
    ],
    ids=["load", "store", "jump"],
)
def test_an_unmapped_page_faults_with_what_was_tried(guest: Guest, code: bytes, expected: tuple[int, ...]) -> None:
    exit = guest.run(mov(RAX, HOLE) + code)
    assert fault(exit) == expected
    assert guest.gpr[RIP] == (HOLE if expected[2] else CODE + 10)


def test_a_read_and_write_in_one_reports_one_of_them_and_ends_as_a_write(guest: Guest) -> None:
    exit = guest.run(mov(RAX, HOLE) + b"\xf0\x48\x0f\xb1\x08")  # lock cmpxchg [rax], rcx
    assert fault(exit) in ((HOLE, True, False, False), (HOLE, False, False, False))
    guest.page(HOLE, READ_ONLY)
    assert fault(guest.processor.run()) == (HOLE, True, False, True)
    assert (guest.gpr[RIP], guest.gpr[RAX]) == (CODE + 10, HOLE)


def test_rights_are_enforced_in_ring_3(guest: Guest) -> None:
    assert fault(guest.run(mov(RAX, CODE) + b"\x48\x89\x00")) == (CODE, True, False, True)
    assert fault(guest.run(mov(RAX, DATA) + b"\xff\xe0")) == (DATA, False, True, True)
    guest.space.protect(DATA, 1, Pte.PRESENT)  # the supervisor's
    assert fault(guest.run(mov(RAX, DATA) + b"\x48\x8b\x00")) == (DATA, False, False, True)


def test_the_supervisors_half_is_out_of_reach(guest: Guest) -> None:
    address = 0xFFFF_8000_0000_0000
    for code, write in ((b"\x48\x8b\x00", False), (b"\x48\x89\x00", True)):
        exit = guest.run(mov(RAX, address) + code)
        assert fault(exit)[:2] == (address, write)


def test_a_store_across_pages_faults_at_the_second_page_and_stores_nothing(guest: Guest) -> None:
    exit = guest.run(mov(RAX, DATA + PAGE - 4) + b"\x48\xc7\x00\xff\xff\xff\xff")
    assert fault(exit) == (DATA + PAGE, True, False, False)
    assert guest.gpr[RIP] == CODE + 10
    assert guest.memory.read(guest.data, PAGE) == bytes(PAGE)


def test_a_faulting_fetch_across_pages_names_the_second_page(guest: Guest) -> None:
    guest.load(b"\x48\xb8", CODE + PAGE - 2)  # mov rax, imm64 that is not there
    assert fault(guest.processor.run()) == (CODE + PAGE, False, True, False)
    assert guest.gpr[RIP] == CODE + PAGE - 2
    guest.page(CODE + PAGE, READ_EXECUTE)
    guest.memory.write(guest.code, b"")
    frame = guest.space.entry(CODE + PAGE) & 0xF_FFFF_FFFF_F000
    guest.memory.write(frame, struct.pack("<Q", 77) + SYSCALL)  # type: ignore[arg-type]
    assert isinstance(guest.processor.run(), Syscall)
    assert guest.gpr[RAX] == 77


def test_a_string_instruction_stops_in_the_middle_and_goes_on(guest: Guest) -> None:
    guest.memory.write(guest.data, b"x" * PAGE)
    guest.load(b"\xf3\xa4" + SYSCALL)  # rep movsb
    guest.gpr[RSI], guest.gpr[RDI], guest.gpr[RCX] = DATA, HOLE - 100, 300
    before = guest.page(HOLE - PAGE, READ_EXECUTE | Pte.WRITABLE)
    assert fault(guest.processor.run()) == (HOLE, True, False, False)
    assert (guest.gpr[RIP], guest.gpr[RCX]) == (CODE, 200)
    assert (guest.gpr[RSI], guest.gpr[RDI]) == (DATA + 100, HOLE)
    assert guest.memory.read(before, PAGE)[-100:] == b"x" * 100
    after = guest.page(HOLE, READ_EXECUTE | Pte.WRITABLE)
    assert isinstance(guest.processor.run(), Syscall)
    assert guest.memory.read(after, 201) == b"x" * 200 + b"\0"


@pytest.mark.parametrize(
    ("code", "vector", "offset"),
    [
        (UD2, Vector.UD, 0),
        (b"\x31\xc9\xf7\xf1", Vector.DE, 2),  # xor ecx, ecx; div ecx
        (b"\xcc", Vector.BP, 1),
        (b"\xf4", Vector.GP, 0),  # hlt
        (b"\xfa", Vector.GP, 0),  # cli
        (b"\xec", Vector.GP, 0),  # in al, dx
        (b"\xe6\x80", Vector.GP, 0),  # out 0x80, al
        (b"\x0f\x20\xc0", Vector.GP, 0),  # mov rax, cr0
        (b"\x0f\x22\xd8", Vector.GP, 0),  # mov cr3, rax
        (b"\x0f\x32", Vector.GP, 0),  # rdmsr
        (b"\x0f\x01\x3f", Vector.GP, 0),  # invlpg [rdi]
        (b"\x48\xb8" + struct.pack("<Q", 1 << 63) + b"\x48\x8b\x00", Vector.GP, 10),  # load, not canonical
    ],
    ids=["ud2", "div", "int3", "hlt", "cli", "in", "out", "movfromcr", "movtocr", "rdmsr", "invlpg", "noncanonical"],
)
def test_an_exception_arrives_with_its_vector_and_place(guest: Guest, code: bytes, vector: int, offset: int) -> None:
    for _ in range(3):  # an emulator must not make a double fault of the second
        assert exception(guest.run(code)) == vector
        assert guest.gpr[RIP] == CODE + offset


def test_in_and_out_change_nothing(guest: Guest) -> None:
    guest.load(b"\xe5\x10\x48\xff\xc3")  # in eax, 0x10; inc rbx
    guest.gpr[RAX], guest.gpr[1] = 0x1234_5678_9ABC_DEF0, 5
    assert exception(guest.processor.run()) == Vector.GP
    assert (guest.gpr[RAX], guest.gpr[1], guest.gpr[RIP]) == (0x1234_5678_9ABC_DEF0, 5, CODE)


@pytest.mark.parametrize("number", [0x0D, 0x0E, 0x80])
def test_a_software_interrupt_is_refused(guest: Guest, number: int) -> None:
    # The manual says #GP; a software KVM that has no gate may say #UD.
    assert exception(guest.run(bytes((0xCD, number)))) in (Vector.GP, Vector.UD)
    assert guest.gpr[RIP] == CODE


def test_an_unmasked_x87_exception_is_mf(guest: Guest) -> None:
    # fninit; fldcw [rdi] with everything unmasked; fld1; fldz; fdivp; fwait
    guest.load(b"\xdb\xe3\xd9\x2f\xd9\xe8\xd9\xee\xde\xf9\x9b")
    guest.gpr[RDI] = DATA
    guest.memory.write(guest.data, struct.pack("<H", 0x340))
    assert exception(guest.processor.run()) == Vector.MF


def test_the_trap_flag_steps(guest: Guest) -> None:
    guest.load(b"\x90\x90" + SYSCALL)
    guest.gpr[RFLAGS] = 0x302
    assert exception(guest.processor.run()) == Vector.DB
    assert guest.gpr[RIP] == CODE + 1


def test_the_guest_is_in_ring_3(guest: Guest) -> None:
    assert isinstance(guest.run(b"\x8c\xc8\x8c\xd2" + SYSCALL), Syscall)  # mov eax, cs; mov edx, ss
    assert (guest.gpr[RAX] & 3, guest.gpr[RDX] & 3) == (3, 3)


def test_the_guest_cannot_raise_its_privilege_by_flags(guest: Guest) -> None:
    guest.load(SYSCALL + b"\x68\x02\x32\x00\x00\x9d\xfa")  # push IOPL 3 and IF; popf; cli
    guest.processor.run()
    guest.gpr[RFLAGS] = 0x3202
    assert exception(guest.processor.run()) == Vector.GP
    assert guest.gpr[RFLAGS] & 0x3000 == 0


def test_a_non_canonical_rip_is_refused(guest: Guest) -> None:
    guest.load(SYSCALL)
    guest.gpr[RIP] = 1 << 63
    assert exception(guest.processor.run()) == Vector.GP


def test_a_jump_to_zero_is_a_fault_like_any_other(guest: Guest) -> None:
    assert fault(guest.run(b"\x31\xc0\xff\xe0")) == (0, False, True, False)
    assert guest.gpr[RIP] == 0


def test_segment_bases_are_kept_and_used(guest: Guest) -> None:
    guest.memory.write(guest.data, struct.pack("<2Q", 0xAAAA, 0xBBBB))
    # mov rax, fs:[0]; mov rdx, gs:[0]
    guest.load(b"\x64\x48\x8b\x04\x25\0\0\0\0\x65\x48\x8b\x14\x25\0\0\0\0" + SYSCALL)
    guest.processor.fs_base, guest.processor.gs_base = DATA, DATA + 8
    assert isinstance(guest.processor.run(), Syscall)
    assert (guest.gpr[RAX], guest.gpr[RDX]) == (0xAAAA, 0xBBBB)
    assert (guest.processor.fs_base, guest.processor.gs_base) == (DATA, DATA + 8)


def test_the_time_stamp_counter_goes_on(guest: Guest) -> None:
    stamps: list[int] = []
    guest.load(b"\x0f\x31" + SYSCALL + b"\xeb\xfa")  # rdtsc
    for _ in range(5):
        guest.processor.run()
        stamps.append(guest.gpr[RDX] << 32 | guest.gpr[RAX] & 0xFFFF_FFFF)
    assert stamps == sorted(set(stamps))
