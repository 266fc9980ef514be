"""From a guest's path to what it names: a host path, or a node of a synthetic tree such as /proc.

The island's root is this process's root, so the host resolves guest paths; each synthetic tree hides behind a symbolic
link to itself, which ends the host's resolution in ELOOP. Then, or when the words of the path say so, `walk` resolves
it component by component as namei(7) does. Any guest thread; nothing is kept but O_PATH descriptors during a walk.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from errno import EACCES, EINVAL, ELOOP, ENOENT, ENOTDIR, EPERM
from typing import TYPE_CHECKING, TypeVar

from enisle.abi.linux_fs import AT_FDCWD, STAT
from enisle.abi.types import Fd
from enisle.errors import LinuxError
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.files import OpenFile
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.thread import Thread

T = TypeVar("T")
MAX_LINKS = 40
"""include/linux/namei.h: MAXSYMLINKS."""
PROC_DEVICE = 0x14
O_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class SyntheticNode:
    """A file, directory or symbolic link that only our kernel knows. Subclasses override what they are.

    The trees of an island are `kernel.synthetic`: {b"/proc": root, b"/dev/tty": node, …}, None without any.
    """

    mode = stat.S_IFREG | 0o444
    """File type and permissions, as in st_mode; the type decides which of the methods are called."""
    inode = 1
    device = PROC_DEVICE
    rdev = 0
    parent: "SyntheticNode | None" = None
    """What `..` means; None at the root of a tree: the host directory it is in."""
    name = b""
    """Its name in `parent`; of directories at least, for getcwd(2)."""

    def owner(self) -> tuple[int, int]:
        """Return uid and gid."""
        return 0, 0

    def path(self, thread: "Thread") -> bytes:
        """Return its absolute path."""
        if self.parent:
            return self.parent.path(thread) + b"/" + self.name
        trees = thread.kernel.synthetic or {}
        return next((place for place in trees if trees[place] is self), b"/")

    def lookup(self, thread: "Thread", name: bytes) -> "SyntheticNode":
        """Return the child `name` of a directory. Raises ENOENT."""
        raise LinuxError(ENOENT)

    def children(self, thread: "Thread") -> Iterable[tuple[bytes, int, int]]:
        """Yield (name, inode, mode) of a directory's entries, without `.` and `..`."""
        return ()

    def readlink(self, thread: "Thread") -> bytes:
        """Return the text of a symbolic link."""
        raise LinuxError(EINVAL)

    def follow(self, thread: "Thread") -> "int | SyntheticNode | None":
        """Return the host descriptor (borrowed) or node a magic link leads to; None for a link that is its text."""
        return None

    def open(self, thread: "Thread", flags: int) -> "OpenFile":
        """Open a file or device. Directories are opened by `calls.open`."""
        raise LinuxError(EACCES)

    def access(self, thread: "Thread", mask: int) -> None:
        """Raise EACCES when the R_OK|W_OK|X_OK bits of `mask` are not all allowed; root may read and write all."""
        if mask & 1 and not stat.S_ISDIR(self.mode) and not self.mode & 0o111:
            raise LinuxError(EACCES)

    def status(self) -> bytes:
        """Return `struct stat`."""
        uid, gid = self.owner()
        now = int(self.modified())
        links = 2 if stat.S_ISDIR(self.mode) else 1
        times = (now, 0, now, 0, now, 0)
        return STAT.pack(self.device, self.inode, links, self.mode, uid, gid, 0, self.rdev, 0, 1024, 0, *times)

    def modified(self) -> float:
        """Return when the node changed last: the present, as /proc answers."""
        import time

        return time.time()


class HostPath(Record):
    """A path for the host: `directory` is closed by `close` when it is ours."""

    directory: int
    name: bytes
    owned: bool

    def close(self) -> None:
        if self.owned:
            os.close(self.directory)


Place = HostPath | SyntheticNode


