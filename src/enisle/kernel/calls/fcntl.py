"""Descriptors and descriptions: fcntl(2), flock(2), and the part of ioctl(2) that every descriptor has."""

import fcntl
import os
from collections.abc import Callable
from errno import EBADF, EINVAL, EOVERFLOW, EPERM
from typing import TYPE_CHECKING

from enisle.abi import linux_fs as fs
from enisle.abi.types import Fd
from enisle.errors import LinuxError
from enisle.kernel.calls.open import duplicate
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.locks import LOCKS
from enisle.kernel.table import Size, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.001, 0.05
ALLOWED_ON_PATH = (fs.F_DUPFD, fs.F_DUPFD_CLOEXEC, fs.F_GETFD, fs.F_SETFD, fs.F_GETFL)
"""fs/fcntl.c: check_fcntl_cmd."""
SIGNALS = 64


@syscall(72, Support.PARTIAL, note="no leases; O_ASYNC sends no signals; write hints are the host's")
def sys_fcntl(thread: "Thread", fd: Fd, command: Uint, argument: Size) -> int:
    file = thread.files.hold(fd)
    try:
        if file.kind == "path" and command not in ALLOWED_ON_PATH:
            raise LinuxError(EBADF)
        call = COMMANDS.get(command)
        if call is None:
            raise LinuxError(EINVAL)
        return call(thread, fd, file, command, argument)
    finally:
        file.drop()


