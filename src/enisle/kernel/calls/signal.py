"""Signals as a thread arranges them for itself: actions, masks, alternate stacks, waiting for one, coming back.

sigaction(2), sigprocmask(2), sigpending(2), sigwaitinfo(2), sigsuspend(2), sigaltstack(2), sigreturn(2).
"""

import time
from errno import EAGAIN, EINTR, EINVAL, ENOMEM, EPERM

from enisle.abi import linux_signal as s
from enisle.abi.linux import ERESTARTNOHAND
from enisle.abi.types import Gva
from enisle.abi.x86 import RSP
from enisle.errors import LinuxError
from enisle.kernel import signal_frame, signals
from enisle.kernel.signal_actions import AltStack
from enisle.kernel.table import Int, KeepRegisters, Size, Support, syscall
from enisle.kernel.thread import Thread

SIGSET_SIZE = 8
NANOSECONDS = 1_000_000_000


def _require_sigset(size: int) -> None:
    if size != SIGSET_SIZE:
        raise LinuxError(EINVAL)


@syscall(13, Support.FULL)
def sys_rt_sigaction(thread: Thread, signo: Int, action: Gva, old: Gva, size: Size) -> None:
    _require_sigset(size)
    new = s.SIGACTION.unpack(thread.mm.read(action, s.SIGACTION.size)) if action else None
    if not 1 <= signo <= s.NSIG or (new and s.UNBLOCKABLE & s.bit(signo)):
        raise LinuxError(EINVAL)
    process = thread.process
    before = process.handlers[signo]
    if new:
        handler, flags, restorer, mask = new
        signals.set_action(process, signo, (handler, flags & s.SA_KNOWN, restorer, mask & ~s.UNBLOCKABLE))
    if old:
        thread.mm.write(old, s.SIGACTION.pack(before.handler, before.flags, before.restorer, before.mask))


@syscall(14, Support.FULL)
def sys_rt_sigprocmask(thread: Thread, how: Int, new: Gva, old: Gva, size: Size) -> None:
    _require_sigset(size)
    before = thread.blocked
    if new:
        mask = thread.mm.read_u64(new)
        match how:
            case s.SIG_BLOCK:
                signals.set_blocked(thread, before | mask)
            case s.SIG_UNBLOCK:
                signals.set_blocked(thread, before & ~mask)
            case s.SIG_SETMASK:
                signals.set_blocked(thread, mask)
            case _:
                raise LinuxError(EINVAL)
    if old:
        thread.mm.write_u64(old, before)


@syscall(127, Support.FULL)
def sys_rt_sigpending(thread: Thread, address: Gva, size: Size) -> None:
    if size > SIGSET_SIZE:
        raise LinuxError(EINVAL)
    mask = (thread.pending.mask | thread.process.pending.mask) & thread.blocked
    thread.mm.write(address, mask.to_bytes(8, "little")[:size])


def _timeout(thread: Thread, address: int) -> float | None:
    """Return the monotonic deadline of a relative timespec, None without one. Raises EFAULT, EINVAL."""
    if not address:
        return None
    raw = thread.mm.read(address, 16)
    seconds = int.from_bytes(raw[:8], "little", signed=True)
    nanoseconds = int.from_bytes(raw[8:], "little", signed=True)
    if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
        raise LinuxError(EINVAL)
    return time.monotonic() + min(seconds, 1 << 40) + nanoseconds / NANOSECONDS


@syscall(128, Support.FULL, exit_door=True)
def sys_rt_sigtimedwait(thread: Thread, wanted: Gva, info: Gva, timeout: Gva, size: Size) -> int:
    _require_sigset(size)
    mask = thread.mm.read_u64(wanted) & ~s.UNBLOCKABLE & s.ALL_SIGNALS
    taken = _wait_for_signal(thread, mask, _timeout(thread, timeout))
    if info:
        thread.mm.write(info, bytes(taken))
    return taken.signo


