"""What /proc shows of the host: this process's own mounts, network and thread accounts, without what lies behind them.

Read through a descriptor of the host's /proc/self from before the pivot. Any guest thread.
"""

import os
from typing import TYPE_CHECKING

from enisle.kernel.paths import host_proc

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel

PIECE = 1 << 16
NETWORK = (
    b"arp", b"dev", b"dev_mcast", b"icmp", b"icmp6", b"if_inet6", b"igmp", b"igmp6", b"ipv6_route", b"netlink",
    b"netstat", b"packet", b"protocols", b"psched", b"ptype", b"raw", b"raw6", b"route", b"snmp", b"snmp6", b"sockstat",
    b"sockstat6", b"tcp", b"tcp6", b"udp", b"udp6", b"udplite", b"udplite6", b"unix", b"wireless",
)  # fmt: skip
"""Files of /proc/net that are about this network name space alone."""


def read(kernel: "Kernel", path: str) -> bytes:
    """Return a file of the host's /proc, named from /proc/self. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=host_proc(kernel))
    try:
        pieces: list[bytes] = []
        while piece := os.read(fd, PIECE):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def find(kernel: "Kernel", path: str) -> bytes:
    """Return a file of the host's /proc, or nothing where the host has none."""
    try:
        return read(kernel, path)
    except OSError:
        return b""


def mountinfo(kernel: "Kernel") -> bytes:
    """Return the island's mounts as /proc/PID/mountinfo lists them, with its own /proc.

    Where a mount comes from and how it was made is not shown: only what a program can use.
    """
    lines: list[bytes] = []
    for line in find(kernel, "mountinfo").splitlines():
        words = line.split(b" ")
        separator = words.index(b"-")
        number, parent, device, place, options = words[0], words[1], words[2], words[4], words[5]
        if place == b"/proc" or place.startswith(b"/proc/"):
            continue
        kind = words[separator + 1]
        own = b"rw" if words[separator + 3].startswith(b"rw") else b"ro"
        lines.append(b" ".join((number, parent, device, b"/", place, options, b"-", kind, source_of(kind), own)))
    lines.sort(key=lambda line: line.split(b" ")[4] != b"/")  # the root first, as programs expect
    top = next((line.split(b" ")[0] for line in lines if line.split(b" ")[4] == b"/"), b"1")
    highest = max((int(line.split(b" ", 1)[0]) for line in lines), default=1)
    lines.append(b"%d %s 0:20 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw" % (highest + 1, top))
    return b"".join(line + b"\n" for line in lines)


def source_of(kind: bytes) -> bytes:
    """Return the device column of a mount: the type itself, as for file systems without a device."""
    return kind if kind in (b"tmpfs", b"devpts", b"overlay", b"proc", b"sysfs", b"mqueue") else b"none"


def mounts(kernel: "Kernel") -> bytes:
    """Return the same as /proc/PID/mounts lists it (fstab(5))."""
    lines: list[bytes] = []
    for line in mountinfo(kernel).splitlines():
        words = line.split(b" ")
        separator = words.index(b"-")
        kind, source, own = words[separator + 1 : separator + 4]
        options = words[5] if own == b"rw" or words[5].startswith(b"ro") else b"ro" + words[5][2:]
        lines.append(b" ".join((source, words[4], kind, options, b"0", b"0")) + b"\n")
    return b"".join(lines)


def thread_account(kernel: "Kernel", native_id: int, name: str) -> dict[bytes, int]:
    """Return the numbers the host keeps for one of our threads in a file such as `io` or `status`."""
    counts: dict[bytes, int] = {}
    for line in find(kernel, f"task/{native_id}/{name}").splitlines() if native_id else ():
        key, _, value = line.partition(b":")
        if value.strip().isdigit():
            counts[key] = int(value)
    return counts


def network_files(kernel: "Kernel") -> tuple[bytes, ...]:
    """Return which files of /proc/net there are."""
    try:
        fd = os.open("net", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=host_proc(kernel))
    except OSError:
        return ()
    try:
        there = {name.encode() for name in os.listdir(fd)}
    finally:
        os.close(fd)
    return tuple(name for name in NETWORK if name in there)
