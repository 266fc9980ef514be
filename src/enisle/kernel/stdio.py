"""The first three descriptors of a started program, on descriptors of the caller.

What is inherited shares its open file description with the caller, so O_NONBLOCK is never set on it: pipes and
terminals are opened again through the host's /proc to get a description of our own; where that cannot be, each
operation asks first whether it would block. Regular files go on sharing their offset. The caller keeps its own.
"""

import fcntl
import os
import select
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from enisle.kernel import memory_files
from enisle.kernel.files import FdTable, OpenFile

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

PIPE_BUF = 4096
PERMANENT = ~(os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_CLOEXEC)


def open_host_proc() -> int:
    """Return an O_PATH descriptor of the host's /proc/self. Requires: not pivoted yet."""
    return os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class InheritedFile(OpenFile):
    """A description shared with the caller that must stay blocking: asks before each operation."""

    kind = "pipe"
    seekable = False

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        self._require(select.POLLIN)
        return super().readv(thread, buffers)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        self._require(select.POLLOUT)
        # pipe(7): after POLLOUT a write of PIPE_BUF bytes does not block.
        return os.write(self.fd, buffers[0][:PIPE_BUF]) if buffers else 0

    def _require(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.fd, event)
        if not poll.poll(0):
            raise BlockingIOError


def adopt_stdio(process: "Process", files: FdTable, stdio: tuple[int, int, int]) -> None:
    """Install the guest's descriptors 0, 1 and 2; one that is closed, or a directory, is closed in the guest."""
    host_proc = process.kernel.config.host_proc
    known: dict[tuple[int, int, int, int], OpenFile] = {}
    for number, host in enumerate(stdio):
        try:
            status, flags = os.fstat(host), fcntl.fcntl(host, fcntl.F_GETFL)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            continue  # a way into the host's tree
        key = (status.st_dev, status.st_ino, status.st_rdev, flags & (os.O_ACCMODE | os.O_APPEND))
        if key not in known or stat.S_ISREG(status.st_mode):
            known[key] = adopt(process, host, host_proc)
            known[key].foreign = True
        files.set(number, known[key])


def adopt(process: "Process", host: int, host_proc: int) -> OpenFile:
    """Return an open file on the caller's descriptor `host`, which stays the caller's.

    The caller's terminal becomes the controlling terminal of the program's session. Requires: kernel.lock.
    """
    mode, flags = os.fstat(host).st_mode, fcntl.fcntl(host, fcntl.F_GETFL) & PERMANENT
    kept = flags & ~os.O_NONBLOCK
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode) and not (stat.S_ISCHR(mode) and os.isatty(host)):
        return memory_files.file_of(_duplicate(host), os.fstat(host), kept, _name(host, host_proc))
    if not stat.S_ISSOCK(mode):
        try:
            own = _reopen(host, host_proc, flags)
            if stat.S_ISFIFO(mode):
                from enisle.kernel.pipes import PipeFile

                return PipeFile(own, kept, _name(host, host_proc))
            from enisle.kernel.terminal import terminal_of
            from enisle.kernel.terminal_file import TerminalFile

            terminal = terminal_of(process.kernel, os.fstat(own).st_rdev, inherited=True)
            terminal.acquire(process)
            return TerminalFile(own, kept, _name(host, host_proc), terminal)
        except OSError:
            pass  # a pipe of another user (EACCES) or whose reader is gone (ENXIO)
    return InheritedFile(_duplicate(host), kept, _name(host, host_proc), blocking=True)


def _duplicate(host: int) -> int:
    return fcntl.fcntl(host, fcntl.F_DUPFD_CLOEXEC, 3)


def _reopen(host: int, host_proc: int, flags: int) -> int:
    flags = (flags & (os.O_ACCMODE | os.O_APPEND)) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if host_proc < 0:
        return os.open(f"/proc/self/fd/{host}", flags)
    return os.open(f"fd/{host}", flags, dir_fd=host_proc)


def _name(host: int, host_proc: int) -> bytes:
    """Return the name the host gives the file: what /proc/PID/fd shows."""
    try:
        if host_proc < 0:
            return os.readlink(b"/proc/self/fd/%d" % host)
        return os.readlink(b"fd/%d" % host, dir_fd=host_proc)
    except OSError:
        return b""
