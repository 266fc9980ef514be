"""What the island process gives up for good: capabilities, new privileges, and system calls it never needs.

This is the second wall. The first is that the guest cannot make a host call at all: only our kernel can, and it vets
them. Promises: after `confine` the calling thread and all it starts cannot execute, fork, mount, load, trace or signal
anything outside this process. Owned by the main thread before any other thread exists.
"""

import os
from errno import ENOSYS, EPERM
from struct import pack

from enisle.abi import host
from enisle.abi import seccomp as bpf

# What a guest's root may do to files, sockets and processes of its own; capabilities(7).
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_NET_BIND_SERVICE, CAP_NET_RAW = 0, 1, 3, 4, 10, 13
ROOT_KEEPS = (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID)
PRIVATE_NETWORK_KEEPS = (CAP_NET_BIND_SERVICE, CAP_NET_RAW)


def confine(root: bool, private_network: bool) -> None:
    """Drop capabilities to those that serve the guest, forbid new ones, and install the filter.

    Requires: the jail is built and this is the only thread of the process.
    """
    keep = 0
    if root:
        for capability in ROOT_KEEPS + (PRIVATE_NETWORK_KEEPS if private_network else ()):
            keep |= 1 << capability
    host.prctl(host.PR_CAP_AMBIENT, host.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    keep &= host.capget()[1]  # a container's root often has less than all
    host.capset(keep, keep, 0)
    host.prctl(host.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    host.seccomp_filter(filter_program(os.getpid()))


def filter_program(pid: int) -> bytes:
    """Return the filter; `pid` is the only process that may be signalled, read or limited.

    Linux keeps a bitmap of the calls a filter always allows (since 5.11), so its length costs the others nothing.
    """
    deny = _return(bpf.SECCOMP_RET_ERRNO | EPERM)
    code = _load(bpf.SECCOMP_DATA_ARCH)
    code += _jump(bpf.BPF_JEQ_K, bpf.AUDIT_ARCH_X86_64, 1, 0) + _return(bpf.SECCOMP_RET_KILL_PROCESS)
    code += _load(bpf.SECCOMP_DATA_NR)
    code += _jump(bpf.BPF_JGE_K, bpf.X32_SYSCALL_BIT, 0, 1) + _return(bpf.SECCOMP_RET_KILL_PROCESS)
    for number in sorted(bpf.NUMBERS.values()):
        code += _jump(bpf.BPF_JEQ_K, number, 0, 1) + deny
    # Its flags are in memory, out of a filter's sight; glibc falls back to clone when it is missing.
    code += _jump(bpf.BPF_JEQ_K, bpf.NR_CLONE3, 0, 1) + _return(bpf.SECCOMP_RET_ERRNO | ENOSYS)
    code += _argument(bpf.NR_CLONE, 0, bpf.BPF_JSET_K, (bpf.CLONE_THREAD,), allow=True)
    code += _argument(bpf.NR_IOCTL, 1, bpf.BPF_JEQ_K, (bpf.TIOCSTI, bpf.TIOCLINUX), allow=False)
    families = (bpf.AF_UNIX, bpf.AF_INET, bpf.AF_INET6, bpf.AF_NETLINK)
    code += _argument(bpf.NR_SOCKET, 0, bpf.BPF_JEQ_K, families, allow=True)
    for number in (bpf.NR_KILL, bpf.NR_TGKILL, bpf.NR_PROCESS_VM_READV, bpf.NR_PROCESS_VM_WRITEV):
        code += _argument(number, 0, bpf.BPF_JEQ_K, (pid,), allow=True)
    code += _argument(bpf.NR_PRLIMIT64, 0, bpf.BPF_JEQ_K, (0, pid), allow=True)
    return code + _return(bpf.SECCOMP_RET_ALLOW)


def _argument(number: int, index: int, test: int, values: tuple[int, ...], allow: bool) -> bytes:
    """Allow (or deny) call `number` only when the low half of one argument passes `test` with one of `values`."""
    yes, no = _return(bpf.SECCOMP_RET_ALLOW), _return(bpf.SECCOMP_RET_ERRNO | EPERM)
    if not allow:
        yes, no = no, yes
    body = _load(bpf.SECCOMP_DATA_ARGS + 8 * index)
    for value in values:
        body += _jump(test, value, 0, 1) + yes
    body += no
    return _jump(bpf.BPF_JEQ_K, number, 0, len(body) // 8) + body


def _load(offset: int) -> bytes:
    return pack("<HBBI", bpf.BPF_LD_W_ABS, 0, 0, offset)


def _jump(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return pack("<HBBI", test, if_true, if_false, value)


def _return(action: int) -> bytes:
    return pack("<HBBI", bpf.BPF_RET_K, 0, 0, action)
