"""Sending and receiving over sockets: the loops that wait, and one message with its name and ancillary data.

Memory is pinned for one host call, never while waiting. Runs on the guest thread that calls.
"""

import os
from collections.abc import Sequence
from errno import EINVAL, EMSGSIZE, ENOBUFS, EPIPE
from typing import TYPE_CHECKING

from enisle.abi import host_socket
from enisle.abi import linux_socket as n
from enisle.abi.linux_fs import PIPE_BUF
from enisle.errors import LinuxError
from enisle.kernel import passing, unix_names
from enisle.kernel.files import POLLIN, POLLOUT, OpenFile
from enisle.kernel.sockets import SocketFile, credentials_of, write_address
from enisle.kernel.transfer import Ranges, advance, broken_pipe, read_iovec, try_once
from enisle.kernel.wait import MustLeave
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

CONTROL_MAX = 1 << 17
"""Ancillary bytes of one message (net.core.optmem_max is at most this much)."""
SENDABLE = (
    n.MSG_OOB | n.MSG_DONTROUTE | n.MSG_EOR | n.MSG_MORE | n.MSG_FASTOPEN | 0x800 | 0x10 | 0x200 | 0x400 | 0x1000
)  # fmt: skip
"""MSG_* the host gets to see of a send: also CONFIRM, PROBE/PROXY, SYN, FIN, RST, as Linux ignores them."""
RECEIVABLE = n.MSG_OOB | n.MSG_PEEK | n.MSG_TRUNC | n.MSG_ERRQUEUE | n.MSG_EOR


class Message(Record):
    """A guest's struct msghdr."""

    name: int
    name_size: int
    ranges: Ranges
    control: int
    control_size: int


def read_message(thread: "Thread", address: int) -> Message:
    """Fetch a msghdr. Raises EFAULT, EINVAL, EMSGSIZE as net/socket.c: __copy_msghdr does."""
    name, name_size, vector, count, control, control_size, _ = n.MSGHDR.unpack(thread.mm.read(address, n.MSGHDR.size))
    name_size = name_size if name else 0
    if name_size < 0:
        raise LinuxError(EINVAL)
    if count > n.UIO_MAXIOV:
        raise LinuxError(EMSGSIZE)
    name_size = min(name_size, n.SOCKADDR_STORAGE_SIZE)
    return Message(name, name_size, read_iovec(thread, vector, count), control, control_size)


def require_sleep(thread: "Thread", file: SocketFile, dont: int) -> None:
    """Raise MustLeave, before anything is done, for a call that may have to wait when it is half done."""
    if not thread.waiter.may_sleep and not dont and not file.flags & os.O_NONBLOCK:
        raise MustLeave


# ---- out -----------------------------------------------------------------------------------------------------------


class Sender:
    """One send: the name and the ancillary data go with the first piece."""

    def __init__(self, file: SocketFile, flags: int, name: bytes, control: bytes) -> None:
        self.file, self.name, self.control = file, name, control
        self.flags = (flags & SENDABLE) | n.MSG_DONTWAIT | n.MSG_NOSIGNAL

    def __call__(self, thread: "Thread", views: Sequence[memoryview]) -> int:
        file = self.file
        if file.family == n.AF_UNIX:
            sent = self._send_unix(thread, views)
        else:
            sent = host_socket.send(file.fd, views, self.flags, self.name, self.control)
        self.control = b""
        return sent

    def _send_unix(self, thread: "Thread", views: Sequence[memoryview]) -> int:
        file = self.file
        if not self.name:
            file.note_sender(thread)
            return host_socket.send(file.fd, views, self.flags, b"", self.control)
        if self.name[:2] != unix_names.UNIX or file.type != n.SOCK_DGRAM:
            return host_socket.send(file.fd, views, self.flags, self.name, self.control)
        with unix_names.lock:
            sent, target = unix_names.with_target(
                thread, self.name, lambda name: host_socket.send(file.fd, views, self.flags, name, self.control)
            )
            if target:
                target.last_sender = credentials_of(thread)
        return sent


def send(thread: "Thread", file: SocketFile, message: Message, flags: int, name: bytes) -> int:
    """Send a message, waiting for room as long as SO_SNDTIMEO allows; a stream takes it piece by piece."""
    control, files = b"", list[OpenFile]()
    if message.control and message.control_size:
        if message.control_size > CONTROL_MAX:
            raise LinuxError(ENOBUFS)
        control = thread.mm.read(message.control, message.control_size)
        control, files = passing.to_host(thread, control)
    try:
        if files:
            passing.mark(files)
        return send_all(thread, file, message.ranges, flags, Sender(file, flags, name, control))
    finally:
        for sent in files:
            sent.drop()


