"""Programs: execve and execveat (execve(2))."""

import os
from errno import E2BIG, EINVAL, ENAMETOOLONG, ENOENT

from enisle.abi.linux_fs import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from enisle.abi.types import Fd, Gva
from enisle.abi.x86 import GPR_COUNT
from enisle.errors import LinuxError
from enisle.kernel import loader, signals
from enisle.kernel.calls.open import open_file
from enisle.kernel.mm import Mm
from enisle.kernel.table import Int, KeepRegisters, Path, Support, syscall
from enisle.kernel.thread import Thread, ThreadExit


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
    thread.kernel.machine.enter(thread.processor, mm.space, thread.node)
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
