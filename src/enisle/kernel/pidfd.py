"""Descriptors of processes: pidfd_open(2), pidfd_send_signal(2), and what clone and waitid need of them.

The host descriptor behind one is an eventfd that becomes readable, and stays so, when the process ends.
"""

import os
from errno import EBADF, EINVAL, ESRCH
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi.types import Fd, Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.calls.kill import check_permission
from enisle.kernel.files import OpenFile
from enisle.kernel.table import Int, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread


class PidFile(OpenFile):
    """A process that can be waited for and signalled without a race for its number."""

    kind = "pidfd"
    seekable = False

    def __init__(self, process: "Process", flags: int) -> None:
        super().__init__(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), os.O_RDWR | flags, b"anon_inode:[pidfd]")
        self.process = process
        with process.kernel.lock:
            process.watchers.append(self)
            if process.zombie or process.status is not None:
                self.ended()

    def ended(self) -> None:
        """The process has ended: readable from now on."""
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self.process.kernel.lock:
            if self in self.process.watchers:
                self.process.watchers.remove(self)
        super().close()

    def readv(self, thread: "Thread", buffers: object) -> int:
        raise LinuxError(EINVAL)

    def writev(self, thread: "Thread", buffers: object) -> int:
        raise LinuxError(EINVAL)


def process_behind(thread: "Thread", fd: int) -> "Process":
    """Return the process of a pidfd. Raises EBADF."""
    file = thread.files.get(Fd(fd))
    if not isinstance(file, PidFile):
        raise LinuxError(EBADF)
    return file.process


def add_pidfd(thread: "Thread", process: "Process", flags: int = 0) -> int:
    """Give the thread a descriptor of `process`, close-on-exec. Raises EMFILE."""
    return thread.files.add(PidFile(process, flags), cloexec=True)


@syscall(434, Support.FULL)
def sys_pidfd_open(thread: "Thread", pid: Pid, flags: Uint) -> int:
    if flags & ~os.O_NONBLOCK or pid <= 0:
        raise LinuxError(EINVAL)
    process = thread.kernel.processes_by_pid.get(pid)
    if process is None:
        raise LinuxError(EINVAL if pid in thread.kernel.threads else ESRCH)
    return add_pidfd(thread, process, flags)


@syscall(424, Support.FULL)
def sys_pidfd_send_signal(thread: "Thread", fd: Fd, signo: Int, info: Gva, flags: Uint) -> None:
    if flags:
        raise LinuxError(EINVAL)
    target = process_behind(thread, fd)
    check_permission(thread, target, signo)
    if target.pid not in thread.kernel.processes_by_pid:
        raise LinuxError(ESRCH)
    sender = thread.process
    with thread.kernel.lock:
        if signo:
            code = s.SI_USER
            if info:
                code = int.from_bytes(thread.mm.read(info, 16)[8:12], "little", signed=True)
                if code >= 0 and target is not sender:
                    raise LinuxError(EINVAL)
            told = signals.user_info(signo, code, sender.pid, sender.credentials.uid)
            signals.send_to_process(target, signo, told)
