"""The walk from the host's file system into a synthetic tree and back, on a directory with a link to itself."""

import os
import stat
from collections.abc import Iterator
from errno import ELOOP, ENOENT, ENOTDIR
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enisle.abi.linux_fs import AT_FDCWD
from enisle.errors import LinuxError
from enisle.kernel.dirents import pack_entry
from enisle.kernel.files import FdTable, FsContext
from enisle.kernel.paths import HostPath, SyntheticNode, resolve, walk


class Tree(SyntheticNode):
    """A directory of the test's tree."""

    mode = stat.S_IFDIR | 0o555

    def __init__(self, name: bytes, parent: "Tree | None" = None) -> None:
        self.name, self.parent = name, parent
        self.nodes: dict[bytes, SyntheticNode] = {}

    def lookup(self, thread: Any, name: bytes) -> SyntheticNode:
        if name not in self.nodes:
            raise LinuxError(ENOENT)
        return self.nodes[name]


class Leaf(SyntheticNode):
    """A file of the test's tree."""


class Link(SyntheticNode):
    """A link of the test's tree: a text, or magic to a host descriptor."""

    mode = stat.S_IFLNK | 0o777

    def __init__(self, target: bytes | int) -> None:
        self.target = target

    def readlink(self, thread: Any) -> bytes:
        return self.target if isinstance(self.target, bytes) else b"somewhere"

    def follow(self, thread: Any) -> int | None:
        return self.target if isinstance(self.target, int) else None


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """A thread in a directory with `p` (hiding a tree), files and links; `.tree` is the tree, `.root` its path."""
    os.mkdir(tmp_path / "dir")
    (tmp_path / "dir" / "file").write_text("content")
    os.symlink(tmp_path / "p", tmp_path / "p")
    os.symlink("p/sub", tmp_path / "into")
    os.symlink("again", tmp_path / "again")
    tree = Tree(b"p")
    sub = tree.nodes[b"sub"] = Tree(b"sub", tree)
    sub.nodes[b"leaf"] = Leaf()
    directory = os.open(tmp_path / "dir", os.O_PATH)
    tree.nodes[b"text"] = Link(b"sub/leaf")
    tree.nodes[b"out"] = Link(bytes(tmp_path / "dir"))
    tree.nodes[b"magic"] = Link(directory)
    tree.nodes[b"ring"] = Link(b"ring")
    root = bytes(tmp_path / "p")
    cwd = os.open(tmp_path, os.O_PATH)
    kernel = SimpleNamespace(synthetic={root: tree}, config=SimpleNamespace(host_proc=-1))
    yield SimpleNamespace(kernel=kernel, fs=FsContext(cwd), files=FdTable(), tree=tree, root=root)
    os.close(cwd)
    os.close(directory)


def found(thread: Any, path: bytes, follow: bool = True) -> object:
    """Return the node a path names, or the content or names of what the host has there."""

    def read(directory: int, name: bytes) -> object:
        fd = os.open(name, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW), dir_fd=directory)
        try:
            return sorted(os.listdir(fd)) if stat.S_ISDIR(os.fstat(fd).st_mode) else os.read(fd, 100)
        finally:
            os.close(fd)

    return resolve(thread, AT_FDCWD, path, read, lambda node: node, follow)


def test_a_tree_is_entered_from_everywhere(place: Any) -> None:
    leaf = place.tree.nodes[b"sub"].nodes[b"leaf"]
    for path in (b"p/sub/leaf", place.root + b"/sub/leaf", b"into/leaf", b"dir/../p/./sub//leaf", b"p/text"):
        assert found(place, path) is leaf
    assert found(place, b"p") is place.tree
    assert found(place, place.root + b"/") is place.tree


def test_a_tree_is_left_again(place: Any) -> None:
    assert found(place, b"p/out/file") == b"content"
    assert found(place, b"p/magic/file") == b"content"
    assert found(place, b"p/magic") == ["file"]
    assert found(place, b"p/magic/..") != ["file"]


def test_the_last_link_is_followed_only_when_asked(place: Any) -> None:
    assert found(place, b"p/text", follow=False) is place.tree.nodes[b"text"]
    assert found(place, b"p/magic", follow=False) is place.tree.nodes[b"magic"]
    assert found(place, b"p/magic/", follow=False) == ["file"]


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        (b"again", ELOOP),
        (b"p/ring", ELOOP),
        (b"p/absent", ENOENT),
        (b"p/sub/leaf/x", ENOTDIR),
        (b"p/text/", ENOTDIR),
        (b"absent/p", ENOENT),
        (b"dir/file/p/..", ENOTDIR),
        (b"", ENOENT),
    ],
)
def test_errors_are_those_of_namei(place: Any, path: bytes, errno: int) -> None:
    with pytest.raises((LinuxError, OSError)) as caught:
        found(place, path)
    assert caught.value.errno == errno  # type: ignore[union-attr]


def test_a_walk_gives_back_every_descriptor(place: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (b"dir/../p/sub", b"p/../dir/file", b"p/ring", b"again/x", b"p/out/file", b"dir/new"):
        try:
            result = walk(place, place.fs.cwd, path, True)
            if isinstance(result, HostPath):
                result.close()
        except (LinuxError, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_working_directory_may_be_in_a_tree(place: Any) -> None:
    place.fs.node = place.tree.nodes[b"sub"]
    assert found(place, b"leaf") is place.tree.nodes[b"sub"].nodes[b"leaf"]
    assert found(place, b"../out/file") == b"content"
    assert place.fs.node.path(place) == place.root + b"/sub"


@pytest.mark.parametrize("wide", [True, False])
def test_entries_are_aligned_and_carry_their_type(wide: bool) -> None:
    for length in range(1, 30):
        entry = pack_entry(b"n" * length, 7, 3, 4, wide)
        assert len(entry) % 8 == 0
        assert int.from_bytes(entry[16:18], "little") == len(entry)
        assert entry[18] == 4 if wide else entry[-1] == 4
        name = entry[19:] if wide else entry[18:-1]
        assert name.split(b"\0")[0] == b"n" * length
        assert b"\0" in name
