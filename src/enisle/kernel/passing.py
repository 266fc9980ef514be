"""Descriptors and identities that travel over AF_UNIX sockets: ancillary data between guest and host (unix(7)).

The guest's structures have the host's layout, so only descriptor numbers and pids are changed in place. A description
that comes back to the island keeps its `OpenFile`: it bears a mark, which is the signal of F_SETSIG, unused otherwise.
"""

import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from errno import EBADF, EINVAL, EPERM
from typing import TYPE_CHECKING

from enisle.abi import linux_socket as n
from enisle.abi.types import Fd
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.sockets import Credentials, adopt_socket

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

MARKS = range(1, 65)
INT_SIZE = 4
Key = tuple[int, int, int]

_lock = threading.Lock()
_sent: dict[Key, OpenFile] = {}
"""What has been sent, by device, inode and mark. Guarded by `_lock`."""
_held: dict[OpenFile, int] = {}
"""Files with state of their own are kept open while they travel: how often each. Guarded by `_lock`."""


def parts(control: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (offset of the data, its size, level, type) of each message. Raises EINVAL (CMSG_OK)."""
    offset = 0
    while offset + n.CMSGHDR.size <= len(control):
        size, level, kind = n.CMSGHDR.unpack_from(control, offset)
        if size < n.CMSGHDR.size or offset + size > len(control):
            raise LinuxError(EINVAL)
        yield offset + n.CMSGHDR.size, size - n.CMSGHDR.size, level, kind
        offset += (size + 7) & ~7


# ---- out -----------------------------------------------------------------------------------------------------------


def to_host(thread: "Thread", control: bytes) -> tuple[bytes, list[OpenFile]]:
    """Return ancillary data for the host, and the files it sends, each held: drop them after the call."""
    out, files = bytearray(control), list[OpenFile]()
    try:
        for offset, size, level, kind in parts(control):
            if level == n.SOL_SOCKET and kind == n.SCM_RIGHTS:
                for at in range(offset, offset + size - size % INT_SIZE, INT_SIZE):
                    file = thread.files.hold(Fd(int.from_bytes(control[at : at + 4], "little", signed=True)))
                    files.append(file)
                    if file.fd < 0:
                        raise LinuxError(EBADF)
                    out[at : at + 4] = file.fd.to_bytes(4, "little")
            elif level == n.SOL_SOCKET and kind == n.SCM_CREDENTIALS:
                out[offset : offset + size] = own_credentials(thread, control[offset : offset + size])
    except LinuxError:
        for file in files:
            file.drop()
        raise
    return bytes(out), files


def own_credentials(thread: "Thread", claimed: bytes) -> bytes:
    """Return the host's words for the sender's claim. Raises EPERM for a false one (scm_check_creds)."""
    if len(claimed) != n.UCRED.size:
        raise LinuxError(EINVAL)
    pid, uid, gid = n.UCRED.unpack(claimed)
    own = thread.process.credentials
    privileged = own.euid == 0
    true = pid == thread.process.pid and uid in (own.uid, own.euid, own.suid) and gid in (own.gid, own.egid, own.sgid)
    if not true and not privileged:
        raise LinuxError(EPERM)
    return n.UCRED.pack(os.getpid(), os.getuid(), os.getgid())


def mark(files: list[OpenFile]) -> None:
    """Make files recognizable before they are sent."""
    for file in files:
        try:
            status, number = os.fstat(file.fd), fcntl.fcntl(file.fd, fcntl.F_GETSIG)
        except OSError:  # O_PATH
            continue
        with _lock:
            if not number or _sent.get((status.st_dev, status.st_ino, number)) is not file:
                number = _free_mark(status.st_dev, status.st_ino)
                if not number:
                    continue
                fcntl.fcntl(file.fd, fcntl.F_SETSIG, number)
                _sent[status.st_dev, status.st_ino, number] = file
            if _keeps_state(file):
                _held[file.hold()] = _held.get(file, 0) + 1


def _free_mark(device: int, inode: int) -> int:
    """Return a mark no open file with this inode bears, 0 if there is none. Requires: _lock."""
    for number in MARKS:
        other = _sent.get((device, inode, number))
        if other is None:
            return number
    for number in MARKS:
        if _sent[device, inode, number].fd < 0:  # closed, and most likely never received
            return number
    return 0


def _keeps_state(file: OpenFile) -> bool:
    return type(file).close is not OpenFile.close


# ---- in ------------------------------------------------------------------------------------------------------------


def from_host(thread: "Thread", control: bytes, flags: int, sender: Credentials) -> tuple[bytes, int]:
    """Return ancillary data for the guest, its descriptors installed, and MSG_CTRUNC when not all could be."""
    out = bytearray(control)
    for offset, size, level, kind in list(parts(control)):
        if level == n.SOL_SOCKET and kind == n.SCM_RIGHTS:
            hosts = [int.from_bytes(control[at : at + 4], "little") for at in range(offset, offset + size, INT_SIZE)]
            guests = install_all(thread, hosts, flags)
            out[offset : offset + INT_SIZE * len(guests)] = b"".join(fd.to_bytes(4, "little") for fd in guests)
            if len(guests) < len(hosts):  # descriptors come last (net/core/scm.c: scm_recv)
                return cut_rights(out, offset, len(guests)), n.MSG_CTRUNC
        elif level == n.SOL_SOCKET and kind == n.SCM_CREDENTIALS:
            pid, uid, gid = n.UCRED.unpack_from(control, offset)
            if pid == os.getpid():
                out[offset : offset + n.UCRED.size] = sender.pack()
            elif pid:
                n.UCRED.pack_into(out, offset, 0, uid, gid)
    return bytes(out), 0


def cut_rights(control: bytearray, offset: int, count: int) -> bytes:
    """Return ancillary data that ends with the first `count` descriptors of the message whose data is at `offset`."""
    start = offset - n.CMSGHDR.size
    if not count:
        return bytes(control[:start])
    length = n.CMSGHDR.size + INT_SIZE * count
    n.CMSGHDR.pack_into(control, start, length, n.SOL_SOCKET, n.SCM_RIGHTS)
    return bytes(control[:start]) + bytes(control[start : start + length]).ljust((length + 7) & ~7, b"\0")


def install_all(thread: "Thread", hosts: list[int], flags: int) -> list[int]:
    """Install received host descriptors; those beyond the guest's limit are closed."""
    guests: list[int] = []
    limit = thread.process.limits.soft(RLIMIT_NOFILE)
    for position, host in enumerate(hosts):
        file = recognize(host, bool(flags & n.MSG_PEEK))
        try:
            guests.append(thread.files.add(file, bool(flags & n.MSG_CMSG_CLOEXEC), limit))
        except LinuxError:
            for left in hosts[position + 1 :]:
                os.close(left)
            break
    return guests


def recognize(host: int, peek: bool) -> OpenFile:
    """Return the island's file a received descriptor belongs to, or a new one; the descriptor is consumed."""
    try:
        status, number = os.fstat(host), fcntl.fcntl(host, fcntl.F_GETSIG)
    except OSError:
        return adopt(host)
    with _lock:
        file = _sent.get((status.st_dev, status.st_ino, number)) if number else None
        if file is None:
            return adopt(host)
        if file.fd < 0:  # closed by its sender: the description lives on behind the new descriptor
            revived = file.__class__.__new__(file.__class__)
            revived.__dict__.update(file.__dict__)
            revived.fd, revived.references = host, 0
            _sent[status.st_dev, status.st_ino, number] = revived
            return revived
        os.close(host)
        if file in _held and not peek:
            _held[file] -= 1
            if not _held[file]:
                del _held[file]
            file.references -= 1  # what held it on its way; the receiver's table takes its own
        return file


def adopt(host: int) -> OpenFile:
    """Return a new open file on a host descriptor that came from outside of the island."""
    try:
        mode, flags = os.fstat(host).st_mode, fcntl.fcntl(host, fcntl.F_GETFL)
        if stat.S_ISSOCK(mode):
            return adopt_socket(host, flags)
        waits = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or not stat.S_IFMT(mode)
        if waits and not flags & os.O_PATH:
            os.set_blocking(host, False)
    except OSError:
        os.close(host)
        raise
    file = OpenFile(host, flags & ~os.O_CLOEXEC, blocking=waits)
    file.seekable, file.foreign = stat.S_ISREG(mode) or stat.S_ISBLK(mode), True
    return file
