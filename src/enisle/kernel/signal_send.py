"""Sending signals: who gets one, who is woken for it, and what it does at once (kernel/signal.c of Linux).

Everything here takes kernel.lock. A process without threads (the kernel's own, a zombie) takes no signals.
"""

from collections.abc import Iterator
from errno import EAGAIN
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.errors import LinuxError
from enisle.kernel.limits import RLIMIT_SIGPENDING
from enisle.kernel.signal_actions import SigAction
from enisle.kernel.signal_info import SigInfo
from enisle.kernel.signal_queue import PendingSignals

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

QUEUE_LIMIT = 1 << 15
"""Queued signals of one user, whatever the guest's own limit says."""


def send_to_process(process: "Process", signo: int, info: SigInfo) -> None:
    """Send a process-directed signal: any thread that does not block it may take it. Raises EAGAIN at the limit."""
    with process.kernel.lock:
        target = process.leader
        if target:
            _send(target, signo, info, process.pending, directed=False)


def send_to_thread(thread: "Thread", signo: int, info: SigInfo) -> None:
    """Send a thread-directed signal. Raises EAGAIN at the limit."""
    with thread.kernel.lock:
        _send(thread, signo, info, thread.pending, directed=True)


def force_signal(thread: "Thread", info: SigInfo, fatal: bool = False) -> None:
    """Deliver an exception to the thread that caused it; when it is blocked, ignored or `fatal`, the process dies.

    Linux's force_sig_info_to_task.
    """
    with thread.kernel.lock:
        handlers, signal = thread.process.handlers, s.bit(info.signo)
        blocked = bool(thread.blocked & signal)
        if blocked or fatal or handlers[info.signo].handler == s.SIG_IGN:
            handlers[info.signo] = handlers[info.signo]._replace(handler=s.SIG_DFL)
            thread.blocked &= ~signal
        _send(thread, info.signo, info, thread.pending, directed=True)
        thread.work = True


def _send(target: "Thread", signo: int, info: SigInfo, pending: PendingSignals, directed: bool) -> None:
    """Requires: kernel.lock. `target`: the addressed thread, or the leader of the addressed process."""
    process = target.process
    if process.exiting or not _prepare(target, signo):
        return
    if signo == s.SIGKILL:
        process.exit_group(s.SIGKILL)
        return
    if signo < s.SIGRTMIN and pending.mask & s.bit(signo) and info.timer is None:
        return  # standard signals do not queue
    keep = info.timer is not None or (signo < s.SIGRTMIN and info.code >= 0) or _may_queue(process)
    if not keep and signo >= s.SIGRTMIN and info.code != s.SI_USER:
        raise LinuxError(EAGAIN)
    pending.add(info, keep)
    if process.pending.watchers:
        process.pending.ring()
    _wake(target, signo, directed)


def _may_queue(process: "Process") -> bool:
    """Return whether the process's user may have one more signal queued. Requires: kernel.lock."""
    return count_queued(process) < min(process.limits.soft(RLIMIT_SIGPENDING), QUEUE_LIMIT)


def count_queued(process: "Process") -> int:
    """Return how many signals the process's user has queued (SigQ of /proc/PID/status)."""
    with process.kernel.lock:
        uid = process.credentials.uid
        return sum(
            len(pending.queue)
            for other in process.kernel.processes_by_pid.values()
            if other.credentials.uid == uid
            for pending in queues(other)
        )


def queues(process: "Process") -> Iterator[PendingSignals]:
    yield process.pending
    for thread in process.threads.values():
        yield thread.pending


def _prepare(target: "Thread", signo: int) -> bool:
    """Do what a stop or continue signal does when sent; return whether the signal is to be kept at all."""
    process = target.process
    if s.STOP_SIGNALS & s.bit(signo):
        discard(process, s.bit(s.SIGCONT))
    elif signo == s.SIGCONT:
        discard(process, s.STOP_SIGNALS)
        resume(process)
    if (target.blocked | target.real_blocked) & s.bit(signo):
        return True
    return not process.handlers.ignores(signo)


def discard(process: "Process", mask: int) -> None:
    """Forget pending signals of a process and all its threads. Requires: kernel.lock."""
    for pending in queues(process):
        pending.discard(mask)
    process.pending.ring()


def resume(process: "Process") -> None:
    """Continue a stopped process and tell its parent. Requires: kernel.lock."""
    if not process.stopped:
        return
    process.stopped = 0
    process.announce_state(s.CLD_CONTINUED, s.SIGCONT)
    for thread in process.threads.values():
        thread.notify()


def _wake(target: "Thread", signo: int, directed: bool) -> None:
    """Choose the thread that takes the signal and make it look. Linux's complete_signal."""
    process = target.process
    chosen = target if _wants(target, signo) else None
    if chosen is None and not directed:
        chosen = next((thread for thread in process.threads.values() if _wants(thread, signo)), None)
    if chosen is None:
        return
    fatal = process.handlers[signo].handler == s.SIG_DFL and not s.IGNORED_BY_DEFAULT & s.bit(signo)
    if fatal and not (s.STOP_SIGNALS | s.CORE_SIGNALS | chosen.real_blocked) & s.bit(signo):
        process.exit_group(signo)
        return
    chosen.notify()


def _wants(thread: "Thread", signo: int) -> bool:
    """Return whether the thread could take the signal now. A thread that has one already is left to it."""
    if thread.blocked & s.bit(signo) or thread.dying or thread.process.stopped:
        return False
    return not (thread.pending.mask & ~thread.blocked & ~s.bit(signo))


def is_pending(thread: "Thread") -> bool:
    """Return whether the thread must leave its wait: a signal it does not block, or a stop of its process."""
    process = thread.process
    return bool((thread.pending.mask | process.pending.mask) & ~thread.blocked) or bool(process.stopped)


def set_blocked(thread: "Thread", mask: int) -> None:
    """Change the thread's mask; process-directed signals it blocks now go to a thread that does not."""
    mask &= ~s.UNBLOCKABLE & s.ALL_SIGNALS
    with thread.kernel.lock:
        newly = mask & ~thread.blocked
        thread.blocked = mask
        if newly & thread.process.pending.mask:
            retarget(thread, newly)
        if is_pending(thread):
            thread.work = True


def retarget(thread: "Thread", mask: int) -> None:
    """Make other threads look at the process-directed signals in `mask`. Requires: kernel.lock."""
    waiting = thread.process.pending.mask & mask
    for other in thread.process.threads.values():
        if other is not thread and not other.dying and waiting & ~other.blocked:
            waiting &= other.blocked
            other.notify()


def thread_gone(thread: "Thread") -> None:
    """Hand on what a leaving thread would have done: shared signals, the end of a stop. Requires: kernel.lock."""
    retarget(thread, ~thread.blocked)
    thread.pending.clear()
    complete_stop(thread.process)


def complete_stop(process: "Process") -> None:
    """Tell the parent once the last thread of a stopping process has stopped. Requires: kernel.lock."""
    alive = [thread for thread in process.threads.values() if not thread.dying]
    if process.stopping and process.stopped and alive and all(thread.state == "T" for thread in alive):
        process.stopping = False
        process.announce_state(s.CLD_STOPPED, process.stopped)


def set_action(process: "Process", signo: int, action: tuple[int, int, int, int]) -> None:
    """Change what a signal does; one that is ignored now is forgotten where it waits."""
    with process.kernel.lock:
        process.handlers[signo] = SigAction(*action)
        if process.handlers.ignores(signo):
            discard(process, s.bit(signo))
