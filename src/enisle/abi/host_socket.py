"""Thin typed host calls on sockets and epoll: addresses, options and ancillary data are the bytes of their structures.

Python's socket module would translate addresses and lose what a guest may say wrong. Any thread; the GIL is released.
"""

from collections.abc import Callable, Sequence
from ctypes import addressof, c_char, c_char_p, c_int, c_size_t, c_void_p, create_string_buffer

from enisle.abi import linux_socket as n
from enisle.abi.host import system_call
from enisle.abi.linux_fs import IOVEC
from enisle.records import Record

OUR_TYPE = n.SOCK_NONBLOCK | n.SOCK_CLOEXEC
NOWHERE = 8
"""An address no process has."""

_socket = system_call(n.NR_SOCKET, "socket", c_int, c_int, c_int)
_socketpair = system_call(n.NR_SOCKETPAIR, "socketpair", c_int, c_int, c_int, c_void_p)
_bind = system_call(n.NR_BIND, "bind", c_int, c_char_p, c_int)
_connect = system_call(n.NR_CONNECT, "connect", c_int, c_char_p, c_int)
_accept4 = system_call(n.NR_ACCEPT4, "accept4", c_int, c_void_p, c_void_p, c_int)
_getsockname = system_call(n.NR_GETSOCKNAME, "getsockname", c_int, c_void_p, c_void_p)
_getpeername = system_call(n.NR_GETPEERNAME, "getpeername", c_int, c_void_p, c_void_p)
_setsockopt = system_call(n.NR_SETSOCKOPT, "setsockopt", c_int, c_int, c_int, c_char_p, c_int)
_getsockopt = system_call(n.NR_GETSOCKOPT, "getsockopt", c_int, c_int, c_int, c_void_p, c_void_p)
_sendto = system_call(n.NR_SENDTO, "sendto", c_int, c_void_p, c_size_t, c_int, c_char_p, c_int)
_recvfrom = system_call(n.NR_RECVFROM, "recvfrom", c_int, c_void_p, c_size_t, c_int, c_void_p, c_void_p)
_sendmsg = system_call(n.NR_SENDMSG, "sendmsg", c_int, c_void_p, c_int)
_recvmsg = system_call(n.NR_RECVMSG, "recvmsg", c_int, c_void_p, c_int)
_epoll_wait = system_call(n.NR_EPOLL_WAIT, "epoll_wait", c_int, c_void_p, c_int, c_int)
_epoll_ctl = system_call(n.NR_EPOLL_CTL, "epoll_ctl", c_int, c_int, c_int, c_char_p)
_epoll_create1 = system_call(n.NR_EPOLL_CREATE1, "epoll_create1", c_int)
listen = system_call(n.NR_LISTEN, "listen", c_int, c_int)
shutdown = system_call(n.NR_SHUTDOWN, "shutdown", c_int, c_int)


class Received(Record):
    """What recvmsg(2) brought: bytes moved, source address, ancillary data, MSG_* flags."""

    size: int
    name: bytes
    control: bytes
    flags: int


def socket(family: int, kind: int, protocol: int) -> int:
    return _socket(family, kind | OUR_TYPE, protocol)


def socketpair(family: int, kind: int, protocol: int) -> tuple[int, int]:
    pair = (c_int * 2)()
    _socketpair(family, kind | OUR_TYPE, protocol, addressof(pair))
    return pair[0], pair[1]


def bind(fd: int, name: bytes) -> None:
    _bind(fd, name, len(name))


def connect(fd: int, name: bytes) -> None:
    _connect(fd, name, len(name))


def accept(fd: int) -> int:
    return _accept4(fd, None, None, OUR_TYPE)


def getsockname(fd: int) -> bytes:
    """Return struct sockaddr."""
    return _name(fd, _getsockname)


def getpeername(fd: int) -> bytes:
    """Return struct sockaddr."""
    return _name(fd, _getpeername)


def _name(fd: int, call: Callable[..., int]) -> bytes:
    buffer = create_string_buffer(n.SOCKADDR_STORAGE_SIZE)
    size = c_int(n.SOCKADDR_STORAGE_SIZE)
    call(fd, addressof(buffer), addressof(size))
    return buffer.raw[: size.value]


