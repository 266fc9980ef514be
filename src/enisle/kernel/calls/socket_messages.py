"""send(2), recv(2) and their relatives."""

import time
from errno import EINVAL
from typing import TYPE_CHECKING

from enisle.abi import linux_socket as n
from enisle.abi.linux_fs import TIMESPEC
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.messages import (
    Message,
    Receiver,
    read_message,
    receive_all,
    receive_message,
    require_sleep,
    send,
)
from enisle.kernel.sockets import SocketFile, hold_socket, read_address, write_address
from enisle.kernel.table import Int, Size, Support, Uint, syscall
from enisle.kernel.transfer import one_range
from enisle.kernel.wait import MustLeave

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

NS = 1_000_000_000


@syscall(44, Support.FULL)
def sys_sendto(thread: "Thread", fd: Fd, buf: Gva, count: Size, flags: Int, address: Gva, size: Int) -> int:
    ranges = one_range(buf, count)
    file = hold_socket(thread, fd)
    try:
        name = read_address(thread, address, size) if address else b""
        return send(thread, file, Message(0, 0, ranges, 0, 0), flags, name)
    finally:
        file.drop()


@syscall(45, Support.FULL)
def sys_recvfrom(thread: "Thread", fd: Fd, buf: Gva, count: Size, flags: Int, address: Gva, size_at: Gva) -> int:
    ranges = one_range(buf, count)
    file = hold_socket(thread, fd)
    try:
        receiver = Receiver(file, flags, bool(address), 0)
        size = receive_all(thread, file, ranges, flags, receiver)
        if address:
            write_address(thread, receiver.received.name, address, size_at)
        return size
    finally:
        file.drop()


def send_message(thread: "Thread", file: SocketFile, address: int, flags: int) -> int:
    message = read_message(thread, address)
    name = read_address(thread, message.name, message.name_size) if message.name else b""
    return send(thread, file, message, flags, name)


@syscall(46, Support.PARTIAL, note="a false SCM_CREDENTIALS of root says the truth")
def sys_sendmsg(thread: "Thread", fd: Fd, message: Gva, flags: Int) -> int:
    file = hold_socket(thread, fd)
    try:
        return send_message(thread, file, message, flags)
    finally:
        file.drop()


@syscall(47, Support.PARTIAL, note="SCM_CREDENTIALS names the socket's last sender")
def sys_recvmsg(thread: "Thread", fd: Fd, message: Gva, flags: Int) -> int:
    file = hold_socket(thread, fd)
    try:
        return receive_message(thread, file, message, flags)
    finally:
        file.drop()


@syscall(307, Support.PARTIAL, note="as sendmsg")
def sys_sendmmsg(thread: "Thread", fd: Fd, vector: Gva, count: Uint, flags: Int) -> int:
    file = hold_socket(thread, fd)
    done = 0
    try:
        require_sleep(thread, file, flags & n.MSG_DONTWAIT)
        for index in range(min(count, n.UIO_MAXIOV)):
            address = vector + index * n.MMSGHDR_SIZE
            sent = send_message(thread, file, address, flags)
            thread.mm.write_u32(address + n.MMSG_LEN_OFFSET, sent)
            done += 1
    except (LinuxError, OSError, MustLeave):
        if not done:
            raise
    finally:
        file.drop()
    return done


@syscall(299, Support.PARTIAL, note="as recvmsg")
def sys_recvmmsg(thread: "Thread", fd: Fd, vector: Gva, count: Uint, flags: Int, timeout: Gva) -> int:
    deadline = None
    if timeout:
        seconds, nanos = TIMESPEC.unpack(thread.mm.read(timeout, TIMESPEC.size))
        if seconds < 0 or not 0 <= nanos < NS:
            raise LinuxError(EINVAL)
        deadline = time.monotonic() + seconds + nanos / NS
    file = hold_socket(thread, fd)
    try:
        require_sleep(thread, file, flags & n.MSG_DONTWAIT)
        done = receive_several(thread, file, vector, min(count, n.UIO_MAXIOV), flags, deadline)
    finally:
        file.drop()
    if deadline is not None:
        left = max(0, int((deadline - time.monotonic()) * NS))
        thread.mm.write(timeout, TIMESPEC.pack(left // NS, left % NS))
    return done


def receive_several(
    thread: "Thread", file: SocketFile, vector: int, count: int, flags: int, deadline: float | None
) -> int:
    """Receive up to `count` messages; the deadline is looked at between them only, as Linux does."""
    done = 0
    try:
        while done < count:
            address = vector + done * n.MMSGHDR_SIZE
            size = receive_message(thread, file, address, flags & ~n.MSG_WAITFORONE)
            thread.mm.write_u32(address + n.MMSG_LEN_OFFSET, size)
            done += 1
            if flags & n.MSG_WAITFORONE:
                flags |= n.MSG_DONTWAIT
            if deadline is not None and time.monotonic() >= deadline:
                break
    except (LinuxError, OSError, MustLeave):
        if not done:
            raise
    return done
