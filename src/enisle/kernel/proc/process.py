"""/proc/PID, /proc/PID/task/TID and their links and directories.

A process may look into its own directory and, like root, into those of its user (ptrace(2), access mode checks).
Nodes are made when a path is walked and name a process by its object, so a reused pid never shows another's files.
"""

import stat
from collections.abc import Callable, Iterable
from errno import ENOENT, EPERM
from typing import TYPE_CHECKING

from enisle.abi.types import Pid
from enisle.errors import LinuxError
from enisle.kernel.paths import SyntheticNode, name_of
from enisle.kernel.proc import host
from enisle.kernel.proc.descriptors import DescriptorDirectory, Subject, owner_of, require_access
from enisle.kernel.proc.parts import LinkNode, ProcNode, TextNode
from enisle.kernel.proc.texts import EVERYWHERE, PROCESSES, THREADS, Entry

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

SECRET = (b"environ", b"auxv", b"io", b"personality")
"""Files that only their owner may even open."""
Make = Callable[[Subject, int], ProcNode]
"""Makes a node of a subject with an inode number."""
DESCRIPTORS, DESCRIPTOR_TEXTS = 0x1_0000, 0x40_0000
"""Inode numbers of fd and fdinfo, counted from their directory's; each descriptor has one after them."""


# ---- links -----------------------------------------------------------------------------------------------------------


def exe_text(viewer: "Thread", subject: Subject) -> bytes:
    require_access(viewer, subject.process)
    exe = subject.living().mm.exe
    if exe is None:
        raise LinuxError(ENOENT)
    return name_of(viewer, exe.fd)


def exe_target(viewer: "Thread", subject: Subject) -> int:
    require_access(viewer, subject.process)
    exe = subject.living().mm.exe
    if exe is None:
        raise LinuxError(ENOENT)
    return exe.fd


def cwd_text(viewer: "Thread", subject: Subject) -> bytes:
    require_access(viewer, subject.process)
    fs = subject.living().fs
    return fs.node.path(viewer) if fs.node else name_of(viewer, fs.cwd)


def cwd_target(viewer: "Thread", subject: Subject) -> int | SyntheticNode:
    require_access(viewer, subject.process)
    fs = subject.living().fs
    return fs.node or fs.cwd


def root_text(viewer: "Thread", subject: Subject) -> bytes:
    require_access(viewer, subject.process)
    return b"/"


# ---- directories -----------------------------------------------------------------------------------------------------


def inode_of(number: int, whole: bool) -> int:
    """Return the inode number of /proc/PID, or of /proc/PID/task/TID."""
    return number << 24 | (0 if whole else 1 << 23)


def text_node(name: bytes, subject: Subject, entry: Entry, inode: int) -> TextNode:
    def render(viewer: "Thread") -> bytes:
        if entry.private:
            require_access(viewer, subject.process)
        return entry.show(viewer, subject)

    def store(viewer: "Thread", text: bytes) -> None:
        assert entry.change
        user = viewer.process.credentials.euid
        if viewer.process is not subject.process and user not in (0, subject.process.credentials.euid):
            raise LinuxError(EPERM)
        entry.change(viewer, subject, text)

    mode = 0o644 if entry.change else 0o400 if name in SECRET else 0o444
    return TextNode(name, render, store if entry.change else None, mode, inode)


def exe_link(subject: Subject, inode: int) -> ProcNode:
    return LinkNode(b"exe", lambda v: exe_text(v, subject), lambda v: exe_target(v, subject), inode)


def cwd_link(subject: Subject, inode: int) -> ProcNode:
    return LinkNode(b"cwd", lambda v: cwd_text(v, subject), lambda v: cwd_target(v, subject), inode)


def root_link(subject: Subject, inode: int) -> ProcNode:
    return LinkNode(b"root", lambda v: root_text(v, subject), inode=inode)


