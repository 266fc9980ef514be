"""socket(2) and what is done to a socket as a whole: names, connections, options."""

import os
from errno import EAFNOSUPPORT, EAGAIN, EALREADY, EINPROGRESS, EINVAL, ENOPROTOOPT, EOPNOTSUPP, EPROTONOSUPPORT, ERANGE
from typing import TYPE_CHECKING

from enisle.abi import host_socket
from enisle.abi import linux_socket as n
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel import unix_names
from enisle.kernel.files import POLLIN, POLLOUT
from enisle.kernel.limits import RLIMIT_NOFILE
from enisle.kernel.sockets import SocketFile, hold_socket, install, read_address, require_room, write_address
from enisle.kernel.table import Int, Support, syscall

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

FAMILIES = (n.AF_UNIX, n.AF_INET, n.AF_INET6, n.AF_NETLINK)
TYPE_FLAGS = n.SOCK_NONBLOCK | n.SOCK_CLOEXEC
LEVELS = (n.SOL_IP, n.SOL_SOCKET, n.SOL_TCP, n.SOL_UDP, n.SOL_IPV6, n.SOL_ICMPV6, n.SOL_RAW, n.SOL_NETLINK)
NO_LEVEL = 9999
OPTION_MAX = 1 << 16
FILTER_MAX = 4096
"""Instructions of a classic BPF program (BPF_MAXINSNS)."""
TIMEOUTS = {
    n.SO_RCVTIMEO: POLLIN,
    n.SO_RCVTIMEO_NEW: POLLIN,
    n.SO_SNDTIMEO: POLLOUT,
    n.SO_SNDTIMEO_NEW: POLLOUT,
}
REFUSED = {
    (n.SOL_SOCKET, n.SO_ATTACH_BPF): EINVAL,
    (n.SOL_SOCKET, n.SO_ATTACH_REUSEPORT_EBPF): EINVAL,
    (n.SOL_SOCKET, n.SO_ZEROCOPY): EOPNOTSUPP,
    (n.SOL_SOCKET, n.SO_PEERPIDFD): ENOPROTOOPT,
    (n.SOL_SOCKET, n.SO_PASSPIDFD): ENOPROTOOPT,
    (n.SOL_TCP, n.TCP_ULP): EOPNOTSUPP,
    (n.SOL_TCP, n.TCP_ZEROCOPY_RECEIVE): ENOPROTOOPT,
}
"""Options that would hand the host our own pointers or descriptors, or that outlive a call."""
FILTERS = (n.SO_ATTACH_FILTER, n.SO_ATTACH_REUSEPORT_CBPF)


def check_kind(family: int, kind: int, protocol: int) -> None:
    if kind & ~n.SOCK_TYPE_MASK & ~TYPE_FLAGS:
        raise LinuxError(EINVAL)
    if family not in FAMILIES:
        raise LinuxError(EAFNOSUPPORT)
    if family == n.AF_NETLINK and protocol != n.NETLINK_ROUTE:
        raise LinuxError(EPROTONOSUPPORT)


@syscall(41, Support.PARTIAL, note="AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK ROUTE")
def sys_socket(thread: "Thread", family: Int, kind: Int, protocol: Int) -> int:
    check_kind(family, kind, protocol)
    thread.files.require_room(thread.process.limits.soft(RLIMIT_NOFILE))
    require_room(thread, 1)
    plain = kind & n.SOCK_TYPE_MASK
    file = SocketFile(host_socket.socket(family, plain, protocol), family, plain, protocol, kind)
    return install(thread, file, kind)


@syscall(53, Support.FULL)
def sys_socketpair(thread: "Thread", family: Int, kind: Int, protocol: Int, pair: Gva) -> None:
    check_kind(family, kind, protocol)
    require_room(thread, 2)
    plain = kind & n.SOCK_TYPE_MASK
    one, two = (SocketFile(fd, family, plain, protocol, kind) for fd in host_socket.socketpair(family, plain, protocol))
    unix_names.pair(thread, one, two)
    first = install(thread, one, kind)
    try:
        second = install(thread, two, kind)
    except LinuxError:
        thread.files.close(first)
        raise
    try:
        thread.mm.write(pair, first.to_bytes(4, "little") + second.to_bytes(4, "little"))
    except LinuxError:
        thread.files.close(first)
        thread.files.close(second)
        raise


