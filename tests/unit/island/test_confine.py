"""The seccomp filter, read by a small interpreter of classic BPF: every system call gets the answer it should."""

from errno import ENOSYS, EPERM
from struct import iter_unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi import seccomp as bpf
from enisle.island.confine import filter_program

PID = 4242
ALLOW = bpf.SECCOMP_RET_ALLOW
DENY = bpf.SECCOMP_RET_ERRNO | EPERM
KILL = bpf.SECCOMP_RET_KILL_PROCESS
PROGRAM = list(iter_unpack("<HBBI", filter_program(PID)))


def judge(number: int, *arguments: int, architecture: int = bpf.AUDIT_ARCH_X86_64) -> int:
    """Return what the filter answers."""
    record = number.to_bytes(4, "little") + architecture.to_bytes(4, "little") + bytes(8)
    record += b"".join((arguments[i] if i < len(arguments) else 0).to_bytes(8, "little") for i in range(6))
    accumulator = counter = 0
    while True:
        code, if_true, if_false, k = PROGRAM[counter]
        counter += 1
        if code == bpf.BPF_LD_W_ABS:
            accumulator = int.from_bytes(record[k : k + 4], "little")
        elif code == bpf.BPF_RET_K:
            return k
        else:
            tests = {
                bpf.BPF_JEQ_K: accumulator == k,
                bpf.BPF_JGE_K: accumulator >= k,
                bpf.BPF_JSET_K: bool(accumulator & k),
            }
            counter += if_true if tests[code] else if_false


def test_the_filter_is_short_enough_for_the_kernel() -> None:
    assert len(PROGRAM) < 4096


@pytest.mark.parametrize("name", sorted(bpf.NUMBERS))
def test_what_an_island_never_needs_is_denied(name: str) -> None:
    assert judge(bpf.NUMBERS[name]) == DENY


@pytest.mark.parametrize("number", [0, 1, 2, 9, 10, 13, 28, 202, 232, 257, 323])
def test_what_serves_the_guest_is_allowed(number: int) -> None:
    assert judge(number, 1, 2, 3) == ALLOW


def test_only_threads_may_be_made() -> None:
    assert judge(bpf.NR_CLONE, 0x3D0F00) == ALLOW
    assert judge(bpf.NR_CLONE, 17) == DENY
    assert judge(bpf.NR_CLONE3) == bpf.SECCOMP_RET_ERRNO | ENOSYS


def test_only_this_process_may_be_signalled_or_read() -> None:
    for number in (bpf.NR_KILL, bpf.NR_TGKILL, bpf.NR_PROCESS_VM_READV, bpf.NR_PROCESS_VM_WRITEV):
        assert judge(number, PID) == ALLOW
        assert judge(number, 1) == DENY
        assert judge(number, (1 << 64) - 1) == DENY
        assert judge(number, 0) == DENY
    assert judge(bpf.NR_PRLIMIT64, 0) == ALLOW


def test_the_callers_terminal_cannot_be_typed_into() -> None:
    assert judge(bpf.NR_IOCTL, 0, bpf.TIOCSTI) == DENY
    assert judge(bpf.NR_IOCTL, 0, 1 << 32 | bpf.TIOCSTI) == DENY
    assert judge(bpf.NR_IOCTL, 0, 0xAE80) == ALLOW


def test_only_families_that_a_network_name_space_isolates_are_allowed() -> None:
    assert judge(bpf.NR_SOCKET, bpf.AF_INET6, 1) == ALLOW
    for family in (17, 38, 40):  # AF_PACKET, AF_ALG, AF_VSOCK
        assert judge(bpf.NR_SOCKET, family) == DENY


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1))
def test_other_architectures_and_x32_end_the_process(number: int, argument: int) -> None:
    assert judge(number, argument, architecture=0x4000_0003) == KILL
    assert judge(number | bpf.X32_SYSCALL_BIT, argument) == KILL