def base_of(thread: "Thread", dirfd: int, path: bytes) -> int | SyntheticNode:
    """Return where resolution of `path` starts: a host directory or a synthetic one. Raises EBADF."""
    fs = thread.fs
    if dirfd == AT_FDCWD or path[:1] == b"/":
        return fs.cwd if fs.node is None or path[:1] == b"/" else fs.node
    file = thread.files.get(Fd(dirfd))
    return file.fd if file.node is None else file.node


def resolve(
    thread: "Thread",
    dirfd: int,
    path: bytes,
    host: Callable[[int, bytes], T],
    node: Callable[[SyntheticNode], T],
    follow: bool = True,
) -> T:
    """Do `host(directory, path)` where the host can resolve the path, else `node(n)` for a synthetic node."""
    if not path:
        raise LinuxError(ENOENT)
    base = base_of(thread, dirfd, path)
    if isinstance(base, int) and not is_suspect(thread, path, follow):
        try:
            return host(base, path)
        except OSError as error:
            if error.errno != ELOOP or not thread.kernel.synthetic:
                raise
    place = walk(thread, base, path, follow)
    if isinstance(place, SyntheticNode):
        return node(place)
    try:
        return host(place.directory, place.name)
    finally:
        place.close()


def resolve_two(
    thread: "Thread", one: tuple[int, bytes], two: tuple[int, bytes], call: Callable[[int, bytes, int, bytes], int],
    follow: bool = False,
) -> int:  # fmt: skip
    """Do a call on two names, such as rename; neither may be in a synthetic tree (EPERM)."""

    def with_first(directory: int, path: bytes) -> int:
        return resolve(thread, *two, lambda to, name: call(directory, path, to, name), refuse, follow=False)

    return resolve(thread, *one, with_first, refuse, follow)


def refuse(_node: SyntheticNode) -> int:
    """Answer for changes of a synthetic tree, as /proc does."""
    raise LinuxError(EPERM)


def is_suspect(thread: "Thread", path: bytes, follow: bool) -> bool:
    """Return whether the host must not see the path first: it might find the link that hides a synthetic tree."""
    trees = thread.kernel.synthetic
    if not trees:
        return False
    if path[:5] in (b"/proc", b"/dev/") and find_tree(trees, path):
        return True
    return not follow and (b"proc" in path or b"tty" in path)


def find_tree(trees: Mapping[bytes, SyntheticNode], path: bytes) -> tuple[SyntheticNode, bytes] | None:
    """Return the tree a path is in by its words, and the rest of the path."""
    for place in trees:
        if path.startswith(place) and (len(path) == len(place) or path[len(place)] == 47):
            return trees[place], path[len(place) :]
    return None


def walk(thread: "Thread", base: int | SyntheticNode, path: bytes, follow: bool) -> Place:
    """Resolve a path by ourselves; the last component of a host path is left to the host."""
    if path[:1] == b"/":
        found = find_tree(thread.kernel.synthetic or {}, path)
        if found:
            base, path = found
    walker = Walker(thread, base, path, follow)
    try:
        return walker.run()
    except BaseException:
        walker.leave()
        raise