@syscall(49, Support.FULL)
def sys_bind(thread: "Thread", fd: Fd, address: Gva, size: Int) -> None:
    file = hold_socket(thread, fd)
    try:
        name = read_address(thread, address, size)
        if file.family == n.AF_UNIX:
            unix_names.bind(thread, file, name)
        else:
            host_socket.bind(file.fd, name)
    finally:
        file.drop()


@syscall(50, Support.FULL)
def sys_listen(thread: "Thread", fd: Fd, backlog: Int) -> None:
    file = hold_socket(thread, fd)
    try:
        unix_names.listen(thread, file, backlog)
    finally:
        file.drop()


@syscall(43, Support.FULL)
def sys_accept(thread: "Thread", fd: Fd, address: Gva, size_at: Gva) -> int:
    return accept(thread, fd, address, size_at, 0)


@syscall(288, Support.FULL)
def sys_accept4(thread: "Thread", fd: Fd, address: Gva, size_at: Gva, flags: Int) -> int:
    return accept(thread, fd, address, size_at, flags)


def accept(thread: "Thread", fd: int, address: int, size_at: int, flags: int) -> int:
    if flags & ~TYPE_FLAGS:
        raise LinuxError(EINVAL)
    listener = hold_socket(thread, fd)
    try:
        thread.files.require_room(thread.process.limits.soft(RLIMIT_NOFILE))
        file = accept_file(thread, listener)
    finally:
        listener.drop()
    file.flags |= flags & os.O_NONBLOCK
    file.timeouts = dict(listener.timeouts)  # sk_clone_lock copies them
    if address:
        try:
            write_address(thread, peer_name(file), address, size_at)
        except (LinuxError, OSError):
            file.close()
            raise
    return install(thread, file, flags)


def accept_file(thread: "Thread", listener: SocketFile) -> SocketFile:
    require_room(thread, 1)
    deadline = listener.deadline(POLLIN)
    while True:
        try:
            if listener.family == n.AF_UNIX:
                return unix_names.accept(listener)
            return SocketFile(host_socket.accept(listener.fd), listener.family, listener.type, listener.protocol)
        except BlockingIOError:
            listener.wait(thread, POLLIN, deadline)


@syscall(42, Support.FULL)
def sys_connect(thread: "Thread", fd: Fd, address: Gva, size: Int) -> None:
    file = hold_socket(thread, fd)
    try:
        connect(thread, file, read_address(thread, address, size))
    finally:
        file.drop()


def connect(thread: "Thread", file: SocketFile, name: bytes) -> None:
    """Connect, waiting for the other side as long as SO_SNDTIMEO allows."""
    deadline = file.deadline(POLLOUT)
    unix = file.family == n.AF_UNIX and name[:2] == unix_names.UNIX
    while True:
        try:
            if unix:
                unix_names.connect(thread, file, name)
            else:
                host_socket.connect(file.fd, name)
                unix_names.disconnect(file)
            return
        except OSError as error:
            # EAGAIN: a full queue of an AF_UNIX listener. The others: asking again later gives the outcome.
            if error.errno not in (EAGAIN, EINPROGRESS, EALREADY) or file.flags & os.O_NONBLOCK:
                raise
            pending = error.errno
        try:
            file.wait(thread, POLLOUT, deadline)
        except LinuxError as error:
            raise LinuxError(EINPROGRESS) if error.errno == EAGAIN != pending else error from None


@syscall(48, Support.FULL)
def sys_shutdown(thread: "Thread", fd: Fd, how: Int) -> None:
    file = hold_socket(thread, fd)
    try:
        host_socket.shutdown(file.fd, how)
    finally:
        file.drop()


