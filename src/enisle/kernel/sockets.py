"""Sockets as open files: a non-blocking host socket each; waiting, timeouts and identities are ours.

Addresses, options and data go to the host as they are, after a look at what in them could mean something else there:
paths, descriptors, pids, pointers. Any guest thread; what peers know of each other stands under `unix_names.lock`.
"""

import fcntl
import os
import select
import struct
import time
import weakref
from collections import deque
from collections.abc import Sequence
from errno import EAGAIN, EINTR, EINVAL, ENFILE, ENOTSOCK, ENOTTY, ETIMEDOUT
from typing import TYPE_CHECKING

from enisle.abi import host_socket
from enisle.abi import linux_socket as n
from enisle.abi.linux import ERESTARTSYS
from enisle.abi.types import PAGE, Fd
from enisle.errors import LinuxError
from enisle.kernel.files import POLLOUT, OpenFile
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.wait import remaining
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

BACKOFF = 0.001
"""Seconds between tries to send to a socket whose room only its reader could tell."""
INTERFACE_REQUESTS = frozenset((
    n.SIOCGIFNAME, n.SIOCGIFFLAGS, n.SIOCGIFADDR, n.SIOCGIFDSTADDR, n.SIOCGIFBRDADDR, n.SIOCGIFNETMASK,
    n.SIOCGIFMETRIC, n.SIOCGIFMTU, n.SIOCGIFHWADDR, n.SIOCGIFINDEX, n.SIOCGIFTXQLEN, n.SIOCGIFMAP,
))  # fmt: skip
"""ioctls that fill a struct ifreq and change nothing."""


