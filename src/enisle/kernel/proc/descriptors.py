"""/proc/PID/fd and /proc/PID/fdinfo, and whom a directory of /proc is about."""

import os
import stat
from collections.abc import Iterable
from errno import EACCES, ENOENT, ESRCH
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi.linux_fs import O_ACCMODE, O_CLOEXEC, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.paths import SyntheticNode, host_proc, name_of
from enisle.kernel.proc import host
from enisle.kernel.proc.parts import LinkNode, ProcNode, TextNode
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

BEHIND_A_NAME = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFBLK)
"""Kinds of inherited files whose description is the only way to them: their names are the host's."""
KEPT_FROM_HOST = (b"eventfd", b"clockid", b"ticks", b"settime", b"it_", b"inotify", b"sigmask")
"""Lines of the host's fdinfo that mean the same here."""


class Subject(Record):
    """Whom a directory is about: a process, or one thread of it."""

    process: "Process"
    thread: "Thread | None"
    whole: bool

    def living(self) -> "Thread":
        """Return the thread, or one that stands for the process. Raises ESRCH when there is none any more."""
        thread = self.thread if not self.whole else self.process.leader
        if thread is None or self.process.zombie:
            raise LinuxError(ESRCH)
        return thread


def require_access(viewer: "Thread", process: "Process") -> None:
    """Raise EACCES unless the viewer may look into the process (ptrace_may_access)."""
    own, other = viewer.process.credentials, process.credentials
    if viewer.process is process or own.euid == 0:
        return
    if process.dumpable and own.euid == other.euid == other.uid == other.suid:
        return
    raise LinuxError(EACCES)


def owner_of(process: "Process") -> tuple[int, int]:
    who = process.credentials
    return (who.euid, who.egid) if process.dumpable else (0, 0)


class Inherited(ProcNode):
    """A file of the caller behind /proc/PID/fd/N.

    Opening it again never gives more rights: a file with a name gives the same description, a pipe or a terminal one
    of its own. What it is (mode, owner, times) is the host's and stays: a synthetic node has no such changes.
    """

    def __init__(self, file: OpenFile) -> None:
        super().__init__(b"", os.fstat(file.fd).st_mode)
        self._file = file

    def open(self, thread: "Thread", flags: int) -> OpenFile:
        file, wanted = self._file, flags & O_ACCMODE
        if file.flags & O_ACCMODE not in (O_RDWR, wanted):
            raise LinuxError(EACCES)
        if stat.S_IFMT(self.mode) not in BEHIND_A_NAME:
            return self._open_again(thread, flags & ~(O_CREAT | O_TRUNC))
        if flags & O_TRUNC and wanted in (O_WRONLY, O_RDWR):
            os.ftruncate(file.fd, 0)
        return file

    def _open_again(self, thread: "Thread", flags: int) -> OpenFile:
        from enisle.kernel.calls.open import host_open, make_file
        from enisle.kernel.pipes import PipeFile

        fd, path = host_open(host_proc(thread.kernel), b"fd/%d" % self._file.fd, flags, 0), self._file.path
        # Whoever holds one end of a FIFO has met its partner already: this opening does not wait for one.
        again = PipeFile(fd, flags, path) if stat.S_ISFIFO(self.mode) else make_file(thread, fd, flags, path)
        again.foreign = True
        return again

    def status(self) -> bytes:
        return host_fs.stat_fd(self._file.fd)


def file_name(viewer: "Thread", file: OpenFile) -> bytes:
    """Return what /proc/PID/fd/N says."""
    if file.node:
        return file.node.path(viewer)
    if file.path.startswith(b"anon_inode:"):
        return file.path
    if file.foreign and stat.S_IFMT(os.fstat(file.fd).st_mode) in BEHIND_A_NAME:
        return b"inherited:[%d]" % os.fstat(file.fd).st_ino
    name = name_of(viewer, file.fd)
    if name.startswith(b"/dev/shm/#"):  # O_TMPFILE: a memfd of ours
        return file.path
    return name


class DescriptorLink(LinkNode):
    """One entry of /proc/PID/fd."""

    def __init__(self, number: int, subject: Subject, file: OpenFile, inode: int) -> None:
        super().__init__(b"%d" % number, lambda viewer: file_name(viewer, file), inode=inode)
        self.mode = stat.S_IFLNK | {os.O_RDONLY: 0o500, O_WRONLY: 0o300}.get(file.flags & O_ACCMODE, 0o700)
        self.owner_ids = owner_of(subject.process)
        self._file = file

    def follow(self, thread: "Thread") -> int | SyntheticNode | None:
        file = self._file
        if file.node and stat.S_ISDIR(file.node.mode):
            return file.node
        return Inherited(file) if file.foreign else file.fd


def descriptor_text(viewer: "Thread", subject: Subject, number: int) -> bytes:
    """Return /proc/PID/fdinfo/N."""
    thread = subject.living()
    file = thread.files.find(number)
    if file is None:
        raise LinuxError(ENOENT)
    status = os.fstat(file.fd)
    flags = file.flags | (O_CLOEXEC if thread.files.is_cloexec(number) else 0)
    lines = [b"pos:\t%d\n" % position_of(file), b"flags:\t0%o\n" % flags, b"mnt_id:\t1\nino:\t%d\n" % status.st_ino]
    own = host.find(viewer.kernel, f"fdinfo/{file.fd}").splitlines(keepends=True)
    return b"".join([*lines, *(line for line in own if line.startswith(KEPT_FROM_HOST))])


def position_of(file: OpenFile) -> int:
    if not file.seekable:
        return 0
    try:
        return os.lseek(file.fd, 0, os.SEEK_CUR)
    except OSError:
        return 0


class DescriptorDirectory(ProcNode):
    """/proc/PID/fd and /proc/PID/fdinfo."""

    def __init__(self, name: bytes, subject: Subject, inode: int) -> None:
        super().__init__(name, stat.S_IFDIR | (0o500 if name == b"fd" else 0o555), inode)
        self._subject, self.owner_ids = subject, owner_of(subject.process)

    def lookup(self, thread: "Thread", name: bytes) -> SyntheticNode:
        subject = self._subject
        require_access(thread, subject.process)
        if not name.isdigit() or (name[:1] == b"0" and name != b"0"):
            raise LinuxError(ENOENT)
        number = int(name)
        file = subject.living().files.find(number)
        if file is None:
            raise LinuxError(ENOENT)
        inode = self.inode + number + 1
        if self.name == b"fd":
            node: ProcNode = DescriptorLink(number, subject, file, inode)
        else:
            node = TextNode(name, lambda viewer: descriptor_text(viewer, subject, number), mode=0o444, inode=inode)
        node.parent = self
        return node

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        require_access(thread, self._subject.process)
        kind = stat.S_IFLNK if self.name == b"fd" else stat.S_IFREG
        return [(b"%d" % fd, self.inode + fd + 1, kind) for fd, _ in self._subject.living().files.items()]
