"""Sending signals: kill(2), tgkill(2), rt_sigqueueinfo(2)."""

from collections.abc import Iterable
from errno import EINVAL, EPERM, ESRCH

from enisle.abi import linux_signal as s
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.process import Process
from enisle.kernel.table import Int, Support, syscall
from enisle.kernel.thread import Thread

CAP_KILL = 5
INIT_PID = 1
INT_MIN = -(1 << 31)


def check_permission(thread: Thread, target: Process, signo: int) -> None:
    """Raise EINVAL for no signal, EPERM for one the thread may not send (check_kill_permission)."""
    if not 0 <= signo <= s.NSIG:
        raise LinuxError(EINVAL)
    process = thread.process
    ours, theirs = process.credentials, target.credentials
    if process is target or ours.effective >> CAP_KILL & 1:
        return
    if {ours.euid, ours.uid} & {theirs.suid, theirs.uid}:
        return
    if signo == s.SIGCONT and process.session is target.session:
        return
    raise LinuxError(EPERM)


def find_process(thread: Thread, pid: int) -> Process:
    """Return the process of this id, or the one a thread of this id belongs to. Raises ESRCH."""
    kernel = thread.kernel
    process = kernel.processes_by_pid.get(Pid(pid))
    if process is None and (member := kernel.threads.get(Pid(pid))):
        process = member.process
    if process is None:
        raise LinuxError(ESRCH)
    return process


def find_thread(thread: Thread, tid: int, tgid: int = 0) -> Thread:
    """Return the thread of this id, in process `tgid` if that is given. Raises ESRCH."""
    found = thread.kernel.threads.get(Pid(tid))
    if found is None or (tgid and found.process.pid != tgid):
        raise LinuxError(ESRCH)
    return found


@syscall(62, Support.FULL)
def sys_kill(thread: Thread, pid: Pid, signo: Int) -> None:
    kernel, sender = thread.kernel, thread.process
    with kernel.lock:
        if pid > 0:
            _kill_one(thread, find_process(thread, pid), signo)
        elif pid == INT_MIN:
            raise LinuxError(ESRCH)
        elif pid == -1:
            others = (p for p in kernel.processes_by_pid.values() if p.pid != INIT_PID and p is not sender)
            _kill_all(thread, others, signo)
        else:
            group = -pid or sender.pgid
            _kill_group(thread, [p for p in kernel.processes_by_pid.values() if p.pgid == group], signo)


def _kill_one(thread: Thread, target: Process, signo: int) -> None:
    check_permission(thread, target, signo)
    if signo:
        sender = thread.process
        info = signals.user_info(signo, s.SI_USER, sender.pid, sender.credentials.uid)
        signals.send_to_process(target, signo, info)


def _kill_group(thread: Thread, members: list[Process], signo: int) -> None:
    """Succeeds when one member could be signalled."""
    error, success = LinuxError(ESRCH), False
    for member in members:
        try:
            _kill_one(thread, member, signo)
            success = True
        except LinuxError as failure:
            error = failure
    if not success:
        raise error


def _kill_all(thread: Thread, targets: Iterable[Process], signo: int) -> None:
    """Processes that may not be signalled are passed over."""
    error, count = None, 0
    for target in list(targets):
        count += 1
        try:
            _kill_one(thread, target, signo)
        except LinuxError as failure:
            error = failure if failure.errno != EPERM else error
    if not count:
        raise LinuxError(ESRCH)
    if error:
        raise error


def _kill_thread(thread: Thread, target: Thread, signo: int, info: signals.SigInfo) -> None:
    check_permission(thread, target.process, signo)
    if signo:
        signals.send_to_thread(target, signo, info)


@syscall(200, Support.FULL)
def sys_tkill(thread: Thread, tid: Pid, signo: Int) -> None:
    if tid <= 0:
        raise LinuxError(EINVAL)
    _tgkill(thread, 0, tid, signo)


@syscall(234, Support.FULL)
def sys_tgkill(thread: Thread, tgid: Pid, tid: Pid, signo: Int) -> None:
    if tid <= 0 or tgid <= 0:
        raise LinuxError(EINVAL)
    _tgkill(thread, tgid, tid, signo)


def _tgkill(thread: Thread, tgid: int, tid: int, signo: int) -> None:
    sender = thread.process
    with thread.kernel.lock:
        info = signals.user_info(signo, s.SI_TKILL, sender.pid, sender.credentials.uid)
        _kill_thread(thread, find_thread(thread, tid, tgid), signo, info)


def _read_info(thread: Thread, address: int, signo: int, target: int) -> signals.SigInfo:
    """Read what the guest wants to send. Raises EFAULT, and EPERM when it pretends to be the kernel or kill(2)."""
    info = signals.SigInfo.decode(signo, thread.mm.read(address, s.SIGINFO_SIZE))
    if (info.code >= 0 or info.code == s.SI_TKILL) and thread.tid != target:
        raise LinuxError(EPERM)
    return info


@syscall(129, Support.FULL)
def sys_rt_sigqueueinfo(thread: Thread, pid: Pid, signo: Int, address: Gva) -> None:
    info = _read_info(thread, address, signo, pid)
    with thread.kernel.lock:
        target = find_process(thread, pid)
        check_permission(thread, target, signo)
        if signo:
            signals.send_to_process(target, signo, info)


@syscall(297, Support.FULL)
def sys_rt_tgsigqueueinfo(thread: Thread, tgid: Pid, tid: Pid, signo: Int, address: Gva) -> None:
    info = _read_info(thread, address, signo, tid)
    if tid <= 0 or tgid <= 0:
        raise LinuxError(EINVAL)
    with thread.kernel.lock:
        _kill_thread(thread, find_thread(thread, tid, tgid), signo, info)