OTHERS: dict[bytes, tuple[int, Make]] = {
    b"exe": (stat.S_IFLNK, exe_link),
    b"cwd": (stat.S_IFLNK, cwd_link),
    b"root": (stat.S_IFLNK, root_link),
    b"fd": (stat.S_IFDIR, lambda subject, inode: DescriptorDirectory(b"fd", subject, inode + DESCRIPTORS)),
    b"fdinfo": (stat.S_IFDIR, lambda subject, inode: DescriptorDirectory(b"fdinfo", subject, inode + DESCRIPTOR_TEXTS)),
    b"net": (stat.S_IFDIR, lambda subject, inode: NetworkDirectory(subject.process, inode)),
    b"task": (stat.S_IFDIR, lambda subject, inode: TaskDirectory(subject.process, inode)),
}
"""What is no text: type and how it is made. Threads have no `task`."""


class SubjectDirectory(ProcNode):
    """/proc/PID or /proc/PID/task/TID; its entries are made when they are looked up."""

    def __init__(self, name: bytes, subject: Subject) -> None:
        thread = subject.thread
        number = subject.process.pid if subject.whole or thread is None else thread.tid
        super().__init__(name, stat.S_IFDIR | 0o555, inode_of(number, subject.whole))
        self._subject, self.owner_ids = subject, owner_of(subject.process)
        self._own = PROCESSES if subject.whole else THREADS

    def lookup(self, thread: "Thread", name: bytes) -> SyntheticNode:
        entry = EVERYWHERE.get(name) or self._own.get(name)
        if entry:
            node: ProcNode = text_node(name, self._subject, entry, self._inode(name))
        elif name in OTHERS and (self._subject.whole or name != b"task"):
            node = OTHERS[name][1](self._subject, self._inode(name))
        else:
            raise LinuxError(ENOENT)
        node.parent, node.owner_ids = self, self.owner_ids
        return node

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        for name in sorted(EVERYWHERE | self._own):
            yield name, self._inode(name), stat.S_IFREG
        for name, (kind, _) in OTHERS.items():
            if self._subject.whole or name != b"task":
                yield name, self._inode(name), kind

    def _inode(self, name: bytes) -> int:
        return self.inode + INODES[name]


INODES = {name: number for number, name in enumerate([*OTHERS, *EVERYWHERE, *PROCESSES, *THREADS], 1)}


class NetworkDirectory(ProcNode):
    """/proc/PID/net: the host's words on the island's network."""

    def __init__(self, process: "Process", inode: int) -> None:
        super().__init__(b"net", stat.S_IFDIR | 0o555, inode)
        self._kernel = process.kernel

    def lookup(self, thread: "Thread", name: bytes) -> SyntheticNode:
        if name not in host.network_files(self._kernel):
            raise LinuxError(ENOENT)
        path = f"net/{name.decode()}"
        node = TextNode(name, lambda _: host.read(self._kernel, path), inode=self._inode(name))
        node.parent = self
        return node

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        return [(name, self._inode(name), stat.S_IFREG) for name in host.network_files(self._kernel)]

    def _inode(self, name: bytes) -> int:
        return self.inode + 0x100 + host.NETWORK.index(name)


class TaskDirectory(ProcNode):
    """/proc/PID/task."""

    def __init__(self, process: "Process", inode: int) -> None:
        super().__init__(b"task", stat.S_IFDIR | 0o555, inode)
        self._process, self.owner_ids = process, owner_of(process)

    def lookup(self, thread: "Thread", name: bytes) -> SyntheticNode:
        found = self._process.threads.get(Pid(int(name))) if name.isdigit() else None
        if found is None:
            raise LinuxError(ENOENT)
        node = SubjectDirectory(name, Subject(self._process, found, False))
        node.parent = self
        return node

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        return [(b"%d" % tid, inode_of(tid, False), stat.S_IFDIR) for tid in sorted(self._process.threads)]
