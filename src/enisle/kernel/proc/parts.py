"""The parts /proc is made of: files whose text is made when they are read, links, directories.

A file is a memfd, so that its descriptor is a real one; the text is made at the opening and again by each read from
the beginning. Nodes hold no state but what they are made of. Any guest thread.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from errno import EACCES, EINVAL, EIO, ENOENT
from itertools import count
from typing import TYPE_CHECKING

from enisle.abi.linux_fs import O_ACCMODE, O_RDONLY, O_TRUNC, W_OK
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile, gather
from enisle.kernel.paths import SyntheticNode

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

Render = Callable[["Thread"], bytes]
Store = Callable[["Thread", bytes], None]
Target = Callable[["Thread"], "int | SyntheticNode | None"]
WRITE_MAX = 4096
FRESH_SECONDS = 0.002
"""A read that follows the opening so soon need not make the text again."""

_inodes = count(0xF000_0000)


class ProcFile(OpenFile):
    """An open text file of /proc."""

    kind = "proc"
    bounded = True

    def __init__(self, node: "TextNode", thread: "Thread", flags: int) -> None:
        text = node.render(thread) if flags & O_ACCMODE != os.O_WRONLY else b""
        super().__init__(os.memfd_create("proc", os.MFD_CLOEXEC), flags)
        self.text, self.node = node, node
        os.pwrite(self.fd, text, 0)
        self._stale_at = time.monotonic() + FRESH_SECONDS

    def _refresh(self, thread: "Thread", offset: int) -> None:
        """Make the text anew for a read from the beginning, unless it was made for this one just now."""
        if offset == 0 and time.monotonic() > self._stale_at:
            text = self.text.render(thread)
            os.ftruncate(self.fd, len(text))
            os.pwrite(self.fd, text, 0)
        self._stale_at = 0.0

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        self._refresh(thread, os.lseek(self.fd, 0, os.SEEK_CUR))
        return os.readv(self.fd, buffers)

    def preadv(self, thread: "Thread", buffers: Sequence[memoryview], offset: int) -> int:
        self._refresh(thread, offset)
        return os.preadv(self.fd, buffers, offset)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        if self.text.store is None:
            raise LinuxError(EIO)
        if sum(map(len, buffers)) > WRITE_MAX:
            raise LinuxError(EINVAL)
        content = gather(buffers)
        self.text.store(thread, content)
        self._stale_at = 0.0
        return len(content)

    def pwritev(self, thread: "Thread", buffers: Sequence[memoryview], offset: int) -> int:
        return self.writev(thread, buffers)

    def require_room(self, thread: "Thread", end: int) -> None:
        """Refuse every other way to change the text: it would be the host's copy that grows."""
        raise LinuxError(EINVAL)

    def seek(self, offset: int, whence: int) -> int:
        if whence == os.SEEK_END:  # seq_lseek knows no end
            raise LinuxError(EINVAL)
        return super().seek(offset, whence)


class ProcNode(SyntheticNode):
    """A node that may belong to a process."""

    def __init__(self, name: bytes, mode: int, inode: int = 0) -> None:
        self.name, self.mode, self.inode = name, mode, inode or next(_inodes)
        self.owner_ids: tuple[int, int] = (0, 0)

    def owner(self) -> tuple[int, int]:
        return self.owner_ids


class TextNode(ProcNode):
    """A file with a text."""

    def __init__(self, name: bytes, render: Render, store: Store | None = None, mode: int = 0, inode: int = 0) -> None:
        super().__init__(name, stat.S_IFREG | (mode or (0o644 if store else 0o444)), inode)
        self.render, self.store = render, store

    def open(self, thread: "Thread", flags: int) -> OpenFile:
        if flags & (O_ACCMODE | O_TRUNC) != O_RDONLY and self.store is None:
            raise LinuxError(EACCES)
        return ProcFile(self, thread, flags)

    def access(self, thread: "Thread", mask: int) -> None:
        if mask & W_OK and self.store is None:
            raise LinuxError(EACCES)
        super().access(thread, mask)


class LinkNode(ProcNode):
    """A symbolic link; a magic one has a target that its text only describes."""

    def __init__(self, name: bytes, text: Render, target: Target | None = None, inode: int = 0) -> None:
        super().__init__(name, stat.S_IFLNK | 0o777, inode)
        self._text, self._target = text, target

    def readlink(self, thread: "Thread") -> bytes:
        return self._text(thread)

    def follow(self, thread: "Thread") -> "int | SyntheticNode | None":
        return self._target(thread) if self._target else None


class DirectoryNode(ProcNode):
    """A directory with entries that do not change."""

    def __init__(self, name: bytes, entries: Iterable[ProcNode] = (), mode: int = 0o555, inode: int = 0) -> None:
        super().__init__(name, stat.S_IFDIR | mode, inode)
        self.entries = {entry.name: entry for entry in entries}
        for entry in self.entries.values():
            entry.parent = self

    def lookup(self, thread: "Thread", name: bytes) -> SyntheticNode:
        entry = self.entries.get(name)
        if entry is None:
            raise LinuxError(ENOENT)
        return entry

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        return [(name, entry.inode, entry.mode) for name, entry in self.entries.items()]


def constant(text: bytes) -> Render:
    return lambda thread: text
