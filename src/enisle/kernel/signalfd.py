"""signalfd(2): signals read from a descriptor.

Its host descriptor is an eventfd, readable while a signal in the mask is pending, so poll and epoll just work. It
watches the process that made it and every process that has read from it. Where Linux looks only at the polling
thread's own signals, it is ready for any thread of the process; a read by the wrong one waits on.
"""

import os
import weakref
from collections.abc import Sequence
from errno import EINVAL
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel import signals
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.table import Int, Size, Support, syscall
from enisle.kernel.thread import Thread

if TYPE_CHECKING:
    from enisle.kernel.process import Process


class SignalFile(OpenFile):
    """An open signalfd. Guarded by kernel.lock."""

    kind = "signalfd"
    seekable = stream = False

    def __init__(self, process: "Process", mask: int, flags: int) -> None:
        super().__init__(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), flags, b"anon_inode:[signalfd]", True)
        self.mask = mask
        self._kernel = process.kernel
        self._watched: weakref.WeakSet[Process] = weakref.WeakSet()
        self._ready = False
        self.watch(process)

    def watch(self, process: "Process") -> None:
        """Be ready also for this process's signals."""
        with self._kernel.lock:
            if process not in self._watched:
                self._watched.add(process)
                process.pending.watchers.append(self.look)
            self.look()

    def look(self) -> None:
        """Make the host descriptor readable exactly while a signal waits. Requires: kernel.lock."""
        ready = any(self._matches(process) for process in self._watched)
        if ready == self._ready or self.fd < 0:
            return
        self._ready = ready
        if ready:
            os.eventfd_write(self.fd, 1)
        else:
            os.eventfd_read(self.fd)

    def _matches(self, process: "Process") -> bool:
        if process.pending.mask & self.mask:
            return True
        return any(thread.pending.mask & self.mask for thread in process.threads.values())

    def change(self, mask: int) -> None:
        with self._kernel.lock:
            self.mask = mask
            self.look()

    def close(self) -> None:
        with self._kernel.lock:
            for process in self._watched:
                process.pending.watchers.remove(self.look)
            self._watched.clear()
            super().close()

    def readv(self, thread: Thread, buffers: Sequence[memoryview]) -> int:
        """Take as many signals as whole records fit; BlockingIOError when there is none."""
        if thread.process not in self._watched:
            self.watch(thread.process)
        room = sum(len(buffer) for buffer in buffers) // s.SIGNALFD_SIGINFO.size
        if not room:
            raise LinuxError(EINVAL)
        records: list[bytes] = []
        with self._kernel.lock:
            while len(records) < room and (info := signals.dequeue(thread, ~self.mask)):
                records.append(record_of(info))
        if not records:
            raise BlockingIOError
        return scatter(b"".join(records), buffers)

    def writev(self, thread: Thread, buffers: Sequence[memoryview]) -> int:
        raise LinuxError(EINVAL)


def scatter(content: bytes, buffers: Sequence[memoryview]) -> int:
    """Store `content` into pinned buffers by a host call, which answers EFAULT where Python would die."""
    fd = os.memfd_create("records", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        return os.preadv(fd, buffers, 0)
    finally:
        os.close(fd)


def record_of(info: signals.SigInfo) -> bytes:
    """Return a signal as struct signalfd_siginfo."""
    pid = uid = fd = tid = band = overrun = status = number = pointer = user = system = address = 0
    fields, code = info.words, info.code
    if code == s.SI_TIMER:
        tid, overrun, pointer = s.SIGINFO_TIMER.unpack_from(fields)
        number = pointer & 0xFFFF_FFFF
    elif info.signo == s.SIGCHLD and s.CLD_EXITED <= code <= s.CLD_CONTINUED:
        pid, uid, status, user, system = s.SIGINFO_CHILD.unpack_from(fields)
    elif s.SYNCHRONOUS & s.bit(info.signo) and 0 < code < s.SI_KERNEL:
        (address,) = s.SIGINFO_FAULT.unpack_from(fields)
    elif code in (s.SI_USER, s.SI_TKILL, s.SI_KERNEL):
        pid, uid = s.SIGINFO_KILL.unpack_from(fields)
    elif code > 0 or code == s.SI_SIGIO:
        band, fd = s.SIGINFO_POLL.unpack_from(fields)
    else:
        pid, uid, pointer = s.SIGINFO_VALUE.unpack_from(fields)
        number = pointer & 0xFFFF_FFFF
    head = (info.signo, info.errno, code, pid & 0xFFFF_FFFF, uid, fd, tid & 0xFFFF_FFFF, band & 0xFFFF_FFFF, overrun, 0)
    return s.SIGNALFD_SIGINFO.pack(
        *head, status, number - ((number & 1 << 31) << 1), pointer, user, system, address, 0, 0, 0, 0
    )


def open_signalfd(thread: Thread, fd: int, address: int, size: int, flags: int) -> int:
    if flags & ~(s.SFD_CLOEXEC | s.SFD_NONBLOCK) or size != 8:
        raise LinuxError(EINVAL)
    mask = thread.mm.read_u64(address) & ~s.UNBLOCKABLE & s.ALL_SIGNALS
    if fd != -1:
        file = thread.files.get(Fd(fd))
        if not isinstance(file, SignalFile):
            raise LinuxError(EINVAL)
        file.change(mask)
        return fd
    file = SignalFile(thread.process, mask, os.O_RDWR | flags & s.SFD_NONBLOCK)
    return thread.files.add(file, bool(flags & s.SFD_CLOEXEC), thread.process.limits.soft(RLIMIT_NOFILE))


@syscall(282, Support.PARTIAL, note="readiness is the process's, not the polling thread's")
def sys_signalfd(thread: Thread, fd: Int, mask: Gva, size: Size) -> int:
    return open_signalfd(thread, fd, mask, size, 0)


@syscall(289, Support.PARTIAL, note="readiness is the process's, not the polling thread's")
def sys_signalfd4(thread: Thread, fd: Int, mask: Gva, size: Size, flags: Int) -> int:
    return open_signalfd(thread, fd, mask, size, flags)
