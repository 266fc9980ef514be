"""A blocked function raises its exception and changes nothing; a permitted code of the same instruction answers."""

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enisle.abi.types import PAGE
from enisle.abi.x86 import GPR_COUNT, RAX, RBX, RCX, RDX, RFLAGS, RIP, Vector
from enisle.machine import Action, BlockingValue, Instruction, Machine, ProcessorException, Syscall
from enisle.machine.blocking.codes import table
from machine.enforced import EnforcedGuest
from machine.guest import CODE, SYSCALL

SOAK = bool(os.environ.get("ENISLE_SOAK"))
BLOCK, EMULATE = Action.BLOCK, Action.EMULATE
FREE_FLAGS = 0xCD5
"""CF PF AF ZF SF DF OF: what any program may have set."""
EVERYTHING = table(BLOCK)
CASES: dict[str, tuple[bytes, BlockingValue, int]] = {
    "cpuid": (b"\x0f\xa2", BlockingValue(tables={Instruction.CPUID: EVERYTHING}), Vector.GP),
    "xgetbv": (b"\x0f\x01\xd0", BlockingValue(features={"xsave": BLOCK}), Vector.UD),
    "xsetbv": (b"\x0f\x01\xd1", BlockingValue(tables={Instruction.XSETBV: EVERYTHING}), Vector.GP),
    "rdmsr": (b"\x0f\x32", BlockingValue(tables={Instruction.RDMSR: EVERYTHING}), Vector.GP),
    "wrmsr": (b"\x0f\x30", BlockingValue(tables={Instruction.WRMSR: EVERYTHING}), Vector.GP),
    "rdpmc": (b"\x0f\x33", BlockingValue(tables={Instruction.RDPMC: EVERYTHING}), Vector.GP),
    "rdtsc": (b"\x0f\x31", BlockingValue(features={"tsc": BLOCK}), Vector.GP),
    "rdtscp": (b"\x0f\x01\xf9", BlockingValue(features={"rdtscp": BLOCK}), Vector.UD),
    "rdrand": (b"\x48\x0f\xc7\xf0", BlockingValue(features={"rdrand": BLOCK}), Vector.UD),
    "rdseed": (b"\x66\x0f\xc7\xf9", BlockingValue(features={"rdseed": BLOCK}), Vector.UD),
    "rdpid": (b"\xf3\x0f\xc7\xf8", BlockingValue(features={"rdpid": BLOCK}), Vector.UD),
    "vmcall": (b"\x0f\x01\xd9", BlockingValue(tables={Instruction.VMCALL: EVERYTHING}), Vector.UD),
    "aes": (b"\x66\x0f\x38\xdc\xc1", BlockingValue(features={"aes": BLOCK}), Vector.UD),
    "sha": (b"\x0f\x38\xcb\xc1", BlockingValue(features={"sha_ni": BLOCK}), Vector.UD),
    "fsgsbase": (b"\xf3\x48\x0f\xae\xd0", BlockingValue(features={"fsgsbase": BLOCK}), Vector.UD),
}


@contextmanager
def guest_under(backend: str, value: BlockingValue) -> Iterator[EnforcedGuest]:
    with Machine(backend, 64 << 20, blocking=value) as machine:
        yield EnforcedGuest(machine)


def random_state(guest: EnforcedGuest, choose: random.Random) -> None:
    """Give every register, the flags, the vector state and the data page a random content."""
    for index in range(16):
        guest.gpr[index] = choose.getrandbits(64)
    guest.gpr[RIP] = CODE
    guest.gpr[RFLAGS] = 0x202 | choose.getrandbits(12) & FREE_FLAGS
    area = bytearray(guest.processor.xsave())
    area[160:416] = choose.randbytes(256)
    struct.pack_into("<Q", area, 512, struct.unpack_from("<Q", area, 512)[0] | 2)
    guest.processor.xrstor(bytes(area))
    guest.memory.write(guest.data, choose.randbytes(PAGE))


def observed(guest: EnforcedGuest) -> tuple[list[int], bytes, bytes, int]:
    registers = [guest.gpr[index] for index in range(GPR_COUNT)]
    return registers, guest.memory.read(guest.data, PAGE), guest.processor.xsave()[:576], guest.processor.fs_base


@pytest.mark.parametrize("name", CASES)
def test_a_blocked_function_changes_nothing(name: str, backend: str) -> None:
    code, value, vector = CASES[name]
    rounds = 1000 if SOAK or backend == "kvm" else 150
    choose = random.Random(name)
    with guest_under(backend, value) as guest:
        guest.load(code + SYSCALL)
        for _ in range(rounds):
            random_state(guest, choose)
            before = observed(guest)
            exit = guest.dispatch()
            assert isinstance(exit, ProcessorException), exit
            assert (exit.vector, exit.error_code) == (vector, 0)
            after = observed(guest)
            assert after[0][RIP] == CODE
            assert after[0][:RFLAGS] == before[0][:RFLAGS]
            assert after[0][RFLAGS] & FREE_FLAGS == before[0][RFLAGS] & FREE_FLAGS
            assert after[1:] == before[1:]


