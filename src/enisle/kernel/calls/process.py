"""Birth and end: clone, fork, vfork, exit (clone(2)), and who a process is."""

from errno import E2BIG, EBADF, EINVAL, ENOSYS, EPERM

from enisle.abi import linux_sched as s
from enisle.abi.linux import ERESTARTNOINTR
from enisle.abi.types import Gva
from enisle.abi.x86 import GPR_COUNT, RAX, RSP
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.mm import Mm
from enisle.kernel.process import Process
from enisle.kernel.table import Int, Size, Support, syscall
from enisle.kernel.thread import Thread, ThreadExit
from enisle.machine import USER_END
from enisle.records import Record


class CloneRequest(Record):
    """clone's arguments in one shape; addresses are 0 when not given."""

    flags: int
    exit_signal: int
    stack: int
    tls: int
    parent_tid: int
    child_tid: int
    pidfd: int = 0
    """Where the descriptor of the child goes (CLONE_PIDFD)."""


@syscall(56, Support.PARTIAL, note="no namespaces, no ptrace", exit_door=True)
def sys_clone(thread: Thread, flags: Size, stack: Gva, parent_tid: Gva, child_tid: Gva, tls: Gva) -> int:
    legacy = flags & 0xFFFF_FFFF & ~s.CSIGNAL
    if legacy & s.CLONE_PIDFD and legacy & s.CLONE_PARENT_SETTID:
        raise LinuxError(EINVAL)  # both would go to the same place
    return clone(thread, CloneRequest(legacy, flags & s.CSIGNAL, stack, tls, parent_tid, child_tid, parent_tid))


@syscall(435, Support.PARTIAL, note="no namespaces, no set_tid, no cgroup", exit_door=True)
def sys_clone3(thread: Thread, arguments: Gva, size: Size) -> int:
    if size < s.CLONE_ARGS_SIZE_VER0 or size > 4096:
        raise LinuxError(EINVAL)
    raw = thread.mm.read(arguments, size)
    if any(raw[s.CLONE_ARGS.size :]):
        raise LinuxError(E2BIG)  # fields of a later Linux
    fields = s.CLONE_ARGS.unpack(raw[: s.CLONE_ARGS.size].ljust(s.CLONE_ARGS.size, b"\0"))
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _ = fields
    if exit_signal & ~s.CSIGNAL or flags & (s.CSIGNAL & ~s.CLONE_NEWTIME) or bool(stack) != bool(stack_size):
        raise LinuxError(EINVAL)
    if set_tid or set_tid_size:
        raise LinuxError(EPERM)
    if thread.kernel.call_filter:
        thread.kernel.call_filter.check(thread, 435, flags)
    top = stack + stack_size if stack else 0
    return clone(thread, CloneRequest(flags, exit_signal, top, tls, parent_tid, child_tid, pidfd))


@syscall(57, Support.FULL, exit_door=True)
def sys_fork(thread: Thread) -> int:
    return clone(thread, CloneRequest(0, 17, 0, 0, 0, 0))


@syscall(58, Support.FULL, exit_door=True)
def sys_vfork(thread: Thread) -> int:
    return clone(thread, CloneRequest(s.CLONE_VFORK | s.CLONE_VM, 17, 0, 0, 0, 0))


def clone(thread: Thread, request: CloneRequest) -> int:
    """Make a thread or a process that goes on like `thread`, with 0 in RAX; return its id."""
    flags = request.flags
    _check_flags(flags, request)
    if signals.is_pending(thread):  # what was sent to a whole group before must not miss the child
        raise LinuxError(ERESTARTNOINTR)
    mm = thread.mm if flags & s.CLONE_VM else thread.mm.fork()
    if flags & s.CLONE_VM:
        mm.users += 1
    try:
        child = _new_thread(thread, request, mm)
    except BaseException:
        mm.release()
        raise
    _tell_ids(thread, child, request)
    registers = [thread.gpr[index] for index in range(GPR_COUNT)]
    registers[RAX] = 0
    if request.stack:
        registers[RSP] = request.stack
    processor = thread.processor
    fs_base = request.tls if flags & s.CLONE_SETTLS else processor.fs_base
    tid = child.tid  # the child may be gone when start() returns
    if flags & s.CLONE_VFORK:
        child.process.vfork_parent = thread
    try:
        child.start(registers, fs_base, processor.xsave(), processor.gs_base)
    except LinuxError:
        _take_back(child)
        raise
    if flags & s.CLONE_VFORK:
        _wait_for_vfork(thread, child.process)
    return tid


def _check_flags(flags: int, request: CloneRequest) -> None:
    if (flags & s.CLONE_THREAD and not flags & s.CLONE_SIGHAND) or (flags & s.CLONE_SIGHAND and not flags & s.CLONE_VM):
        raise LinuxError(EINVAL)
    if (flags & s.CLONE_CLEAR_SIGHAND and flags & s.CLONE_SIGHAND) or request.exit_signal > 64:
        raise LinuxError(EINVAL)
    if flags & (s.NAMESPACES | s.CLONE_NEWTIME):
        raise LinuxError(EPERM)
    if flags & s.CLONE_INTO_CGROUP:
        raise LinuxError(EBADF)
    if flags & s.CLONE_PIDFD and flags & s.CLONE_THREAD:
        raise LinuxError(EINVAL)
    if flags & s.CLONE_SETTLS and request.tls >= USER_END:
        raise LinuxError(EPERM)


