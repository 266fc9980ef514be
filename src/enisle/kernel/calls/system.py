"""What the system says of itself, and two of its services: uname(2), sysinfo(2), getrandom(2), membarrier(2)."""

import os
import struct
from errno import EFAULT, EINVAL, ENOSYS, EPERM

from enisle.abi import host_time
from enisle.abi import linux_prctl as p
from enisle.abi.linux_time import CLOCK_BOOTTIME, NS
from enisle.abi.types import PAGE, Gva
from enisle.errors import LinuxError
from enisle.kernel.table import Int, Size, Support, Uint, syscall
from enisle.kernel.thread import Thread

SYSNAME, RELEASE, MACHINE = b"Linux", b"6.1.0-enisle", b"x86_64"
VERSION = b"#1 SMP PREEMPT_DYNAMIC Enisle"
FIELD = 65
"""Bytes of a name in struct new_utsname with its NUL."""
SYSINFO = struct.Struct("<q3Q6QHH4xQQI4x")
"""uptime; loads; total, free, shared, buffer, total swap, free swap; processes; pad; high memory; unit."""
LOAD_SHIFT = 16
RANDOM_PIECE = 64 * 1024
INT_MAX = 0x7FFF_FFFF
MEMBARRIER_SUPPORTED = 0x7F
"""Everything but restartable sequences."""
MEMBARRIER_REGISTERED = {
    p.MEMBARRIER_CMD_PRIVATE_EXPEDITED: p.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
    p.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE: p.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
}


@syscall(63, Support.FULL)
def sys_uname(thread: Thread, names: Gva) -> None:
    kernel = thread.kernel
    fields = (SYSNAME, kernel.hostname, RELEASE, VERSION, MACHINE, kernel.domainname)
    thread.mm.write(names, b"".join(field[: FIELD - 1].ljust(FIELD, b"\0") for field in fields))


@syscall(170, Support.ABSENT, note="the name of an island is given by its owner: EPERM, as without CAP_SYS_ADMIN")
def sys_sethostname(thread: Thread, name: Gva, length: Int) -> None:
    raise LinuxError(EPERM)


@syscall(171, Support.ABSENT, note="as sethostname")
def sys_setdomainname(thread: Thread, name: Gva, length: Int) -> None:
    raise LinuxError(EPERM)


@syscall(99, Support.PARTIAL, note="the island's memory and processes, the host's load")
def sys_sysinfo(thread: Thread, address: Gva) -> None:
    kernel = thread.kernel
    memory = kernel.machine.memory
    total, free = memory.limit_frames * PAGE, max(0, memory.limit_frames - memory.used_frames) * PAGE
    uptime = -(-kernel.clock.now_ns(CLOCK_BOOTTIME) // NS)  # rounded up, as Linux does
    loads = [int(load * (1 << LOAD_SHIFT)) for load in os.getloadavg()]
    threads = min(len(kernel.threads), 0xFFFF)
    thread.mm.write(address, SYSINFO.pack(uptime, *loads, total, free, 0, 0, 0, 0, threads, 0, 0, 0, 1))


@syscall(318, Support.FULL)
def sys_getrandom(thread: Thread, buffer: Gva, size: Size, flags: Uint) -> int:
    if flags & ~(p.GRND_NONBLOCK | p.GRND_RANDOM | p.GRND_INSECURE):
        raise LinuxError(EINVAL)
    if flags & p.GRND_RANDOM and flags & p.GRND_INSECURE:
        raise LinuxError(EINVAL)
    size, done = Size(min(size, INT_MAX)), 0
    while done < size:
        piece = os.urandom(min(RANDOM_PIECE, size - done))
        try:
            thread.mm.write(buffer + done, piece)
        except LinuxError:
            reached = thread.mm.reach(buffer + done, len(piece), write=True)
            if done + reached == 0:
                raise LinuxError(EFAULT) from None
            return done + reached
        done += len(piece)
        if thread.work and done < size and thread.interrupted():
            break
    return done


@syscall(324, Support.PARTIAL, note="no barriers for restartable sequences")
def sys_membarrier(thread: Thread, command: Int, flags: Uint, cpu: Int) -> int:
    """A barrier on every processor of the process.

    Its threads are threads of ours, so the host's barrier for us is one for them: whoever runs in the guest is
    interrupted (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED).
    """
    if flags:
        raise LinuxError(EINVAL)
    if command == p.MEMBARRIER_CMD_QUERY:
        return MEMBARRIER_SUPPORTED if _host_has_barriers() else 0
    if not _host_has_barriers():
        raise LinuxError(ENOSYS)
    if command not in (1, 2, 4, 8, 16, 32, 64):
        raise LinuxError(EINVAL)
    if command in MEMBARRIER_REGISTERED.values():
        thread.mm.barriers |= command
    elif command in MEMBARRIER_REGISTERED and not thread.mm.barriers & MEMBARRIER_REGISTERED[command]:
        raise LinuxError(EPERM)
    elif command != p.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
        sync_core = command == p.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE
        host_time.membarrier(command if sync_core else p.MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)
    return 0


def _host_has_barriers() -> bool:
    """Register for the host's barriers, which costs nothing the second time."""
    try:
        for command in MEMBARRIER_REGISTERED.values():
            host_time.membarrier(command, 0, 0)
    except OSError:
        return False
    return True
