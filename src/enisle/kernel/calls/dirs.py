"""Directories: entries, the working directory, and making and removing names."""

import os
import stat
from errno import EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, EPERM, ERANGE
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.dirents import host_entries, synthetic_entries
from enisle.kernel.paths import SyntheticNode, name_of, resolve, resolve_two
from enisle.kernel.table import Int, Path, Size, Support, Uint, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread


# ---- reading -------------------------------------------------------------------------------------------------------


def read_entries(thread: "Thread", fd: Fd, place: int, size: int, wide: bool) -> int:
    file = thread.files.get(fd)
    entries = synthetic_entries if file.node else host_entries
    found = entries(thread, file, size, wide)
    thread.mm.write(place, found)
    return len(found)


@syscall(78, Support.FULL)
def sys_getdents(thread: "Thread", fd: Fd, place: Gva, size: Uint) -> int:
    return read_entries(thread, fd, place, size, wide=False)


@syscall(217, Support.FULL)
def sys_getdents64(thread: "Thread", fd: Fd, place: Gva, size: Uint) -> int:
    return read_entries(thread, fd, place, size, wide=True)


# ---- the working directory -----------------------------------------------------------------------------------------


def working_directory(thread: "Thread") -> bytes:
    """Return the absolute path of the working directory. Raises ENOENT when it was removed."""
    node = thread.fs.node
    if node:
        return node.path(thread)
    path = name_of(thread, thread.fs.cwd)
    if path.endswith(b" (deleted)") and not os.fstat(thread.fs.cwd).st_nlink:
        raise LinuxError(ENOENT)
    return path


@syscall(79, Support.FULL)
def sys_getcwd(thread: "Thread", place: Gva, size: Size) -> int:
    path = working_directory(thread) + b"\0"
    if len(path) > size:
        raise LinuxError(ERANGE)
    thread.mm.write(place, path)
    return len(path)


def enter_node(thread: "Thread", node: SyntheticNode) -> None:
    if not stat.S_ISDIR(node.mode):
        raise LinuxError(ENOTDIR)
    thread.fs.node = node


@syscall(80, Support.FULL)
def sys_chdir(thread: "Thread", path: Path) -> None:
    def enter(directory: int, name: bytes) -> None:
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            host_fs.faccessat2(fd, b".", fs.X_OK, 0)  # opening for the path alone does not ask
        except OSError:
            os.close(fd)
            raise
        thread.fs.change(fd)

    resolve(thread, fs.AT_FDCWD, path, enter, lambda node: enter_node(thread, node))


@syscall(81, Support.FULL)
def sys_fchdir(thread: "Thread", fd: Fd) -> None:
    file = thread.files.get(fd)
    if file.node:
        enter_node(thread, file.node)
        return
    thread.fs.change(os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=file.fd))


@syscall(161, Support.ABSENT, note="an island has one root")
def sys_chroot(_thread: "Thread", _path: Path) -> None:
    raise LinuxError(EPERM)


# ---- names ---------------------------------------------------------------------------------------------------------


def exists(_node: SyntheticNode) -> int:
    raise LinuxError(EEXIST)


def make_directory(thread: "Thread", dirfd: int, path: bytes, mode: int) -> None:
    mode = mode & 0o1777 & ~thread.fs.umask
    resolve(thread, dirfd, path, lambda directory, name: os.mkdir(name, mode, dir_fd=directory), exists, False)


@syscall(83, Support.FULL)
def sys_mkdir(thread: "Thread", path: Path, mode: Uint) -> None:
    make_directory(thread, fs.AT_FDCWD, path, mode)


@syscall(258, Support.FULL)
def sys_mkdirat(thread: "Thread", dirfd: Fd, path: Path, mode: Uint) -> None:
    make_directory(thread, dirfd, path, mode)


def refuse_unlink(node: SyntheticNode) -> int:
    raise LinuxError(EISDIR if stat.S_ISDIR(node.mode) else EPERM)


def refuse_rmdir(node: SyntheticNode) -> int:
    raise LinuxError(EPERM if stat.S_ISDIR(node.mode) else ENOTDIR)


def remove(thread: "Thread", dirfd: int, path: bytes, directory: bool) -> None:
    call = os.rmdir if directory else os.unlink
    refusal = refuse_rmdir if directory else refuse_unlink
    resolve(thread, dirfd, path, lambda parent, name: call(name, dir_fd=parent), refusal, False)


@syscall(84, Support.FULL)
def sys_rmdir(thread: "Thread", path: Path) -> None:
    remove(thread, fs.AT_FDCWD, path, True)


@syscall(87, Support.FULL)
def sys_unlink(thread: "Thread", path: Path) -> None:
    remove(thread, fs.AT_FDCWD, path, False)