def test_permitted_leaves_answer_what_the_value_says(backend: str) -> None:
    """The same opcode with other codes: random leaves, of which one is blocked and one masked."""
    value = BlockingValue(
        features={"aes": BLOCK}, tables={Instruction.CPUID: table(Action.ALLOW, {0x8000_0008: BLOCK})}
    )
    choose = random.Random(2)
    rounds = 10_000 if SOAK else 1500
    with guest_under(backend, value) as guest:
        queries = guest.machine.queries
        assert queries
        guest.load(b"\x0f\xa2" + SYSCALL)
        blocked = 0
        for _ in range(rounds):
            leaf = choose.choice((1, 7, 0xD, 0x8000_0001, 0x8000_0008, choose.getrandbits(5), choose.getrandbits(32)))
            subleaf = choose.choice((0, 0, 1, 2, choose.getrandbits(32)))
            guest.begin(guest.processor)
            high = choose.getrandbits(32) << 32  # what does not belong to the code must not matter
            guest.gpr[RAX], guest.gpr[RCX], guest.gpr[RBX], guest.gpr[RDX] = (
                high | leaf,
                high | subleaf,
                1 << 63,
                1 << 63,
            )
            # Bits above 31 do not count, so the result clears them (SDM 2, CPUID).
            exit = guest.dispatch()
            if leaf == 0x8000_0008:
                assert isinstance(exit, ProcessorException)
                assert (exit.vector, guest.rip) == (Vector.GP, CODE)
                blocked += 1
                continue
            # SYSCALL leaves the address behind itself in RCX, so leaf's ECX is looked at in the query test.
            assert isinstance(exit, Syscall), (exit, hex(leaf))
            expected = queries.cpuid(leaf, subleaf)
            assert (guest.gpr[RAX], guest.gpr[RBX], guest.gpr[RDX]) == (expected[0], expected[1], expected[3])
        assert blocked


def test_two_values_on_one_thread_do_not_mix(backend: str) -> None:
    """Two machines, one host thread, dispatched in turn: what is blocked in one is there in the other."""
    rounds = 3400 if SOAK else 1000 if backend == "kvm" else 300
    one_value = BlockingValue("one", features={"rdrand": BLOCK, "ssse3": BLOCK})
    two_value = BlockingValue("two", features={"sse4_2": BLOCK})
    # rdrand rbx; mov eax, 1; xor ecx, ecx; cpuid; mov r8d, ecx; syscall   |   from the MOV on
    code = b"\x48\x0f\xc7\xf3\xb8\x01\x00\x00\x00\x31\xc9\x0f\xa2\x41\x89\xc8" + SYSCALL
    with guest_under(backend, one_value) as one, guest_under(backend, two_value) as two:
        one.load(code)
        two.load(code)
        expected = [guest.machine.queries.cpuid(1)[2] for guest in (one, two)]  # type: ignore[union-attr]
        assert expected[0] != expected[1]
        has_rdrand = expected[1] >> 30 & 1
        for _ in range(rounds):
            one.begin(one.processor)
            two.begin(two.processor)
            exit = one.dispatch()
            assert isinstance(exit, ProcessorException)
            assert (exit.vector, one.rip) == (Vector.UD, CODE)
            if not has_rdrand:
                two.gpr[RIP] = CODE + 4
            assert isinstance(two.dispatch(), Syscall)
            one.gpr[RIP] = CODE + 4
            assert isinstance(one.dispatch(), Syscall)
            assert [one.gpr[8], two.gpr[8]] == expected


@pytest.mark.kvm
def test_registers_answer_alike_in_both_rings() -> None:
    """64 model-specific registers: permitted, denied and emulated ones, read in ring 3 and through KVM's filter."""
    from enisle.machine.enforcement import msr

    indices = [*range(0x10, 0x30), *range(0xC000_0080, 0xC000_0090), *range(0xC001_0010, 0xC001_0020)]
    assert len(indices) == 64
    emulated = {index: 0x1111_0000_0000 + index for index in indices[::3]}
    codes = dict.fromkeys(indices, BLOCK) | dict.fromkeys(emulated, EMULATE)
    value = BlockingValue(
        tables={Instruction.RDMSR: table(BLOCK, codes), Instruction.WRMSR: table(BLOCK, codes)},
        answers={(Instruction.RDMSR, index): content for index, content in emulated.items()},
    )
    from machine.ring0 import read_register

    with guest_under("kvm", value) as guest:
        guest.load(b"\x0f\x32" + SYSCALL)
        for index in indices:
            guest.begin(guest.processor)
            guest.gpr[RCX] = index
            exit = guest.dispatch()
            in_ring_3 = guest.gpr[RDX] << 32 | guest.gpr[RAX] if isinstance(exit, Syscall) else None
            in_ring_0 = read_register(guest.machine, msr.Filter(value, ()), index)
            assert in_ring_3 == in_ring_0 == emulated.get(index), hex(index)
