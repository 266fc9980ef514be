"""Taking signals: what happens to a thread with pending signals before its guest runs on.

The order is Linux's get_signal and handle_signal: stops first, then exceptions of the thread itself, then its own
signals, then the process's; each handler found gets a frame on top of the one before. Runs on the thread itself.
"""

from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi.linux import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
)
from enisle.abi.x86 import RAX, RIP
from enisle.errors import LinuxError
from enisle.kernel import signal_frame
from enisle.kernel.signal_actions import DISARMED, SigAction
from enisle.kernel.signal_info import SigInfo, kernel_info
from enisle.kernel.signal_send import complete_stop, force_signal, is_pending, set_blocked
from enisle.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

EINTR = 4
NR_RESTART_SYSCALL = 219
SYSCALL_LENGTH = 2
RESTARTS = {(1 << 64) - code: code for code in (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK)}
"""RAX of an interrupted call → its kind."""


class RestartBlock(Record):
    """How restart_syscall(2) goes on with a call whose arguments have changed: nanosleep, poll, futex."""

    call: "Callable[[Thread], int | None]"


def deliver(thread: "Thread") -> None:
    """Act on every signal the thread can take, or wait while its process is stopped; then settle its system call.

    Raises ThreadExit when a signal ends the process.
    """
    while taken := _take(thread):
        info, action = taken
        _settle_for_handler(thread, action)
        _run_handler(thread, info, action)
    _settle(thread)
    if thread.restore_mask is not None:
        mask, thread.restore_mask = thread.restore_mask, None
        set_blocked(thread, mask)


def dequeue(thread: "Thread", blocked: int) -> SigInfo | None:
    """Take the next signal outside of `blocked`, the thread's own before the process's. Requires: kernel.lock."""
    found = None
    for pending in (thread.pending, thread.process.pending):
        if signo := pending.next(blocked):
            found = pending.take(signo)
            break
    if found and thread.process.pending.watchers:
        thread.process.pending.ring()
    return found


def _take(thread: "Thread") -> tuple[SigInfo, SigAction] | None:
    """Return the next signal that has a handler, having done what those without one do."""
    process = thread.process
    while True:
        with thread.kernel.lock:
            _leave_if_dying(thread)
            if process.stopped:
                _enter_stop(thread)
            else:
                info = thread.pending.find_synchronous(thread.blocked) or dequeue(thread, thread.blocked)
                if info is None:
                    return None
                action = process.handlers[info.signo]
                if action.handler not in (s.SIG_DFL, s.SIG_IGN):
                    if action.flags & s.SA_RESETHAND:
                        process.handlers[info.signo] = action._replace(handler=s.SIG_DFL)
                    return info, action
                if action.handler == s.SIG_DFL:
                    _act_by_default(thread, info.signo)
                continue
        _stay_stopped(thread)


def _act_by_default(thread: "Thread", signo: int) -> None:
    """Ignore, stop or die (signal(7)). Requires: kernel.lock."""
    process, signal = thread.process, s.bit(signo)
    if signal & s.IGNORED_BY_DEFAULT:
        return
    if signal & s.STOP_SIGNALS:
        if signo == s.SIGSTOP or not is_orphaned(process):
            stop(process, signo)
        return
    process.exit_group(signo)
    _leave_if_dying(thread)


def is_orphaned(process: "Process") -> bool:
    """Return whether no member of the process group has a parent that could continue it. Requires: kernel.lock."""
    for member in process.kernel.processes_by_pid.values():
        parent = member.parent
        if member.pgid != process.pgid or member.zombie or parent is None:
            continue
        if member.started_from_outside:
            return False  # who started it sees the stop (Kernel.wait) and can continue it
        if parent.pid == 1:
            continue
        if parent.pgid != process.pgid and parent.session is member.session:
            return False
    return True


def stop(process: "Process", signo: int) -> None:
    """Begin to stop every thread of the process. Requires: kernel.lock."""
    process.stopped, process.stopping = signo, True
    for thread in process.threads.values():
        thread.notify()


def _enter_stop(thread: "Thread") -> None:
    thread.state = "T"
    complete_stop(thread.process)


def _stay_stopped(thread: "Thread") -> None:
    while thread.process.stopped and not thread.dying:
        thread.waiter.sleep()
    thread.state = "R"


def _leave_if_dying(thread: "Thread") -> None:
    if thread.dying:
        from enisle.kernel.thread import ThreadExit

        raise ThreadExit


# ---- the interrupted system call -----------------------------------------------------------------------------------


def _settle_for_handler(thread: "Thread", action: SigAction) -> None:
    """Decide whether an interrupted call fails with EINTR or starts again after the handler."""
    kind = _interrupted_call(thread)
    if not kind:
        return
    if kind == ERESTARTNOINTR or (kind == ERESTARTSYS and action.flags & s.SA_RESTART):
        _rewind(thread, thread.original_rax)
    else:
        thread.gpr[RAX] = (1 << 64) - EINTR
    thread.original_rax = -1


def _settle(thread: "Thread") -> None:
    """Start an interrupted call again: no handler has run."""
    kind = _interrupted_call(thread)
    if kind:
        _rewind(thread, NR_RESTART_SYSCALL if kind == ERESTART_RESTARTBLOCK else thread.original_rax)
        thread.original_rax = -1


def _interrupted_call(thread: "Thread") -> int:
    return RESTARTS.get(thread.gpr[RAX], 0) if thread.original_rax >= 0 else 0


def _rewind(thread: "Thread", number: int) -> None:
    thread.gpr[RAX] = number
    thread.gpr[RIP] = thread.gpr[RIP] - SYSCALL_LENGTH


# ---- running a handler ---------------------------------------------------------------------------------------------


def _run_handler(thread: "Thread", info: SigInfo, action: SigAction) -> None:
    """Let the guest go on in the handler; when its stack cannot take the frame, that is a SIGSEGV."""
    mask = thread.blocked if thread.restore_mask is None else thread.restore_mask
    try:
        signal_frame.push(thread, info, action, mask)
    except LinuxError:
        force_signal(thread, kernel_info(s.SIGSEGV), fatal=info.signo == s.SIGSEGV)
        return
    thread.restore_mask = None
    own = 0 if action.flags & s.SA_NODEFER else s.bit(info.signo)
    set_blocked(thread, thread.blocked | action.mask | own)
    if thread.altstack.flags & s.SS_AUTODISARM:
        thread.altstack = DISARMED


__all__ = ["RestartBlock", "deliver", "dequeue", "is_orphaned", "is_pending", "stop"]
