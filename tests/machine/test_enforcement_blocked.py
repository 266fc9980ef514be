"""A blocked function raises its exception and changes nothing; a permitted code of the same instruction answers."""

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enisle.abi.types import PAGE
from enisle.abi.x86 import GPR_COUNT, RAX, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSP, Vector
from enisle.machine import (
    Action,
    BlockingValue,
    Exit,
    Instruction,
    Interrupted,
    Machine,
    ProcessorException,
    Syscall,
)
from enisle.machine.blocking.codes import table
from machine.enforced import EnforcedGuest
from machine.guest import CODE, DATA, STACK, SYSCALL, Guest

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


def observed(guest: Guest) -> tuple[list[int], bytes, bytes, int]:
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


PERMITTED: dict[str, tuple[str, str, str]] = {
    # name: code, features it needs, and what is blocked beside it (the same opcode, or the same escape)
    "crc32": ("f2480f38f1c3", "sse4_2", "movbe"),
    "crc32 of memory": ("f2480f38f107", "sse4_2", "movbe"),  # behind its first byte stands MOVBE
    "crc32 of a byte": ("f20f38f04703", "sse4_2", "movbe"),
    "movbe": ("480f38f007", "movbe", "sse4_2"),
    "adcx": ("66480f38f6c3", "adx", "sha_ni"),
    "adox": ("f3480f38f6c3", "adx", "movbe"),
    "popcnt": ("f3480fb8c3", "popcnt", "rdrand"),
    "aesenc": ("660f38dcc1", "aes", "sha_ni"),
    "aeskeygenassist": ("660f3adfc11b", "aes", "pclmulqdq"),
    "pclmulqdq": ("660f3a44c111", "pclmulqdq", "aes"),
    "sha256rnds2": ("0f38cbd1", "sha_ni", "aes"),
    "sha1rnds4": ("0f3accc102", "sha_ni", "pclmulqdq"),
    "pshufb": ("660f3800c1", "ssse3", "movbe"),
    "pmulld": ("660f3840c1", "sse4_1", "sha_ni"),
    "pcmpistri": ("660f3a63c10c", "sse4_2", "pclmulqdq"),
    "palignr": ("660f3a0fc105", "ssse3", "aes"),
}


@pytest.mark.parametrize("name", PERMITTED)
def test_a_permitted_function_beside_a_blocked_one_computes_what_it_does_without_a_value(
    name: str, backend: str
) -> None:
    """The oracle is a machine without a value on the same backend."""
    text, needed, blocked = PERMITTED[name]
    rounds = 10_000 if SOAK else 400 if backend == "kvm" else 150
    choose = random.Random(name)
    value = BlockingValue(features={blocked: BLOCK})
    with guest_under(backend, value) as guest, Machine(backend, 64 << 20) as free:
        assert guest.machine.queries
        if needed not in guest.machine.queries.visible:
            pytest.skip(f"this processor ({backend}) has no {needed}, or {blocked} takes it along")
        oracle = Guest(free)
        guest.load(bytes.fromhex(text) + SYSCALL)
        oracle.load(bytes.fromhex(text) + SYSCALL)
        for _ in range(rounds):
            random_state(guest, choose)
            guest.gpr[RDI] = DATA
            guest.gpr[RSP] = STACK + PAGE - 64  # with one that is not canonical a software KVM emulates, or fails to
            copy_state(guest, oracle)
            assert isinstance(guest.dispatch(), Syscall)
            assert isinstance(run_on(oracle), Syscall)
            assert observed(guest) == observed(oracle)


@pytest.mark.kvm
def test_rdpid_executes_beside_a_blocked_rdseed() -> None:
    """Behind its first byte stands RDSEED, so it is done in software, which says what getcpu says."""
    with guest_under("kvm", BlockingValue(features={"rdseed": BLOCK})) as guest:
        assert guest.machine.queries
        if "rdpid" not in guest.machine.queries.visible:
            pytest.skip("this processor has no rdpid")
        guest.load(b"\xf3\x0f\xc7\xf8" + SYSCALL)
        for _ in range(3):
            guest.begin(guest.processor)
            guest.gpr[RAX] = 77
            assert isinstance(guest.dispatch(), Syscall)
            assert guest.gpr[RAX] == guest.number


