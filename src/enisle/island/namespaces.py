"""Name spaces of its own for this process: mounts, network, IPC, host name, and a user name space unless it is root.

Promises: nothing done to mounts or interfaces afterwards is seen by the host; the ids of files and processes stay the
host's (the mapping is the identity). Owned by the main thread before any other thread exists.
"""

import os
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM
from _socket import socket as Socket
from errno import EINVAL, ENOSPC, EPERM, EUSERS
from fcntl import ioctl
from struct import pack, unpack_from

from enisle.abi import host
from enisle.errors import HostError

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

# Where distributions forbid user name spaces to ordinary users: (file, value that forbids, what to type).
_LOCKS = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=15000"),
)


def enter_namespaces(private_network: bool) -> None:
    """Move this process into new name spaces. Requires: it has one thread.

    Raises HostError with the setting to change when the host forbids them.
    """
    flags = host.CLONE_NEWNS | host.CLONE_NEWIPC | host.CLONE_NEWUTS
    if private_network:
        flags |= host.CLONE_NEWNET
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0:
            host.unshare(flags)
        else:
            host.unshare(flags | host.CLONE_NEWUSER)
            _map_identity(uid, gid)
        # Mounts made by the host later must not appear here, nor ours there.
        host.mount(None, b"/", None, host.MS_REC | host.MS_PRIVATE, None)
    except OSError as error:
        raise HostError("cannot isolate the island", *_explain(error, uid == 0)) from error
    if private_network:
        raise_loopback()


def _map_identity(uid: int, gid: int) -> None:
    # user_namespaces(7): an unprivileged process may map its own ids alone, and must give up setgroups first.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def forbidden_by() -> tuple[str, str] | None:
    """Return (setting, command that lifts it) of what forbids user name spaces here, or None."""
    for path, forbidding, remedy in _LOCKS:
        try:
            with open(path) as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"{path} is {value}", remedy
    return None


def _explain(error: OSError, root: bool) -> tuple[str, str]:
    what = f"{error.filename or 'opening /proc/self/uid_map'}: {error.strerror}"
    if root:
        return what, "root lacks CAP_SYS_ADMIN here; in a container, start it privileged or run as an ordinary user"
    if error.errno == EINVAL:
        return what, "the kernel was built without user name spaces; run as root"
    lock = forbidden_by()
    if lock:
        return f"{what}; {lock[0]}", f"{lock[1]}, or run as root"
    if error.errno in (ENOSPC, EUSERS):
        return f"{what}: the limit of name spaces is reached", "sudo sysctl user.max_user_namespaces=15000"
    if error.errno == EPERM:
        return f"{what}; the host forbids user name spaces to ordinary users", "allow them, or run as root"
    return what, "run `enisle doctor` to see what this host can do"


def raise_loopback() -> None:
    """Bring `lo` up in this network name space: netdevice(7)."""
    control = Socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        request = ioctl(control.fileno(), SIOCGIFFLAGS, pack("16sh22x", b"lo", 0))
        flags: int = unpack_from("h", request, 16)[0]
        ioctl(control.fileno(), SIOCSIFFLAGS, pack("16sh22x", b"lo", flags | IFF_UP))
    finally:
        control.close()