def setsockopt(fd: int, level: int, name: int, value: bytes) -> None:
    _setsockopt(fd, level, name, value, len(value))


def setsockopt_filter(fd: int, name: int, program: bytes) -> None:
    """Attach a classic BPF filter of 8-byte instructions (SO_ATTACH_FILTER and its relatives)."""
    code = create_string_buffer(program, len(program))
    setsockopt(fd, n.SOL_SOCKET, name, n.SOCK_FPROG.pack(len(program) // 8, addressof(code)))


def getsockopt(fd: int, level: int, name: int, room: bytes) -> bytes:
    """Return an option's value; `room` is as long as the caller's buffer and holds what was in it."""
    buffer = create_string_buffer(room, len(room) or 1)
    size = c_int(len(room))
    _getsockopt(fd, level, name, addressof(buffer), addressof(size))
    return buffer.raw[: size.value]


def address_of(view: memoryview) -> int:
    """Return where pinned memory is; a view that cannot be written stands for memory that is not there."""
    return NOWHERE if view.readonly else addressof(c_char.from_buffer(view))


def _vector(views: Sequence[memoryview]) -> bytes:
    return b"".join([IOVEC.pack(address_of(view), len(view)) for view in views])


def send(fd: int, views: Sequence[memoryview], flags: int, name: bytes = b"", control: bytes = b"") -> int:
    """Send pinned memory as one message; return how many bytes went."""
    if len(views) <= 1 and not control:
        address, size = (address_of(views[0]), len(views[0])) if views else (None, 0)
        return _sendto(fd, address, size, flags, name or None, len(name))
    vector = create_string_buffer(_vector(views), len(views) * IOVEC.size or 1)
    target = create_string_buffer(name, len(name) or 1)
    ancillary = create_string_buffer(control, len(control) or 1)
    head = create_string_buffer(
        n.MSGHDR.pack(
            addressof(target) if name else 0,
            len(name),
            addressof(vector),
            len(views),
            addressof(ancillary) if control else 0,
            len(control),
            0,
        ),
        n.MSGHDR.size,
    )
    return _sendmsg(fd, addressof(head), flags)


def receive(fd: int, views: Sequence[memoryview], flags: int) -> int:
    """Receive into pinned memory; return how many bytes came."""
    if len(views) <= 1:
        address, size = (address_of(views[0]), len(views[0])) if views else (None, 0)
        return _recvfrom(fd, address, size, flags, None, None)
    return receive_message(fd, views, flags, False, 0).size


def receive_message(fd: int, views: Sequence[memoryview], flags: int, named: bool, room: int) -> Received:
    """Receive one message with its source (`named`) and up to `room` bytes of ancillary data."""
    vector = create_string_buffer(_vector(views), len(views) * IOVEC.size or 1)
    source = create_string_buffer(n.SOCKADDR_STORAGE_SIZE)
    ancillary = create_string_buffer(room or 1)
    head = create_string_buffer(
        n.MSGHDR.pack(
            addressof(source) if named else 0,
            n.SOCKADDR_STORAGE_SIZE if named else 0,
            addressof(vector),
            len(views),
            addressof(ancillary) if room else 0,
            room,
            0,
        ),
        n.MSGHDR.size,
    )
    size = _recvmsg(fd, addressof(head), flags)
    _, length, _, _, _, used, answer = n.MSGHDR.unpack(head.raw)
    return Received(size, source.raw[: max(0, min(length, len(source)))], ancillary.raw[:used] if room else b"", answer)


def epoll_create() -> int:
    return _epoll_create1(n.EPOLL_CLOEXEC)


def epoll_ctl(fd: int, operation: int, target: int, event: bytes | None) -> None:
    """Change the interest in `target`; `event` is struct epoll_event."""
    _epoll_ctl(fd, operation, target, event)


def epoll_poll(fd: int, count: int) -> bytes:
    """Return up to `count` struct epoll_event that are there now."""
    buffer = create_string_buffer(count * n.EPOLL_EVENT.size)
    found = _epoll_wait(fd, addressof(buffer), count, 0)
    return buffer.raw[: found * n.EPOLL_EVENT.size]
