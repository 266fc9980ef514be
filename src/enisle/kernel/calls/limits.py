"""Resource limits (getrlimit(2), prlimit(2))."""

import struct
from errno import EINVAL, EPERM, ESRCH

from enisle.abi.linux_capability import CAP_SYS_RESOURCE
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel.limits import RLIMIT_CPU, RLIMIT_NOFILE, RLIMITS
from enisle.kernel.process import Process
from enisle.kernel.table import Support, Uint, syscall
from enisle.kernel.thread import Thread

RLIMIT = struct.Struct("<QQ")
MOST_FILES = 1 << 20
"""No more descriptors than this, whatever the limit (fs.nr_open)."""
NOTE = "kept for every resource; enforced for descriptors, processor time, memory, stack, file size and queued signals"


def get_pair(process: Process, resource: int) -> tuple[int, int]:
    """Raises EINVAL."""
    if resource >= RLIMITS:
        raise LinuxError(EINVAL)
    return process.limits.pairs[resource]


def set_pair(thread: Thread, process: Process, resource: int, pair: tuple[int, int]) -> None:
    """Change a limit as Linux allows (do_prlimit). Raises EINVAL, EPERM."""
    soft, hard = pair
    if resource >= RLIMITS or soft > hard:
        raise LinuxError(EINVAL)
    if resource == RLIMIT_NOFILE and hard > MOST_FILES:
        raise LinuxError(EPERM)
    with thread.kernel.lock:
        if hard > process.limits.pairs[resource][1] and not thread.process.credentials.may(CAP_SYS_RESOURCE):
            raise LinuxError(EPERM)
        process.limits.pairs[resource] = pair
        if resource == RLIMIT_CPU:
            process.timers.limit_changed()


@syscall(97, Support.FULL)
def sys_getrlimit(thread: Thread, resource: Uint, limit: Gva) -> None:
    thread.mm.write(limit, RLIMIT.pack(*get_pair(thread.process, resource)))


@syscall(160, Support.PARTIAL, note=NOTE)
def sys_setrlimit(thread: Thread, resource: Uint, limit: Gva) -> None:
    soft, hard = RLIMIT.unpack(thread.mm.read(limit, RLIMIT.size))
    set_pair(thread, thread.process, resource, (soft, hard))


@syscall(302, Support.PARTIAL, note=NOTE)
def sys_prlimit64(thread: Thread, pid: Pid, resource: Uint, new: Gva, old: Gva) -> None:
    wanted = RLIMIT.unpack(thread.mm.read(new, RLIMIT.size)) if new else None
    process = find_limited(thread, pid)
    before = get_pair(process, resource)
    if wanted:
        set_pair(thread, process, resource, (wanted[0], wanted[1]))
    if old:
        thread.mm.write(old, RLIMIT.pack(*before))


def find_limited(thread: Thread, pid: int) -> Process:
    """Return the process whose limits the caller may see and change. Raises ESRCH, EPERM (check_prlimit_permission)."""
    if pid == 0:
        return thread.process
    target = thread.kernel.threads.get(Pid(pid))
    process = target.process if target else thread.kernel.processes_by_pid.get(Pid(pid))
    if process is None:
        raise LinuxError(ESRCH)
    me, other = thread.process.credentials, process.credentials
    same = set(other.uids) == {me.uid} and set(other.gids) == {me.gid}
    if process is not thread.process and not same and not me.may(CAP_SYS_RESOURCE):
        raise LinuxError(EPERM)
    return process