class Credentials(Record):
    """Who a socket's peer is (struct ucred), with the groups of SO_PEERGROUPS."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def pack(self) -> bytes:
        return n.UCRED.pack(self.pid, self.uid & 0xFFFF_FFFF, self.gid & 0xFFFF_FFFF)


STRANGER = Credentials(0, 65534, 65534)
"""A peer outside of the island."""
NOBODY = Credentials(0, -1, -1)
"""No peer."""


def credentials_of(thread: "Thread") -> Credentials:
    identity = thread.process.credentials
    return Credentials(thread.process.pid, identity.euid, identity.egid, identity.groups)


living: "weakref.WeakSet[SocketFile]" = weakref.WeakSet()
MEMORY_OF_ONE = 1 << 18
"""Bytes of the host's own memory that a socket's buffers may fill (net.core.wmem_default, doubled for its overhead)."""


def require_room(thread: "Thread", count: int) -> None:
    """Raise ENFILE when the buffers of `count` more sockets could take more than the island's memory."""
    most = max(256, thread.kernel.machine.memory.limit_frames * PAGE // MEMORY_OF_ONE)
    if len(living) + count > most:
        raise LinuxError(ENFILE)


class SocketFile(OpenFile):
    """An open socket."""

    kind = "socket"
    seekable = False

    def __init__(self, fd: int, family: int, kind: int, protocol: int, flags: int = 0) -> None:
        super().__init__(fd, os.O_RDWR | flags & os.O_NONBLOCK, b"socket:[%d]" % os.fstat(fd).st_ino, blocking=True)
        self.family, self.type, self.protocol = family, kind, protocol
        living.add(self)
        self.stream = kind == n.SOCK_STREAM
        self.timeouts: dict[int, float | None] = {}
        """Seconds by POLLIN and POLLOUT (SO_RCVTIMEO, SO_SNDTIMEO)."""
        self.name: bytes | None = None
        """The address the guest bound, where the host was told another."""
        self.credentials = NOBODY
        """Whose this is for peers: of who called socketpair, connect or listen."""
        self.peer_credentials = NOBODY
        self.peer: weakref.ref[SocketFile] | None = None
        self.last_sender = STRANGER
        """Who of the island sent to this AF_UNIX socket last."""
        self.waiting: deque[tuple[Credentials, weakref.ref[SocketFile]]] = deque()
        """Connections of the island nobody has accepted yet, in their order."""

    def close(self) -> None:
        living.discard(self)
        super().close()

    # ---- waiting -------------------------------------------------------------------------------------------------

    def deadline(self, events: int) -> float | None:
        seconds = self.timeouts.get(events)
        return None if seconds is None else time.monotonic() + seconds

    def block(self, thread: "Thread", events: int) -> None:
        self.wait(thread, events, self.deadline(events))

    def wait(self, thread: "Thread", events: int, deadline: float | None, dont: int = 0) -> None:
        """Wait as `block` does, until a deadline of the caller's; `dont` (MSG_DONTWAIT): not at all.

        Raises EAGAIN at the deadline. A signal then means EINTR, else a restart (include/net/sock.h: sock_intr_errno).
        """
        if dont or self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        self.references += 1
        try:
            if events == POLLOUT and self.family == n.AF_UNIX and is_ready(self.fd, POLLOUT):
                left = remaining(deadline)
                thread.sleep(BACKOFF if left is None else min(BACKOFF, left))
            else:
                thread.wait_fd(self.fd, events, deadline)
        except LinuxError as error:
            if error.errno == ETIMEDOUT:
                raise LinuxError(EAGAIN) from None
            if error.errno == ERESTARTSYS and deadline is not None:
                raise LinuxError(EINTR) from None
            raise
        finally:
            self.drop()

    # ---- input and output ----------------------------------------------------------------------------------------

    def readv(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        return os.readv(self.fd, buffers)

    def writev(self, thread: "Thread", buffers: Sequence[memoryview]) -> int:
        self.note_sender(thread)
        return os.writev(self.fd, buffers) if buffers else os.write(self.fd, b"")  # an empty datagram is one

    def note_sender(self, thread: "Thread") -> None:
        if self.peer and (peer := self.peer()):
            peer.last_sender = credentials_of(thread)

    def ioctl(self, thread: "Thread", request: int, argument: int) -> int:
        if request in (n.SIOCINQ, n.SIOCOUTQ, n.SIOCATMARK):
            answer = bytearray(4)
            fcntl.ioctl(self.fd, request, answer)
            thread.mm.write(argument, bytes(answer))
            return 0
        if request in INTERFACE_REQUESTS:
            record = bytearray(thread.mm.read(argument, n.IFREQ_SIZE))
            fcntl.ioctl(self.fd, request, record)
            thread.mm.write(argument, bytes(record))
            return 0
        if request == n.SIOCGIFCONF:
            return self._interfaces(thread, argument)
        raise LinuxError(ENOTTY)

    def _interfaces(self, thread: "Thread", argument: int) -> int:
        """SIOCGIFCONF: fill an array of struct ifreq, or tell how long it would be."""
        import array

        room, address = n.IFCONF.unpack(thread.mm.read(argument, n.IFCONF.size))
        if room < 0:
            raise LinuxError(EINVAL)
        buffer = array.array("b", bytes(min(room, 1 << 16) or 1))
        head = bytearray(n.IFCONF.pack(min(room, 1 << 16), buffer.buffer_info()[0] if address else 0))
        fcntl.ioctl(self.fd, n.SIOCGIFCONF, head)
        used, _ = n.IFCONF.unpack(head)
        if address:
            thread.mm.write(address, buffer.tobytes()[:used])
        thread.mm.write(argument, struct.pack("<i", used))
        return 0


def is_ready(fd: int, events: int) -> bool:
    """Return whether a host descriptor has one of the poll events now."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))


def hold_socket(thread: "Thread", fd: int) -> SocketFile:
    """Return the socket behind a guest descriptor with a reference more. Raises EBADF, ENOTSOCK."""
    file = thread.files.hold(Fd(fd))
    if not isinstance(file, SocketFile):
        adopted = as_socket(thread, fd, file)
        file.drop()
        if adopted is None:
            raise LinuxError(ENOTSOCK)
        return adopted
    return file


def as_socket(thread: "Thread", fd: int, file: OpenFile) -> SocketFile | None:
    """Turn an inherited descriptor that is a socket of the host into one of the guest, in its place."""
    import stat

    if file.fd < 0 or not stat.S_ISSOCK(os.fstat(file.fd).st_mode):
        return None
    socket = adopt_socket(fcntl.fcntl(file.fd, fcntl.F_DUPFD_CLOEXEC, 3), file.flags)
    socket.hold()
    thread.files.set(fd, socket, thread.files.is_cloexec(fd))
    return socket


def adopt_socket(fd: int, flags: int) -> SocketFile:
    """Return an open file on a host socket that came from outside, whose descriptor is ours from now on."""
    os.set_blocking(fd, False)
    family, kind, protocol = (
        int.from_bytes(host_socket.getsockopt(fd, n.SOL_SOCKET, option, bytes(4)), "little")
        for option in (n.SO_DOMAIN, n.SO_TYPE, n.SO_PROTOCOL)
    )
    socket = SocketFile(fd, family, kind, protocol, flags)
    socket.peer_credentials = STRANGER
    return socket


def install(thread: "Thread", file: OpenFile, kind: int) -> Fd:
    """Give the guest a descriptor for `file`; `kind` may hold SOCK_CLOEXEC. Raises EMFILE (file closed)."""
    limit = thread.process.limits.soft(RLIMIT_NOFILE)
    return thread.files.add(file, bool(kind & n.SOCK_CLOEXEC), limit)


def read_address(thread: "Thread", address: int, size: int) -> bytes:
    """Return a struct sockaddr of the guest. Raises EINVAL (net/socket.c: move_addr_to_kernel), EFAULT."""
    if not 0 <= size <= n.SOCKADDR_STORAGE_SIZE:
        raise LinuxError(EINVAL)
    return thread.mm.read(address, size)


def write_address(thread: "Thread", name: bytes, address: int, size_at: int) -> None:
    """Store an address and its whole length, cutting it to the room there is (move_addr_to_user)."""
    room = int.from_bytes(thread.mm.read(size_at, 4), "little", signed=True)
    if room < 0:
        raise LinuxError(EINVAL)
    if room and name:
        thread.mm.write(address, name[:room])
    thread.mm.write_u32(size_at, len(name))
