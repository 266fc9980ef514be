"""Birth and programs: clone, fork, vfork, execve (clone(2), execve(2)), and the ids of processes and threads."""

import os
from errno import E2BIG, EACCES, EBADF, EINVAL, ENAMETOOLONG, ENOENT, ENOSYS, EPERM, ESRCH

from enisle.abi import linux_sched as s
from enisle.abi.linux import ERESTARTNOINTR
from enisle.abi.types import Fd, Gva, Pid
from enisle.abi.x86 import GPR_COUNT, RAX, RSP
from enisle.errors import LinuxError
from enisle.kernel import loader, signals
from enisle.kernel.mm import Mm
from enisle.kernel.process import Process, Session
from enisle.kernel.sys_open import open_file
from enisle.kernel.table import Int, KeepRegisters, Path, Size, Support, syscall
from enisle.kernel.thread import Thread, ThreadExit
from enisle.machine import USER_END
from enisle.records import Record

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100


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


# ---- execve --------------------------------------------------------------------------------------------------------


def read_strings(mm: Mm, array: int) -> list[bytes]:
    """Return the strings of a NULL-terminated vector of pointers; none for a null vector. Raises EFAULT, E2BIG."""
    strings: list[bytes] = []
    total = 0
    while array and (pointer := mm.read_u64(array)):
        try:
            strings.append(mm.read_string(pointer, loader.LONGEST_ARGUMENT))
        except LinuxError as error:
            raise LinuxError(E2BIG if error.errno == ENAMETOOLONG else error.errno) from None
        total += len(strings[-1]) + 9
        if total > loader.ARGUMENT_LIMIT:
            raise LinuxError(E2BIG)
        array += 8
    return strings


@syscall(59, Support.FULL, exit_door=True)
def sys_execve(thread: Thread, path: Path, argv: Gva, envp: Gva) -> None:
    execute(thread, path, read_strings(thread.mm, argv), read_strings(thread.mm, envp))


@syscall(322, Support.FULL, exit_door=True)
def sys_execveat(thread: Thread, dirfd: Fd, path: Path, argv: Gva, envp: Gva, flags: Int) -> None:
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise LinuxError(EINVAL)
    arguments, environment = read_strings(thread.mm, argv), read_strings(thread.mm, envp)
    if dirfd == AT_FDCWD or path.startswith(b"/"):
        execute(thread, path, arguments, environment)
    base = thread.files.get(dirfd)
    if not path:
        if not flags & AT_EMPTY_PATH:
            raise LinuxError(ENOENT)
        execute(thread, base.path or b"/dev/fd/%d" % dirfd, arguments, environment, base.fd)
    nofollow = os.O_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else 0
    fd = find_program(thread, path, dirfd, nofollow)
    try:
        execute(thread, b"/dev/fd/%d/%s" % (dirfd, path), arguments, environment, fd)
    finally:
        os.close(fd)


def find_program(thread: Thread, path: bytes, dirfd: int = AT_FDCWD, flags: int = 0) -> int:
    """Open a program for execution; return a host descriptor of the caller's."""
    file = open_file(thread, dirfd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags, 0)
    try:
        return os.dup(file.fd)
    finally:
        file.close()


def execute(thread: Thread, path: bytes, argv: list[bytes], env: list[bytes], fd: int = -1) -> None:
    """Replace the program of the thread's process. Returns only by an exception: an error, or KeepRegisters."""
    mm = Mm(thread.kernel.machine)
    try:
        program = loader.load(mm, lambda name: find_program(thread, name), path, argv or [b""], env, fd)
        _end_siblings(thread)
    except BaseException:
        mm.release()
        raise
    process = thread.process
    thread.kernel.poller.forget(thread)
    old, thread.mm = thread.mm, mm
    thread.processor.enter(mm.space.root)
    process.finish_vfork(thread)
    old.release()
    if thread.files.users > 1:
        shared, thread.files = thread.files, thread.files.clone()
        shared.release()
    thread.files.close_on_exec()
    process.name = thread.name = program.name
    process.has_execed = True
    process.dumpable = True
    process.timers.exec()
    process.credentials.exec()
    process.handlers = process.handlers.for_exec()
    thread.altstack = signals.AltStack()
    thread.clear_child_tid = thread.robust_list = 0
    registers = program.registers()
    for index in range(GPR_COUNT):
        thread.gpr[index] = registers[index]
    thread.processor.fs_base = thread.processor.gs_base = 0
    thread.processor.xrstor(signals.INITIAL_XSAVE)
    raise KeepRegisters


def _end_siblings(thread: Thread) -> None:
    """End every other thread of the process; the caller becomes its leader (execve(2))."""
    process, kernel = thread.process, thread.kernel
    with kernel.lock:
        if thread.dying:
            raise ThreadExit
        for sibling in process.threads.values():
            if sibling is not thread:
                sibling.dying = True
                sibling.notify()
    while len(process.threads) > 1:
        if thread.dying:
            raise ThreadExit
        thread.waiter.sleep(0.05)
    with kernel.lock:
        if thread.tid != process.pid:
            del process.threads[thread.tid], kernel.threads[thread.tid]
            thread.tid = process.pid
            process.threads[thread.tid] = kernel.threads[thread.tid] = thread


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
    """Every C library asks for it: with its like in `sys_absent` it would have that imported by every program."""
    raise LinuxError(ENOSYS)


@syscall(218, Support.FULL)
def sys_set_tid_address(thread: Thread, address: Gva) -> int:
    thread.clear_child_tid = address
    return thread.tid


def find_process(thread: Thread, pid: int) -> Process:
    """Return the process named by `pid`, the caller's own for 0. Raises ESRCH."""
    if pid == 0:
        return thread.process
    process = thread.kernel.processes_by_pid.get(Pid(pid))
    if process is None and (other := thread.kernel.threads.get(Pid(pid))):
        process = other.process
    if process is None:
        raise LinuxError(ESRCH)
    return process


@syscall(109, Support.FULL)
def sys_setpgid(thread: Thread, pid: Pid, pgid: Pid) -> None:
    if pgid < 0:
        raise LinuxError(EINVAL)
    with thread.kernel.lock:
        process = find_process(thread, pid)
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
    return find_process(thread, pid).pgid


@syscall(111, Support.FULL)
def sys_getpgrp(thread: Thread) -> int:
    return thread.process.pgid


@syscall(124, Support.FULL)
def sys_getsid(thread: Thread, pid: Pid) -> int:
    return find_process(thread, pid).session.sid


@syscall(112, Support.FULL)
def sys_setsid(thread: Thread) -> int:
    process = thread.process
    with thread.kernel.lock:
        if any(other.pgid == process.pid for other in thread.kernel.processes_by_pid.values()):
            raise LinuxError(EPERM)
        process.session = Session(process.pid)
        process.pgid = process.pid
        return process.pid
