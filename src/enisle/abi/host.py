"""Thin typed calls of the host's libc: arguments in, an integer out, OSError(errno, …, name of the call) on failure.

Only calls that Python's `os` does not offer (in 3.11). No policy, no state; any thread may call; the GIL is released.
"""

from collections.abc import Callable
from ctypes import CDLL, Structure, byref, c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p
from ctypes import get_errno as _get_errno
from os import strerror
from typing import Any

_LIBC = CDLL(None, use_errno=True)


def libc_call(name: str, *arguments: Any, result: Any = c_int) -> Callable[..., int]:
    """Declare a libc function that answers -1 and sets errno on failure."""
    function: Any = _LIBC[name]
    function.argtypes = arguments
    function.restype = result

    def check(value: int, _function: object, _arguments: object) -> int:
        if value == -1:
            errno = _get_errno()
            raise OSError(errno, strerror(errno), name)
        return value

    function.errcheck = check
    return function


def system_call(number: int, name: str, *arguments: Any) -> Callable[..., int]:
    """Declare a system call that libc does not wrap everywhere."""
    function: Any = _LIBC["syscall"]
    function.argtypes = (c_long, *arguments)
    function.restype = c_long

    def call(*values: Any) -> int:
        value = function(number, *values)
        if value == -1:
            errno = _get_errno()
            raise OSError(errno, strerror(errno), name)
        return value

    return call


def load_library(name: str) -> bool:
    """Load a shared library for good; whether there is one of that name."""
    try:
        CDLL(name)
    except OSError:
        return False
    return True


# namespaces(7)
CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
unshare = libc_call("unshare", c_int)
setfsuid = libc_call("setfsuid", c_uint)
setfsgid = libc_call("setfsgid", c_uint)

# mount(2), pivot_root(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 0x1000, 0x4000, 0x4_0000, 0x20_0000
MNT_DETACH = 2
mount = libc_call("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
umount2 = libc_call("umount2", c_char_p, c_int)
pivot_root = system_call(155, "pivot_root", c_char_p, c_char_p)

# open_tree(2), move_mount(2), mount_setattr(2): bind mounts without a path in between
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, 0x8_0000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8


class mount_attr(Structure):
    _fields_ = [("attr_set", c_uint64), ("attr_clr", c_uint64), ("propagation", c_uint64), ("userns_fd", c_uint64)]


open_tree = system_call(428, "open_tree", c_int, c_char_p, c_uint)
move_mount = system_call(429, "move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)
_mount_setattr = system_call(442, "mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_size_t)


def mount_setattr(tree: int, path: bytes, flags: int, attr_set: int) -> None:
    """Add `MOUNT_ATTR_…` bits to a mount, or with AT_RECURSIVE to all mounts below it."""
    attributes = mount_attr(attr_set=attr_set)
    _mount_setattr(tree, path, flags, byref(attributes), 32)


# prctl(2), capabilities(7)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_DROP = 1, 15, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
prctl = libc_call("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capset = libc_call("capset", c_char_p, c_char_p)


_capget = libc_call("capget", c_char_p, c_void_p)


def capget() -> tuple[int, int, int]:
    """Return the calling thread's effective, permitted and inheritable capabilities."""
    words = (c_uint * 6)()
    _capget((0x2008_0522).to_bytes(4, "little") + bytes(4), byref(words))
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability sets (bit n is capability n)."""
    low = 0xFFFF_FFFF
    words = (effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32)
    header = (0x2008_0522).to_bytes(4, "little") + bytes(4)  # _LINUX_CAPABILITY_VERSION_3, pid 0: this thread
    _capset(header, b"".join(word.to_bytes(4, "little") for word in words))


# seccomp(2)
SECCOMP_SET_MODE_FILTER = 1


class sock_fprog(Structure):
    _fields_ = [("len", c_uint64), ("filter", c_char_p)]


_seccomp = system_call(317, "seccomp", c_uint, c_uint, c_void_p)


def seccomp_filter(program: bytes, flags: int = 0) -> None:
    """Install a filter of 8-byte BPF instructions. Requires: no_new_privs is set."""
    assert len(program) % 8 == 0, f"{len(program)=}"
    _seccomp(SECCOMP_SET_MODE_FILTER, flags, byref(sock_fprog(len=len(program) // 8, filter=program)))


# fallocate(2)
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
fallocate = libc_call("fallocate", c_int, c_int, c_long, c_long)

# tgkill(2)
tgkill = libc_call("tgkill", c_int, c_int, c_int)
