"""Process groups and sessions (credentials(7))."""

from errno import EACCES, EINVAL, EPERM, ESRCH

from enisle.abi.types import Pid
from enisle.errors import LinuxError
from enisle.kernel.calls.kill import find_process
from enisle.kernel.process import Process, Session
from enisle.kernel.table import Support, syscall
from enisle.kernel.thread import Thread

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100


def named_process(thread: Thread, pid: int) -> Process:
    """Return the process named by `pid`, the caller's own for 0. Raises ESRCH."""
    return find_process(thread, pid) if pid else thread.process


@syscall(109, Support.FULL)
def sys_setpgid(thread: Thread, pid: Pid, pgid: Pid) -> None:
    if pgid < 0:
        raise LinuxError(EINVAL)
    with thread.kernel.lock:
        process = named_process(thread, pid)
        if process is not thread.process:
            if process.parent is not thread.process:
                raise LinuxError(ESRCH)
            if process.session is not thread.process.session:
                raise LinuxError(EPERM)
            if process.has_execed:
                raise LinuxError(EACCES)
        if process.session.sid == process.pid:
            raise LinuxError(EPERM)
        target = pgid or process.pid
        everyone = thread.kernel.processes_by_pid.values()
        if target != process.pid and not any(p.pgid == target and p.session is process.session for p in everyone):
            raise LinuxError(EPERM)
        process.pgid = Pid(target)


@syscall(121, Support.FULL)
def sys_getpgid(thread: Thread, pid: Pid) -> int:
    return named_process(thread, pid).pgid


@syscall(111, Support.FULL)
def sys_getpgrp(thread: Thread) -> int:
    return thread.process.pgid


@syscall(124, Support.FULL)
def sys_getsid(thread: Thread, pid: Pid) -> int:
    return named_process(thread, pid).session.sid


@syscall(112, Support.FULL)
def sys_setsid(thread: Thread) -> int:
    process = thread.process
    with thread.kernel.lock:
        if any(other.pgid == process.pid for other in thread.kernel.processes_by_pid.values()):
            raise LinuxError(EPERM)
        process.session = Session(process.pid)
        process.pgid = process.pid
        return process.pid
