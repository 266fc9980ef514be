"""The root of /proc: the island's processes, `self`, and what `system` knows."""

import stat
from collections.abc import Iterable
from errno import ENOENT
from typing import TYPE_CHECKING

from enisle.abi.types import Pid
from enisle.errors import LinuxError
from enisle.kernel.paths import SyntheticNode
from enisle.kernel.proc.descriptors import Subject
from enisle.kernel.proc.parts import LinkNode, ProcNode
from enisle.kernel.proc.process import SubjectDirectory, inode_of
from enisle.kernel.proc.system import System

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.thread import Thread

ROOT_INODE = 1


class Root(ProcNode):
    """/proc itself."""

    def __init__(self, kernel: "Kernel") -> None:
        super().__init__(b"proc", stat.S_IFDIR | 0o555, ROOT_INODE)
        self._kernel = kernel
        self._entries: dict[bytes, ProcNode] = {}

    @property
    def entries(self) -> dict[bytes, ProcNode]:
        """The entries that are about no process, made when they are first looked at."""
        if not self._entries:
            links = [
                LinkNode(b"self", lambda thread: b"%d" % thread.process.pid),
                LinkNode(b"thread-self", lambda thread: b"%d/task/%d" % (thread.process.pid, thread.tid)),
            ]
            nodes = [*links, *System(self._kernel).nodes()]
            for node in nodes:
                node.parent = self
            self._entries = {node.name: node for node in nodes}
        return self._entries

    def lookup(self, thread: "Thread", name: bytes) -> SyntheticNode:
        if not name.isdigit():
            node = self.entries.get(name)
            if node is None:
                raise LinuxError(ENOENT)
            return node
        if name[:1] == b"0" or len(name) > 7:
            raise LinuxError(ENOENT)
        directory = SubjectDirectory(name, self._find(Pid(int(name))))
        directory.parent = self
        return directory

    def _find(self, number: Pid) -> Subject:
        """Return the process, or that of a thread: those can be looked up but are not listed."""
        process = self._kernel.processes_by_pid.get(number)
        if process:
            return Subject(process, process.threads.get(number), True)
        thread = self._kernel.threads.get(number)
        if thread is None:
            raise LinuxError(ENOENT)
        return Subject(thread.process, thread, True)

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        with self._kernel.lock:
            pids = sorted(self._kernel.processes_by_pid)
        yield from ((name, node.inode, node.mode) for name, node in self.entries.items())
        yield from ((b"%d" % pid, inode_of(pid, True), stat.S_IFDIR) for pid in pids)