def send_all(thread: "Thread", file: SocketFile, ranges: Ranges, flags: int, sender: Sender) -> int:
    done, dont = 0, flags & n.MSG_DONTWAIT
    if file.stream and sum(size for _, size in ranges) > PIPE_BUF:
        require_sleep(thread, file, dont)
    deadline = file.deadline(POLLOUT)
    while True:
        try:
            moved, _ = try_once(thread, ranges, False, sender)
        except BlockingIOError:
            try:
                file.wait(thread, POLLOUT, deadline, dont)
            except (LinuxError, MustLeave):
                if done:
                    return done
                raise
            continue
        except BrokenPipeError:
            if done:
                return done
            # A stream socket that is shut raises the signal; others and MSG_NOSIGNAL only fail (sk_stream_error).
            raise LinuxError(EPIPE) if flags & n.MSG_NOSIGNAL or not file.stream else broken_pipe(thread) from None
        except (OSError, LinuxError):
            if done:
                return done
            raise
        done += moved
        advance(ranges, moved)
        if not ranges or not file.stream:
            return done


# ---- in ------------------------------------------------------------------------------------------------------------


class Receiver:
    """One receive; keeps what came besides the bytes."""

    def __init__(self, file: SocketFile, flags: int, named: bool, room: int) -> None:
        self.file, self.named, self.room = file, named, room
        self.flags = (flags & RECEIVABLE) | n.MSG_DONTWAIT | n.MSG_CMSG_CLOEXEC
        self.received = host_socket.Received(0, b"", b"", 0)
        self.simple = not named and not room
        self.whole = False
        """Whether the flags of the answer are wanted."""

    def __call__(self, _thread: "Thread", views: Sequence[memoryview]) -> int:
        if self.simple and not self.whole:
            return host_socket.receive(self.file.fd, views, self.flags)
        self.received = host_socket.receive_message(self.file.fd, views, self.flags, self.named, self.room)
        return self.received.size


def receive_all(thread: "Thread", file: SocketFile, ranges: Ranges, flags: int, receiver: Receiver) -> int:
    """Receive once, or with MSG_WAITALL on a stream until the ranges are full, the end, an error or a signal."""
    done, dont = 0, flags & (n.MSG_DONTWAIT | n.MSG_OOB | n.MSG_ERRQUEUE)
    fill = flags & n.MSG_WAITALL and file.stream and not flags & n.MSG_PEEK
    if fill:
        require_sleep(thread, file, dont)
    deadline = file.deadline(POLLIN)
    while True:
        try:
            moved, offered = try_once(thread, ranges, True, receiver)
        except BlockingIOError:
            if done and (not fill or dont):
                return done
            try:
                file.wait(thread, POLLIN, deadline, dont)
            except (LinuxError, MustLeave):
                if done:
                    return done
                raise
            continue
        except (OSError, LinuxError):
            if done:
                return done
            raise
        done += moved
        if not file.stream or not moved or moved > offered or flags & n.MSG_PEEK or receiver.received.control:
            return done
        advance(ranges, moved)
        if not ranges or (moved < offered and not fill):
            return done
        receiver.room, receiver.named = 0, False


def receive_message(thread: "Thread", file: SocketFile, address: int, flags: int) -> int:
    """Do recvmsg(2) on a guest's msghdr; return the bytes received."""
    message = read_message(thread, address)
    room = min(message.control_size, CONTROL_MAX) if message.control else 0
    receiver = Receiver(file, flags, bool(message.name), room)
    receiver.whole = True
    size = receive_all(thread, file, message.ranges, flags, receiver)
    got = receiver.received
    control, lost = got.control, 0
    if control and file.family == n.AF_UNIX:
        control, lost = passing.from_host(thread, control, flags, file.last_sender)
    if message.name:
        write_address(thread, got.name, message.name, address + n.MSG_NAMELEN_OFFSET)
    if control:
        thread.mm.write(message.control, control)
    answer = (got.flags & ~(n.MSG_CMSG_CLOEXEC | n.MSG_DONTWAIT)) | lost | flags & n.MSG_CMSG_CLOEXEC
    thread.mm.write_u32(address + n.MSG_FLAGS_OFFSET, answer)
    thread.mm.write_u64(address + n.MSG_CONTROLLEN_OFFSET, len(control))
    return size