def peer_name(file: SocketFile) -> bytes:
    """Return the other end's address as the guest knows it."""
    name = host_socket.getpeername(file.fd)
    other = file.peer() if file.family == n.AF_UNIX and file.peer else None
    return other.name if other and other.name and len(name) > n.SUN_PATH_OFFSET else name


@syscall(51, Support.FULL)
def sys_getsockname(thread: "Thread", fd: Fd, address: Gva, size_at: Gva) -> None:
    file = hold_socket(thread, fd)
    try:
        write_address(thread, file.name or host_socket.getsockname(file.fd), address, size_at)
    finally:
        file.drop()


@syscall(52, Support.FULL)
def sys_getpeername(thread: "Thread", fd: Fd, address: Gva, size_at: Gva) -> None:
    file = hold_socket(thread, fd)
    try:
        write_address(thread, peer_name(file), address, size_at)
    finally:
        file.drop()


@syscall(54, Support.PARTIAL, note="options of the families there are; no eBPF, no MSG_ZEROCOPY, no upper layers")
def sys_setsockopt(thread: "Thread", fd: Fd, level: Int, name: Int, value: Gva, size: Int) -> None:
    file = hold_socket(thread, fd)
    try:
        if size < 0:
            raise LinuxError(EINVAL)
        host_level = check_option(level, name)
        if level == n.SOL_SOCKET and name in FILTERS:
            attach_filter(thread, file, name, value, size)
            return
        content = thread.mm.read(value, min(size, OPTION_MAX))
        host_socket.setsockopt(file.fd, host_level, name, content)
        if level == n.SOL_SOCKET and name in TIMEOUTS:
            set_timeout(file, TIMEOUTS[name], content)
    finally:
        file.drop()


def check_option(level: int, name: int) -> int:
    """Return the level to ask the host about: one nobody has for those the guest may not reach."""
    if (level, name) in REFUSED:
        raise LinuxError(REFUSED[level, name])
    return level if level in LEVELS else NO_LEVEL


def set_timeout(file: SocketFile, events: int, value: bytes) -> None:
    """Note a timeout the host has accepted; nothing and less mean for ever and not at all (sock_set_timeout)."""
    seconds, micros = n.TIMEVAL.unpack_from(value)
    if seconds < 0:
        file.timeouts[events] = 0.0
    else:
        file.timeouts[events] = seconds + micros / 1e6 if seconds or micros else None


def attach_filter(thread: "Thread", file: SocketFile, name: int, value: int, size: int) -> None:
    if size != n.SOCK_FPROG.size:
        raise LinuxError(EINVAL)
    count, address = n.SOCK_FPROG.unpack(thread.mm.read(value, size))
    if not 0 < count <= FILTER_MAX:
        raise LinuxError(EINVAL)
    host_socket.setsockopt_filter(file.fd, name, thread.mm.read(address, 8 * count))


@syscall(55, Support.PARTIAL, note="options of the families there are")
def sys_getsockopt(thread: "Thread", fd: Fd, level: Int, name: Int, value: Gva, size_at: Gva) -> None:
    file = hold_socket(thread, fd)
    try:
        room = int.from_bytes(thread.mm.read(size_at, 4), "little", signed=True)
        if room < 0:
            raise LinuxError(EINVAL)
        host_level = check_option(level, name)
        if (level, name) == (n.SOL_SOCKET, n.SO_PEERCRED):
            answer = file.peer_credentials.pack()[:room]
        elif (level, name) == (n.SOL_SOCKET, n.SO_PEERGROUPS):
            answer = peer_groups(thread, file, room, size_at)
        else:
            answer = host_socket.getsockopt(file.fd, host_level, name, thread.mm.read(value, min(room, OPTION_MAX)))
        thread.mm.write(value, answer)
        thread.mm.write_u32(size_at, len(answer))
    finally:
        file.drop()


def peer_groups(thread: "Thread", file: SocketFile, room: int, size_at: int) -> bytes:
    groups = b"".join(group.to_bytes(4, "little") for group in file.peer_credentials.groups)
    if len(groups) > room:
        thread.mm.write_u32(size_at, len(groups))
        raise LinuxError(ERANGE)
    return groups