def signed(argument: int) -> int:
    """Return the int a command's argument is."""
    return ((argument & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000


def duplicate_from(thread: "Thread", fd: Fd, _file: OpenFile, command: int, argument: int) -> int:
    if not 0 <= signed(argument) < thread.process.limits.soft(RLIMIT_NOFILE):
        raise LinuxError(EINVAL)
    return duplicate(thread, fd, signed(argument), command == fs.F_DUPFD_CLOEXEC)


def get_cloexec(thread: "Thread", fd: Fd, _file: OpenFile, _command: int, _argument: int) -> int:
    return int(thread.files.is_cloexec(fd))


def set_cloexec(thread: "Thread", fd: Fd, _file: OpenFile, _command: int, argument: int) -> int:
    thread.files.set_cloexec(fd, bool(argument & fs.FD_CLOEXEC))
    return 0


def get_flags(_thread: "Thread", _fd: Fd, file: OpenFile, _command: int, _argument: int) -> int:
    return file.flags


def set_flags(_thread: "Thread", _fd: Fd, file: OpenFile, _command: int, argument: int) -> int:
    file.set_flags(argument & 0xFFFF_FFFF)
    return 0


# ---- record locks --------------------------------------------------------------------------------------------------


def span_of(file: OpenFile, flock: tuple[int, ...]) -> tuple[int, int]:
    """Return the first and last byte a `struct flock` means (flock64_to_posix_lock). Raises EINVAL, EOVERFLOW."""
    _, whence, start, length, _ = flock
    if whence == os.SEEK_CUR:
        start += os.lseek(file.fd, 0, os.SEEK_CUR) if file.seekable else 0
    elif whence == os.SEEK_END:
        start += os.fstat(file.fd).st_size
    elif whence != os.SEEK_SET:
        raise LinuxError(EINVAL)
    if start > fs.OFFSET_MAX:
        raise LinuxError(EOVERFLOW)
    if length < 0:
        start, length = start + length, -length
    if start < 0:
        raise LinuxError(EINVAL)
    end = start + length - 1 if length else fs.OFFSET_MAX
    if end > fs.OFFSET_MAX:
        raise LinuxError(EOVERFLOW)
    return start, end


def set_lock(thread: "Thread", _fd: Fd, file: OpenFile, command: int, argument: int) -> int:
    flock = fs.FLOCK.unpack(thread.mm.read(argument, fs.FLOCK.size))
    kind, access = flock[0], file.flags & fs.O_ACCMODE
    if kind not in (fs.F_RDLCK, fs.F_WRLCK, fs.F_UNLCK):
        raise LinuxError(EINVAL)
    span = span_of(file, flock)
    if (kind == fs.F_RDLCK and access == fs.O_WRONLY) or (kind == fs.F_WRLCK and access == fs.O_RDONLY):
        raise LinuxError(EBADF)
    LOCKS.set(thread, file, kind, span, command == fs.F_SETLKW)
    return 0


def get_lock(thread: "Thread", _fd: Fd, file: OpenFile, _command: int, argument: int) -> int:
    flock = fs.FLOCK.unpack(thread.mm.read(argument, fs.FLOCK.size))
    if flock[0] not in (fs.F_RDLCK, fs.F_WRLCK):
        raise LinuxError(EINVAL)
    found = LOCKS.find(thread, file, flock[0], span_of(file, flock))
    if found is None:
        answer = fs.FLOCK.pack(fs.F_UNLCK, *flock[1:])
    else:
        length = 0 if found.end == fs.OFFSET_MAX else found.end - found.start + 1
        answer = fs.FLOCK.pack(found.kind, os.SEEK_SET, found.start, length, found.pid)
    thread.mm.write(argument, answer)
    return 0


def retry(thread: "Thread", call: Callable[[], object]) -> None:
    """Do a host call that would block until it does not, sleeping a little longer each time. Raises ERESTARTSYS."""
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            call()
            return
        except BlockingIOError:
            thread.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)


def description_lock(thread: "Thread", _fd: Fd, file: OpenFile, command: int, argument: int) -> int:
    """OFD locks belong to the description, and so does the host's."""
    flock = thread.mm.read(argument, fs.FLOCK.size)
    if command == fs.F_OFD_SETLKW:
        retry(thread, lambda: fcntl.fcntl(file.fd, fs.F_OFD_SETLK, flock))
    else:
        answer = fcntl.fcntl(file.fd, command, flock)
        if command == fs.F_OFD_GETLK:
            thread.mm.write(argument, answer)
    return 0


@syscall(73, Support.FULL)
def sys_flock(thread: "Thread", fd: Fd, operation: Uint) -> None:
    if operation & fs.LOCK_MAND:
        return  # fs/locks.c: mandatory locks are gone, requests for them are ignored
    if operation & ~fs.LOCK_NB not in (fs.LOCK_SH, fs.LOCK_EX, fs.LOCK_UN):
        raise LinuxError(EINVAL)
    file = thread.files.hold(fd)
    try:
        if file.kind == "path":
            raise LinuxError(EBADF)
        if operation & fs.LOCK_NB:
            fcntl.flock(file.fd, operation)
        else:
            retry(thread, lambda: fcntl.flock(file.fd, operation | fs.LOCK_NB))
    finally:
        file.drop()


# ---- the rest of fcntl ---------------------------------------------------------------------------------------------


def set_owner(_thread: "Thread", _fd: Fd, file: OpenFile, _command: int, argument: int) -> int:
    file.owner = signed(argument)
    return 0


def get_owner(_thread: "Thread", _fd: Fd, file: OpenFile, _command: int, _argument: int) -> int:
    return file.owner


def set_owner_ex(thread: "Thread", _fd: Fd, file: OpenFile, _command: int, argument: int) -> int:
    kind, pid = fs.F_OWNER_EX.unpack(thread.mm.read(argument, fs.F_OWNER_EX.size))
    if kind not in (0, 1, 2):
        raise LinuxError(EINVAL)
    file.owner = -pid if kind == 2 else pid
    return 0


def get_owner_ex(thread: "Thread", _fd: Fd, file: OpenFile, _command: int, argument: int) -> int:
    thread.mm.write(argument, fs.F_OWNER_EX.pack(2 if file.owner < 0 else 1, abs(file.owner)))
    return 0


def set_signal(_thread: "Thread", _fd: Fd, file: OpenFile, _command: int, argument: int) -> int:
    if argument > SIGNALS:
        raise LinuxError(EINVAL)
    file.owner_signal = argument
    return 0


def get_signal(_thread: "Thread", _fd: Fd, file: OpenFile, _command: int, _argument: int) -> int:
    return file.owner_signal


def get_lease(_thread: "Thread", _fd: Fd, _file: OpenFile, _command: int, _argument: int) -> int:
    return fs.F_UNLCK


def by_host(_thread: "Thread", _fd: Fd, file: OpenFile, command: int, argument: int) -> int:
    """Pipe sizes and seals are the host file's own; a foreign kind of file is refused by it."""
    return fcntl.fcntl(file.fd, command, signed(argument))


def hint(thread: "Thread", _fd: Fd, file: OpenFile, command: int, argument: int) -> int:
    thread.mm.write(argument, fcntl.fcntl(file.fd, command, thread.mm.read(argument, 8)))
    return 0


Command = Callable[["Thread", Fd, OpenFile, int, int], int]
COMMANDS: dict[int, Command] = {
    fs.F_DUPFD: duplicate_from,
    fs.F_DUPFD_CLOEXEC: duplicate_from,
    fs.F_GETFD: get_cloexec,
    fs.F_SETFD: set_cloexec,
    fs.F_GETFL: get_flags,
    fs.F_SETFL: set_flags,
    fs.F_GETLK: get_lock,
    fs.F_SETLK: set_lock,
    fs.F_SETLKW: set_lock,
    fs.F_OFD_GETLK: description_lock,
    fs.F_OFD_SETLK: description_lock,
    fs.F_OFD_SETLKW: description_lock,
    fs.F_SETOWN: set_owner,
    fs.F_GETOWN: get_owner,
    fs.F_SETOWN_EX: set_owner_ex,
    fs.F_GETOWN_EX: get_owner_ex,
    fs.F_SETSIG: set_signal,
    fs.F_GETSIG: get_signal,
    fs.F_GETLEASE: get_lease,
    fs.F_SETPIPE_SZ: by_host,
    fs.F_GETPIPE_SZ: by_host,
    fs.F_ADD_SEALS: by_host,
    fs.F_GET_SEALS: by_host,
    fs.F_GET_RW_HINT: hint,
    fs.F_SET_RW_HINT: hint,
}


# ---- ioctl ---------------------------------------------------------------------------------------------------------


@syscall(16, Support.PARTIAL, note="descriptors, terminals and sockets; others answer ENOTTY")
def sys_ioctl(thread: "Thread", fd: Fd, request: Uint, argument: Size) -> int:
    file = thread.files.hold(fd)
    try:
        if file.kind == "path":
            raise LinuxError(EBADF)
        if request in (fs.FIOCLEX, fs.FIONCLEX):
            thread.files.set_cloexec(fd, request == fs.FIOCLEX)
            return 0
        if request in (fs.FIONBIO, fs.FIOASYNC):
            bit = fs.O_NONBLOCK if request == fs.FIONBIO else fs.FASYNC
            on = thread.mm.read_u32(argument)
            file.set_flags(file.flags | bit if on else file.flags & ~bit)
            return 0
        if file.kind in ("file", "directory") and not file.node:
            return file_ioctl(thread, file, request, argument)
        if request == fs.FIONREAD and file.waits:
            thread.mm.write(argument, fcntl.ioctl(file.fd, fs.FIONREAD, bytes(4)))
            return 0
        return file.ioctl(thread, request, argument)
    finally:
        file.drop()


def file_ioctl(thread: "Thread", file: OpenFile, request: int, argument: int) -> int:
    """Answer what fs/ioctl.c knows of regular files and directories."""
    if request == fs.FIONREAD and file.kind == "file":
        left = os.fstat(file.fd).st_size - os.lseek(file.fd, 0, os.SEEK_CUR)
        thread.mm.write_u32(argument, left)
    elif request == fs.FIOQSIZE:
        thread.mm.write_u64(argument, os.fstat(file.fd).st_size)
    elif request == fs.FIGETBSZ:
        thread.mm.write_u32(argument, os.fstatvfs(file.fd).f_bsize)
    elif request == fs.FICLONE:
        fcntl.ioctl(file.fd, fs.FICLONE, thread.files.get(Fd(signed(argument))).fd)
    elif request == fs.FS_IOC_GETFLAGS:
        thread.mm.write(argument, fcntl.ioctl(file.fd, request, bytes(4)))
    elif request == fs.FS_IOC_SETFLAGS:
        raise LinuxError(EPERM)
    else:
        return file.ioctl(thread, request, argument)
    return 0
