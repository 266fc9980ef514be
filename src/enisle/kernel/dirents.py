"""Directory entries as getdents(2) packs them: the host's, with the links that hide our trees made up, and our own."""

import os
import stat
from collections.abc import Iterator
from errno import EINVAL, ENOTDIR
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi.linux_fs import DIRENT, DIRENT64
from enisle.errors import LinuxError
from enisle.kernel.calls.open import SyntheticFile
from enisle.kernel.files import OpenFile
from enisle.kernel.paths import SyntheticNode

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

LARGEST = 1 << 16
TYPE_AT = DIRENT64.size - 1
NAME_AT, OLD_NAME_AT = DIRENT64.size, DIRENT.size


def host_entries(thread: "Thread", file: OpenFile, size: int, wide: bool) -> bytes:
    """Return the next entries of a host directory, at most `size` bytes."""
    found = host_fs.getdents(file.fd, min(size, LARGEST), wide)
    trees = thread.kernel.synthetic
    for place in trees or ():
        parent, _, name = place.rpartition(b"/")
        if name + b"\0" in found and is_directory(file.fd, parent or b"/"):
            assert trees
            found = show_tree(found, name, trees[place], wide)
    return found


def is_directory(fd: int, path: bytes) -> bool:
    """Return whether `path` names the open directory."""
    one, other = os.fstat(fd), os.stat(path)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def show_tree(found: bytes, name: bytes, root: SyntheticNode, wide: bool) -> bytes:
    """Give the entry `name` the type of the tree that hides behind it."""
    entries = bytearray(found)
    at = 0
    while at < len(entries):
        length = int.from_bytes(entries[at + 16 : at + 18], "little")
        start = at + (NAME_AT if wide else OLD_NAME_AT)
        if entries.startswith(name + b"\0", start):
            entries[at + TYPE_AT if wide else at + length - 1] = stat.S_IFMT(root.mode) >> 12
        at += length
    return bytes(entries)


def all_entries(thread: "Thread", node: SyntheticNode) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, inode, mode) of a synthetic directory, with `.` and `..`."""
    yield b".", node.inode, stat.S_IFDIR
    yield b"..", node.parent.inode if node.parent else 1, stat.S_IFDIR
    yield from node.children(thread)


def synthetic_entries(thread: "Thread", file: OpenFile, size: int, wide: bool) -> bytes:
    """Return the next entries of a synthetic directory. Raises EINVAL when not one fits."""
    if not isinstance(file, SyntheticFile) or file.kind != "directory" or not file.node:
        raise LinuxError(ENOTDIR)
    packed = bytearray()
    for number, (name, inode, mode) in enumerate(all_entries(thread, file.node)):
        if number < file.position:
            continue
        entry = pack_entry(name, inode, number + 1, stat.S_IFMT(mode) >> 12, wide)
        if len(packed) + len(entry) > size:
            if not packed:
                raise LinuxError(EINVAL)
            break
        packed += entry
        file.position = number + 1
    return bytes(packed)


def pack_entry(name: bytes, inode: int, offset: int, kind: int, wide: bool) -> bytes:
    """Return one `struct linux_dirent64`, or the old `linux_dirent` with the type in its last byte."""
    head = NAME_AT if wide else OLD_NAME_AT
    length = (head + len(name) + (1 if wide else 2) + 7) & ~7
    if wide:
        return (DIRENT64.pack(inode, offset, length, kind) + name).ljust(length, b"\0")
    return (DIRENT.pack(inode, offset, length) + name).ljust(length - 1, b"\0") + bytes((kind,))
