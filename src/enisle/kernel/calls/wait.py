"""Waiting for children: wait4, waitid (wait(2))."""

from errno import ECHILD, EINVAL

from enisle.abi import linux_sched as s
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.cputime import CpuTime, pack_rusage
from enisle.kernel.process import CLD_CONTINUED, CLD_STOPPED, SIGCHLD, Process
from enisle.kernel.table import Int, Support, syscall
from enisle.kernel.thread import Thread
from enisle.records import Record

CONTINUED = 0xFFFF
WAIT4_OPTIONS = s.WNOHANG | s.WUNTRACED | s.WCONTINUED | s.WNOTHREAD | s.WALL | s.WCLONE


class Found(Record):
    """A child with something to tell: its wait status, and si_code with si_status."""

    child: Process
    status: int
    code: int
    value: int
    times: CpuTime = CpuTime()


@syscall(61, Support.FULL)
def sys_wait4(thread: Thread, pid: Pid, status: Gva, options: Int, rusage: Gva) -> int:
    if options & 0xFFFF_FFFF & ~WAIT4_OPTIONS:
        raise LinuxError(EINVAL)
    kind, target = s.P_PID, pid
    if pid < -1:
        kind, target = s.P_PGID, Pid(-pid)
    elif pid == -1:
        kind = s.P_ALL
    elif pid == 0:
        kind, target = s.P_PGID, thread.process.pgid
    found = wait_for_child(thread, kind, target, options | s.WEXITED)
    if found is None:
        return 0
    if status:
        thread.mm.write_u32(status, found.status)
    if rusage:
        thread.mm.write(rusage, pack_rusage(found.times))
    return found.child.pid


@syscall(247, Support.FULL)
def sys_waitid(thread: Thread, kind: Int, pid: Pid, info: Gva, options: Int, rusage: Gva) -> None:
    events = s.WEXITED | s.WSTOPPED | s.WCONTINUED
    allowed = events | s.WNOHANG | s.WNOWAIT | s.WNOTHREAD | s.WALL
    if options & ~allowed & 0x7FFF_FFFF or not options & events or kind not in (s.P_ALL, s.P_PID, s.P_PGID, s.P_PIDFD):
        raise LinuxError(EINVAL)
    if (kind == s.P_PID and pid <= 0) or (kind == s.P_PGID and pid < 0):
        raise LinuxError(EINVAL)
    target = thread.process.pgid if kind == s.P_PGID and pid == 0 else pid
    selector = kind
    if kind == s.P_PIDFD:
        from enisle.kernel.pidfd import process_behind

        selector, target = s.P_PID, process_behind(thread, pid).pid
    found = wait_for_child(thread, selector, target, options)
    if info:
        filled = bytes(128)
        if found:
            child = found.child
            filled = signals.child_info(SIGCHLD, found.code, child.pid, child.credentials.uid, found.value)
        thread.mm.write(info, bytes(filled)[:128])
    if rusage and found:
        thread.mm.write(rusage, pack_rusage(found.times))


def wait_for_child(thread: Thread, kind: int, target: int, options: int) -> Found | None:
    """Wait for an event of a matching child; None with WNOHANG when there is none yet. Raises ECHILD."""
    while True:
        with thread.kernel.lock:
            family = thread.process.children.values()
            children = [child for child in family if _matches(child, kind, target) and _is_eligible(child, options)]
            if not children:
                raise LinuxError(ECHILD)
            for child in children:
                if found := _event_of(child, options):
                    return found
        if options & s.WNOHANG:
            return None
        thread.sleep(None)


def _matches(child: Process, kind: int, target: int) -> bool:
    return kind == s.P_ALL or (child.pid if kind == s.P_PID else child.pgid) == target


def _is_eligible(child: Process, options: int) -> bool:
    """A child whose end is told otherwise than by SIGCHLD is a "clone" child: __WCLONE and __WALL see it (wait(2))."""
    return bool(options & s.WALL) or (child.exit_signal != SIGCHLD) == bool(options & s.WCLONE)


def _event_of(child: Process, options: int) -> Found | None:
    """Take the event of a child that `options` ask for. Requires: kernel.lock."""
    keep = options & s.WNOWAIT
    if child.zombie and options & s.WEXITED:
        code, value = child.child_code()
        found = Found(child, child.status or 0, code, value, child.timers.usage.all_time())
        if not keep:
            child.reap()
        return found
    event = child.wait_event
    if event is None or child.zombie:
        return None
    if not options & (s.WCONTINUED if event == CONTINUED else s.WSTOPPED):
        return None
    if not keep:
        child.wait_event = None
    if event == CONTINUED:
        return Found(child, event, CLD_CONTINUED, 18)
    return Found(child, event, CLD_STOPPED, event >> 8)