def _wait_for_signal(thread: Thread, mask: int, deadline: float | None) -> signals.SigInfo:
    """Take a signal in `mask`. Raises EAGAIN at the deadline, EINTR when another one comes first."""
    lock = thread.kernel.lock
    with lock:
        taken = signals.dequeue(thread, ~mask)
        if taken:
            return taken
        if deadline is not None and deadline <= time.monotonic():
            raise LinuxError(EAGAIN)
        # The signals are let through so that they wake the thread, but senders see them blocked: none is lost or fatal.
        thread.real_blocked = before = thread.blocked
        signals.set_blocked(thread, before & ~mask)
    interrupted = False
    try:
        while not interrupted and (deadline is None or deadline > time.monotonic()):
            try:
                thread.sleep_until(deadline)
            except LinuxError:
                interrupted = True
    finally:
        with lock:
            thread.real_blocked = 0
            signals.set_blocked(thread, before)
            taken = signals.dequeue(thread, ~mask)
    if taken:
        return taken
    raise LinuxError(EINTR if interrupted else EAGAIN)


@syscall(130, Support.FULL, exit_door=True)
def sys_rt_sigsuspend(thread: Thread, address: Gva, size: Size) -> int:
    _require_sigset(size)
    signals.block_for_wait(thread, thread.mm.read_u64(address))
    return _sleep_for_handler(thread)


@syscall(34, Support.FULL, exit_door=True)
def sys_pause(thread: Thread) -> int:
    return _sleep_for_handler(thread)


def _sleep_for_handler(thread: Thread) -> int:
    while True:
        try:
            thread.sleep(None)
        except LinuxError:
            return -ERESTARTNOHAND


@syscall(131, Support.FULL, exit_door=True)
def sys_sigaltstack(thread: Thread, new: Gva, old: Gva) -> None:
    stack = thread.altstack
    sp = thread.gpr[RSP]
    if new:
        address, flags, size = s.STACK_T.unpack(thread.mm.read(new, s.STACK_T.size))
        change_altstack(thread, AltStack(address, size, flags & 0xFFFF_FFFF), sp)
    if old:
        flags = stack.state(sp) | (stack.flags & s.SS_AUTODISARM)
        thread.mm.write(old, s.STACK_T.pack(stack.sp, flags - ((flags & 1 << 31) << 1), stack.size))


def change_altstack(thread: Thread, stack: AltStack, sp: int) -> None:
    """Use another alternate stack. Raises EPERM on the present one, EINVAL, ENOMEM."""
    if thread.altstack.is_active(sp):
        raise LinuxError(EPERM)
    mode = stack.flags & ~s.SS_AUTODISARM
    if mode not in (0, s.SS_ONSTACK, s.SS_DISABLE):
        raise LinuxError(EINVAL)
    if mode == s.SS_DISABLE:
        stack = AltStack(0, 0, stack.flags)
    elif stack.size < s.MINSIGSTKSZ:
        raise LinuxError(ENOMEM)
    thread.altstack = stack


@syscall(15, Support.FULL, exit_door=True)
def sys_rt_sigreturn(thread: Thread) -> None:
    """Go on where a handler's signal came; a frame that is no good is a SIGSEGV."""
    try:
        restored = signal_frame.pop(thread)
    except LinuxError:
        signals.force_signal(thread, signals.kernel_info(s.SIGSEGV))
        raise KeepRegisters from None
    thread.restart = None
    signals.set_blocked(thread, restored.mask)
    try:
        change_altstack(thread, restored.altstack, thread.gpr[RSP])
    except LinuxError:
        pass  # Linux ignores it as well: a handler may be on the stack still
    raise KeepRegisters


@syscall(219, Support.FULL, exit_door=True)
def sys_restart_syscall(thread: Thread) -> int:
    """Go on with an interrupted call that had its arguments changed by time; never called by programs."""
    block, thread.restart = thread.restart, None
    if block is None:
        raise LinuxError(EINTR)
    return block.call(thread) or 0