@syscall(263, Support.FULL)
def sys_unlinkat(thread: "Thread", dirfd: Fd, path: Path, flags: Int) -> None:
    if flags & ~fs.AT_REMOVEDIR:
        raise LinuxError(EINVAL)
    remove(thread, dirfd, path, bool(flags))


def rename(thread: "Thread", old: tuple[int, bytes], new: tuple[int, bytes], flags: int) -> int:
    if flags & ~(fs.RENAME_NOREPLACE | fs.RENAME_EXCHANGE | fs.RENAME_WHITEOUT):
        raise LinuxError(EINVAL)
    if flags & fs.RENAME_WHITEOUT:
        raise LinuxError(EPERM)  # a whiteout is a device node
    return resolve_two(thread, old, new, lambda one, a, two, b: host_fs.renameat2(one, a, two, b, flags))


@syscall(82, Support.FULL)
def sys_rename(thread: "Thread", old: Path, new: Path) -> int:
    return rename(thread, (fs.AT_FDCWD, old), (fs.AT_FDCWD, new), 0)


@syscall(264, Support.FULL)
def sys_renameat(thread: "Thread", old_dirfd: Fd, old: Path, new_dirfd: Fd, new: Path) -> int:
    return rename(thread, (old_dirfd, old), (new_dirfd, new), 0)


@syscall(316, Support.PARTIAL, note="RENAME_WHITEOUT is refused (EPERM)")
def sys_renameat2(thread: "Thread", old_dirfd: Fd, old: Path, new_dirfd: Fd, new: Path, flags: Uint) -> int:
    return rename(thread, (old_dirfd, old), (new_dirfd, new), flags)


def link(thread: "Thread", old: tuple[int, bytes], new: tuple[int, bytes], flags: int) -> int:
    if flags & ~(fs.AT_SYMLINK_FOLLOW | fs.AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    if flags & fs.AT_EMPTY_PATH and not old[1]:
        file = thread.files.get(Fd(old[0]))
        return resolve(thread, *new, lambda to, b: host_fs.linkat(file.fd, b"", to, b, fs.AT_EMPTY_PATH), exists, False)
    kept = flags & fs.AT_SYMLINK_FOLLOW
    return resolve_two(thread, old, new, lambda one, a, two, b: host_fs.linkat(one, a, two, b, kept), bool(kept))


@syscall(86, Support.FULL)
def sys_link(thread: "Thread", old: Path, new: Path) -> int:
    return link(thread, (fs.AT_FDCWD, old), (fs.AT_FDCWD, new), 0)


@syscall(265, Support.FULL)
def sys_linkat(thread: "Thread", old_dirfd: Fd, old: Path, new_dirfd: Fd, new: Path, flags: Int) -> int:
    return link(thread, (old_dirfd, old), (new_dirfd, new), flags)


def make_link(thread: "Thread", target: bytes, dirfd: int, path: bytes) -> None:
    if not target:
        raise LinuxError(ENOENT)
    resolve(thread, dirfd, path, lambda parent, name: os.symlink(target, name, dir_fd=parent), exists, False)


@syscall(88, Support.FULL)
def sys_symlink(thread: "Thread", target: Path, path: Path) -> None:
    make_link(thread, target, fs.AT_FDCWD, path)


@syscall(266, Support.FULL)
def sys_symlinkat(thread: "Thread", target: Path, dirfd: Fd, path: Path) -> None:
    make_link(thread, target, dirfd, path)


def make_node(thread: "Thread", dirfd: int, path: bytes, mode: int) -> None:
    kind = mode & fs.S_IFMT
    if kind in (fs.S_IFCHR, fs.S_IFBLK, fs.S_IFDIR):
        raise LinuxError(EPERM)
    if kind not in (0, fs.S_IFREG, fs.S_IFIFO, fs.S_IFSOCK):
        raise LinuxError(EINVAL)
    wanted = (kind or fs.S_IFREG) | (mode & 0o7777 & ~thread.fs.umask)
    resolve(thread, dirfd, path, lambda parent, name: os.mknod(name, wanted, dir_fd=parent), exists, False)


@syscall(133, Support.PARTIAL, note="regular files, FIFOs and sockets; devices are refused (EPERM)")
def sys_mknod(thread: "Thread", path: Path, mode: Uint, _device: Uint) -> None:
    make_node(thread, fs.AT_FDCWD, path, mode)


@syscall(259, Support.PARTIAL, note="regular files, FIFOs and sockets; devices are refused (EPERM)")
def sys_mknodat(thread: "Thread", dirfd: Fd, path: Path, mode: Uint, _device: Uint) -> None:
    make_node(thread, dirfd, path, mode)