def _new_thread(thread: Thread, request: CloneRequest, mm: Mm) -> Thread:
    flags, kernel, parent = request.flags, thread.kernel, thread.process
    files = thread.files if flags & s.CLONE_FILES else thread.files.clone()
    fs = thread.fs if flags & s.CLONE_FS else thread.fs.clone()
    try:
        with kernel.lock:
            if thread.dying:
                raise ThreadExit
            tid = kernel.new_pid()
            if flags & s.CLONE_THREAD:
                process = parent
            else:
                family = parent.parent if flags & s.CLONE_PARENT else parent
                process = Process(kernel, tid, family, thread.name)
                _inherit(process, parent, request)
            child = Thread(process, tid, mm, files, fs)
            if flags & s.CLONE_FILES:
                files.users += 1
            if flags & s.CLONE_FS:
                fs.users += 1
            child.blocked, child.name = thread.blocked, thread.name
            child.scheduling = thread.scheduling.inherited()
            child.memory_policy = thread.memory_policy
            if not flags & s.CLONE_VM or flags & s.CLONE_VFORK:
                child.altstack = thread.altstack
            else:
                child.altstack = signals.DISARMED
            if flags & s.CLONE_CHILD_CLEARTID:
                child.clear_child_tid = request.child_tid
            kernel.add(process, child)
            return child
    except BaseException:
        if not flags & s.CLONE_FILES:
            files.release()
        if not flags & s.CLONE_FS:
            fs.release()
        raise


def _take_back(child: Thread) -> None:
    """Undo `_new_thread` for a thread that could not be started."""
    process, kernel = child.process, child.kernel
    child.mm.release()
    child.files.release()
    child.fs.release()
    with kernel.lock:
        del process.threads[child.tid]
        if not process.threads:
            process.reap()
    kernel.thread_gone(child)


def _inherit(process: Process, parent: Process, request: CloneRequest) -> None:
    process.session, process.pgid = parent.session, parent.pgid
    process.credentials, process.limits = parent.credentials.clone(), parent.limits.clone()
    process.exit_signal = parent.exit_signal if request.flags & s.CLONE_PARENT else request.exit_signal
    process.personality, process.dumpable = parent.personality, parent.dumpable
    process.no_new_privileges = parent.no_new_privileges
    if request.flags & s.CLONE_SIGHAND:
        process.handlers = parent.handlers
    else:
        process.handlers = parent.handlers.clone()
    if request.flags & s.CLONE_CLEAR_SIGHAND:
        process.handlers.reset_for_exec()


def _tell_ids(thread: Thread, child: Thread, request: CloneRequest) -> None:
    """Store the new id where asked; a bad address is ignored, as Linux does after the point of no return."""
    try:
        if request.flags & s.CLONE_PARENT_SETTID:
            thread.mm.write_u32(request.parent_tid, child.tid)
        if request.flags & s.CLONE_PIDFD:
            from enisle.kernel.pidfd import add_pidfd  # rarely wanted: out of every start

            thread.mm.write_u32(request.pidfd, add_pidfd(thread, child.process))
        if request.flags & s.CLONE_CHILD_SETTID:
            child.mm.write_u32(request.child_tid, child.tid)
    except LinuxError:
        pass


def _wait_for_vfork(thread: Thread, child: Process) -> None:
    """Wait until the child has left the shared address space; only the thread's own death ends the wait early."""
    while child.vfork_parent is thread and not thread.dying:
        thread.waiter.sleep()


# ---- the end -------------------------------------------------------------------------------------------------------


@syscall(60, Support.FULL, exit_door=True)
def sys_exit(thread: Thread, status: Int) -> None:
    process = thread.process
    with thread.kernel.lock:
        alive = sum(not other.dying for other in process.threads.values())
        if alive <= 1 and process.status is None:
            process.status = (status & 0xFF) << 8
        thread.dying = True
    raise ThreadExit


@syscall(231, Support.FULL, exit_door=True)
def sys_exit_group(thread: Thread, status: Int) -> None:
    thread.process.exit_group((status & 0xFF) << 8)
    raise ThreadExit


# ---- ids -----------------------------------------------------------------------------------------------------------


@syscall(39, Support.FULL)
def sys_getpid(thread: Thread) -> int:
    return thread.process.pid


@syscall(186, Support.FULL)
def sys_gettid(thread: Thread) -> int:
    return thread.tid


@syscall(110, Support.FULL)
def sys_getppid(thread: Thread) -> int:
    return thread.process.ppid


@syscall(334, Support.ABSENT, "restartable sequences: the C library does without")
def sys_rseq(thread: Thread) -> None:
    """Every C library asks for it: with its like in `absent` it would have that imported by every program."""
    raise LinuxError(ENOSYS)


@syscall(218, Support.FULL)
def sys_set_tid_address(thread: Thread, address: Gva) -> int:
    thread.clear_child_tid = address
    return thread.tid
