"""AF_UNIX names: from what a guest calls a socket to the host's socket, and who is at the other end.

The host resolves a relative path from its one working directory, which nothing else uses: it is moved there for each
call, under `lock`. The lock also keeps the order of connections, so that accept knows whom it got. Any guest thread.
"""

import os
import threading
import weakref
from collections.abc import Callable
from errno import ECONNREFUSED, EINVAL, ENAMETOOLONG
from typing import TYPE_CHECKING, TypeVar

from enisle.abi import host_socket
from enisle.abi import linux_socket as n
from enisle.abi.linux_fs import AT_FDCWD
from enisle.errors import LinuxError
from enisle.kernel.paths import SyntheticNode, resolve
from enisle.kernel.sockets import NOBODY, STRANGER, SocketFile, credentials_of

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

T = TypeVar("T")
Key = bytes | tuple[int, int]
UNIX = n.FAMILY.pack(n.AF_UNIX)
CREATED = 0o777

lock = threading.RLock()
_bound: "weakref.WeakValueDictionary[Key, SocketFile]" = weakref.WeakValueDictionary()
"""Sockets of the island by their abstract name or by device and inode of their file. Guarded by `lock`."""


def decode(name: bytes) -> bytes:
    """Return the path (or NUL and the abstract name) of a struct sockaddr_un. Raises EINVAL (unix_validate_addr)."""
    if not n.SUN_PATH_OFFSET < len(name) <= n.SOCKADDR_UN_SIZE or name[:2] != UNIX:
        raise LinuxError(EINVAL)
    path = name[n.SUN_PATH_OFFSET :]
    return path if path[:1] == b"\0" else path.split(b"\0", 1)[0]


def encode(path: bytes) -> bytes:
    """Return struct sockaddr_un. Raises ENAMETOOLONG."""
    if len(path) > n.SUN_PATH_SIZE:
        raise LinuxError(ENAMETOOLONG)
    return UNIX + path + (b"" if path[:1] == b"\0" or len(path) == n.SUN_PATH_SIZE else b"\0")


def refuse(_node: SyntheticNode) -> Key:
    raise LinuxError(ECONNREFUSED)


def at(directory: int, call: Callable[[], T]) -> T:
    """Do a host call whose relative paths start at a host directory. Requires: lock."""
    os.fchdir(directory)
    return call()


def bind(thread: "Thread", file: SocketFile, name: bytes) -> None:
    """Give an AF_UNIX socket a name: a path, an abstract one, or for two bytes one of the host's choice."""
    path = b"\0" if name == UNIX else decode(name)
    with lock:
        if path[:1] == b"\0":
            host_socket.bind(file.fd, name)
            _bound[host_socket.getsockname(file.fd)] = file
            return
        file_key = resolve(thread, AT_FDCWD, path, lambda at_, rest: _bind_path(thread, file, at_, rest), refuse, False)
        _bound[file_key] = file
        file.name = UNIX + path + b"\0"


def _bind_path(thread: "Thread", file: SocketFile, directory: int, path: bytes) -> Key:
    os.fchmod(file.fd, CREATED & ~thread.fs.umask)  # net/unix/af_unix.c: the file's mode comes from the socket's
    try:
        at(directory, lambda: host_socket.bind(file.fd, encode(path)))
    finally:
        os.fchmod(file.fd, CREATED)
    return _key_of(directory, path)


def _key_of(directory: int, path: bytes) -> Key:
    status = os.stat(path, dir_fd=directory)
    return status.st_dev, status.st_ino


def with_target(thread: "Thread", name: bytes, call: Callable[[bytes], T]) -> tuple[T, SocketFile | None]:
    """Do `call(address)` with an address the host understands; return also the socket of the island it means.

    Requires: lock.
    """
    path = decode(name)
    if path[:1] == b"\0":
        return call(name), _bound.get(name)

    def on_host(directory: int, rest: bytes) -> tuple[T, SocketFile | None]:
        result = at(directory, lambda: call(encode(rest)))
        return result, _bound.get(_key_of(directory, rest)) if _bound else None

    def on_node(_node: SyntheticNode) -> tuple[T, SocketFile | None]:
        raise LinuxError(ECONNREFUSED)

    return resolve(thread, AT_FDCWD, path, on_host, on_node)


def connect(thread: "Thread", file: SocketFile, name: bytes) -> None:
    """Connect once. Raises BlockingIOError when the listener's queue is full."""
    with lock:
        _, target = with_target(thread, name, lambda address: host_socket.connect(file.fd, address))
        file.credentials = credentials_of(thread)
        file.peer_credentials = target.credentials if target else STRANGER
        if target is None:
            return
        if file.type == n.SOCK_DGRAM:
            file.peer = weakref.ref(target)
            file.peer_credentials = NOBODY
        else:
            target.waiting.append((file.credentials, weakref.ref(file)))


def disconnect(file: SocketFile) -> None:
    """Connect to AF_UNSPEC: a datagram socket forgets its peer."""
    file.peer, file.peer_credentials = None, NOBODY


def accept(listener: SocketFile) -> SocketFile:
    """Accept once. Raises BlockingIOError when nobody waits."""
    with lock:
        file = SocketFile(host_socket.accept(listener.fd), n.AF_UNIX, listener.type, listener.protocol)
        file.name, file.credentials, file.peer_credentials = listener.name, listener.credentials, STRANGER
        pid, _, _ = n.UCRED.unpack(host_socket.getsockopt(file.fd, n.SOL_SOCKET, n.SO_PEERCRED, bytes(n.UCRED.size)))
        if pid == os.getpid() and listener.waiting:
            file.peer_credentials, file.peer = listener.waiting.popleft()
            other = file.peer()
            if other:
                other.peer = weakref.ref(file)
    return file


def listen(thread: "Thread", file: SocketFile, backlog: int) -> None:
    with lock:
        host_socket.listen(file.fd, backlog)
        file.credentials = credentials_of(thread)


def pair(thread: "Thread", one: SocketFile, two: SocketFile) -> None:
    """Introduce the ends of a socketpair."""
    one.peer, two.peer = weakref.ref(two), weakref.ref(one)
    one.credentials = two.credentials = one.peer_credentials = two.peer_credentials = credentials_of(thread)
    one.last_sender = two.last_sender = one.credentials