class Walker:
    """One walk: where it is, and the components still to come (last first)."""

    def __init__(self, thread: "Thread", base: int | SyntheticNode, path: bytes, follow: bool) -> None:
        self.thread, self.follow = thread, follow
        self.node: SyntheticNode | None = None
        self.fd, self.owned = -1, False
        self.links = 0
        self.pending: list[bytes] = []
        self.trailing = b"/" if path.endswith((b"/", b"/.")) and path.strip(b"/") else b""
        if isinstance(base, SyntheticNode):
            self.node = base
            self.push(path.lstrip(b"/"))
        else:
            self.fd = base
            self.push(path)

    def push(self, path: bytes) -> None:
        if path[:1] == b"/":
            self.go(os.open("/", os.O_PATH | os.O_CLOEXEC))
        self.pending += [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]

    def go(self, fd: int) -> None:
        """Be in the host directory behind `fd`, which is ours."""
        self.leave()
        self.node, self.fd, self.owned = None, fd, True

    def enter(self, node: SyntheticNode) -> None:
        self.leave()
        self.node = node

    def leave(self) -> None:
        if self.owned:
            os.close(self.fd)
        self.fd, self.owned = -1, False

    def run(self) -> Place:
        while self.pending:
            name = self.pending.pop()
            last = not self.pending
            place = self.step_node(self.node, name, last) if self.node else self.step_host(name, last)
            if place:
                return place
        return self.node or self.host_place(b".")

    def host_place(self, name: bytes) -> HostPath:
        place = HostPath(self.fd, name, self.owned)
        self.fd, self.owned = -1, False
        return place

    def count_link(self) -> None:
        self.links += 1
        if self.links > MAX_LINKS:
            raise LinuxError(ELOOP)

    def step_host(self, name: bytes, last: bool) -> Place | None:
        if name == b"..":
            self.go(os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd))
            return None
        try:
            child = os.open(name, O_WALK, dir_fd=self.fd)
        except FileNotFoundError:
            if not last:
                raise
            return self.host_place(name + self.trailing)
        status = os.fstat(child)
        if not stat.S_ISLNK(status.st_mode):
            if last:
                os.close(child)
                return self.host_place(name + self.trailing)
            self.go(child)
            return None
        target = os.readlink(b"", dir_fd=child)
        os.close(child)
        tree = self.hidden_tree(status, target)
        if tree:
            self.enter(tree)
            return None
        if last and not self.follow and not self.trailing:
            return self.host_place(name)
        self.count_link()
        self.push(target)
        return None

    def hidden_tree(self, status: os.stat_result, target: bytes) -> SyntheticNode | None:
        """Return the tree that hides behind the link just met: one that leads to itself."""
        tree = (self.thread.kernel.synthetic or {}).get(target)
        if tree is None:
            return None
        try:
            own = os.lstat(target)
        except OSError:
            return None
        return tree if (own.st_dev, own.st_ino) == (status.st_dev, status.st_ino) else None

    def step_node(self, node: SyntheticNode, name: bytes, last: bool) -> Place | None:
        if not stat.S_ISDIR(node.mode):
            raise LinuxError(ENOTDIR)
        if name == b"..":
            if node.parent:
                self.node = node.parent
            else:
                self.go(os.open("/", os.O_PATH | os.O_CLOEXEC))
            return None
        child = node.lookup(self.thread, name)
        if not stat.S_ISLNK(child.mode):
            if last and self.trailing and not stat.S_ISDIR(child.mode):
                raise LinuxError(ENOTDIR)
            self.node = child
            return None
        if last and not self.follow and not self.trailing:
            return child
        self.count_link()
        target = child.follow(self.thread)
        if target is None:
            self.push(child.readlink(self.thread))
            return None
        if isinstance(target, SyntheticNode):
            if last and self.trailing and not stat.S_ISDIR(target.mode):
                raise LinuxError(ENOTDIR)
            self.node = target
            return None
        # The host's own magic link means the same file, whatever kind it is and even when it has no name any more.
        proc = host_proc(self.thread.kernel)
        if last and not self.trailing:
            return HostPath(proc, b"fd/%d" % target, False)
        self.go(os.open(b"fd/%d" % target, os.O_PATH | os.O_CLOEXEC, dir_fd=proc))
        return None


def host_proc(kernel: "Kernel") -> int:
    """Return an O_PATH descriptor of the host's /proc/self: from before the pivot, or opened now where none was."""
    global _own_proc
    configured = kernel.config.host_proc
    if configured >= 0:
        return configured
    if _own_proc < 0:
        _own_proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return _own_proc


_own_proc = -1


def name_of(thread: "Thread", fd: int) -> bytes:
    """Return the absolute name of what is behind a host descriptor, as the host's /proc gives it."""
    return os.readlink(b"fd/%d" % fd, dir_fd=host_proc(thread.kernel))


def host_name(thread: "Thread", directory: int, name: bytes) -> bytes:
    """Return a path for a host call that knows no directory descriptor."""
    if name[:1] == b"/":
        return name
    if directory == host_proc(thread.kernel):  # a magic link: what it leads to
        return os.readlink(name, dir_fd=directory)
    return name_of(thread, directory) + b"/" + name