def copy_state(source: EnforcedGuest, target: Guest) -> None:
    for index in range(GPR_COUNT):
        target.gpr[index] = source.gpr[index]
    target.processor.xrstor(source.processor.xsave())
    target.memory.write(target.data, source.memory.read(source.data, PAGE))


def run_on(guest: Guest) -> Exit:
    exit = guest.processor.run()
    while isinstance(exit, Interrupted):
        exit = guest.processor.run()
    return exit


def test_permitted_registers_and_counters_answer_beside_blocked_ones(backend: str) -> None:
    """RDMSR, XGETBV and RDTSC with random codes: what is blocked raises, what is permitted answers; high bits of the
    code do not count."""
    rounds = 10_000 if SOAK else 1000
    choose = random.Random(3)
    emulated = {index: choose.getrandbits(64) for index in range(0x100, 0x140)}
    value = BlockingValue(
        features={"rdtscp": BLOCK},
        tables={
            Instruction.RDMSR: table(BLOCK, dict.fromkeys(emulated, EMULATE)),
            Instruction.XGETBV: table(Action.ALLOW, {1: BLOCK}),
        },
        answers={(Instruction.RDMSR, index): content for index, content in emulated.items()},
    )
    codes = {"rdmsr": b"\x0f\x32", "xgetbv": b"\x0f\x01\xd0", "rdtsc": b"\x0f\x31", "rdtscp": b"\x0f\x01\xf9"}
    with guest_under(backend, value) as guest:
        queries = guest.machine.queries
        assert queries
        before = 0
        for name, code in codes.items():
            guest.load(code + SYSCALL)
            answered = 0
            for _ in range(rounds):
                guest.begin(guest.processor)
                register = choose.choice((0, 1, *range(0x0F8, 0x148)))
                guest.gpr[RCX] = choose.getrandbits(32) << 32 | register
                exit = guest.dispatch()
                found = guest.gpr[RDX] << 32 | guest.gpr[RAX]
                expected = emulated.get(register) if name == "rdmsr" else None
                if name == "xgetbv" and "osxsave" in queries.visible:
                    expected = queries.xcr0 if register == 0 else None
                if name == "rdtsc":
                    assert isinstance(exit, Syscall)
                    assert found > before
                    before = found
                elif expected is None:
                    assert isinstance(exit, ProcessorException), (name, register, exit)
                    assert guest.rip == CODE
                    continue
                else:
                    assert (type(exit), found) == (Syscall, expected), (name, hex(register))
                answered += 1
            assert answered or name == "rdtscp" or (name == "xgetbv" and "osxsave" not in queries.visible)


def test_what_is_written_over_a_trap_is_what_executes(backend: str) -> None:
    """A place where a trap has been met is remembered as long as its page is code, and no longer."""
    value = BlockingValue(tables={Instruction.CPUID: table(Action.ALLOW, {7: BLOCK})}, features={"rdrand": BLOCK})
    with guest_under(backend, value) as guest:
        for _ in range(3):
            for _ in range(3):
                guest.load(b"\x0f\xa2" + SYSCALL)
                assert isinstance(guest.dispatch(), Syscall)
                guest.begin(guest.processor)
                assert isinstance(guest.dispatch(), Syscall)
                guest.begin(guest.processor)
                guest.gpr[RAX] = 7
                assert isinstance(guest.dispatch(), ProcessorException)
            guest.load(b"\x0f\xc7\xf0" + SYSCALL)
            exit = guest.dispatch()
            assert isinstance(exit, ProcessorException)
            assert exit.vector == Vector.UD
            guest.load(b"\x0f\x0b" + SYSCALL)  # the program's own
            exit = guest.dispatch()
            assert isinstance(exit, ProcessorException)
            assert exit.vector == Vector.UD


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
