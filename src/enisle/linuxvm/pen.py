"""The way of QEMU into its pen: name spaces of its own, a root of read-only system directories, no rights, no network.

Runs in the guardian's forked child, the first process of a process-id name space, which becomes QEMU. Promises: QEMU
sees the system's programs and libraries, /dev/null, /dev/zero, /dev/urandom, /dev/kvm if it is to use it, its own /proc
and its pen; it runs as a user that owns nothing else; what can be denied further is denied by its seccomp sandbox.
"""

import os
import resource
import signal
import stat
from collections.abc import Sequence

from enisle.abi import host

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin")
DEVICES = ("null", "zero", "urandom")
PLACE = "/vm"
MOST_FILES = 4096


def enter_process_space() -> None:
    """Give the next child of this process a process-id name space (in a user name space of our own unless root)."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        host.unshare(host.CLONE_NEWPID)
        return
    host.unshare(host.CLONE_NEWUSER | host.CLONE_NEWPID)
    # user_namespaces(7): an unprivileged process may map its own ids alone, and must give up setgroups first.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def enter(pen: str, program: str, user: int, kvm: bool) -> None:
    """Move this process, which is to become `program`, into the pen for good. Raises OSError."""
    host.prctl(host.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    host.unshare(host.CLONE_NEWNS | host.CLONE_NEWNET | host.CLONE_NEWIPC | host.CLONE_NEWUTS)
    host.mount(None, b"/", None, host.MS_REC | host.MS_PRIVATE, None)
    top = "/" + os.path.realpath(program).split("/")[1]  # /usr, or where else somebody keeps QEMU
    _build_root(pen, tuple(dict.fromkeys((*SYSTEM, top))), user, kvm)
    give_up_rights(user)


def _build_root(pen: str, system: tuple[str, ...], user: int, kvm: bool) -> None:
    trees = [(path, _clone(path)) for path in system if os.path.isdir(path) and not os.path.islink(path)]
    links = [(path, os.readlink(path)) for path in system if os.path.islink(path)]
    trees.append((PLACE, _clone(pen, writable=True)))
    host.mount(b"enisle", pen.encode(), b"tmpfs", host.MS_NOSUID, b"mode=755,size=1m")
    os.chdir(pen)
    for path, tree in trees:
        os.mkdir(f".{path}", 0o755)
        _attach(tree, f".{path}")
    for path, target in links:
        os.symlink(target, f".{path}")
    _make_devices((*DEVICES, "kvm") if kvm else DEVICES, user)
    os.mkdir("proc", 0o755)
    try:
        host.mount(b"proc", b"proc", b"proc", host.MS_NOSUID | host.MS_NODEV | host.MS_NOEXEC, None)
    except PermissionError:
        # In a container whose own /proc is partly covered an ordinary user may mount none: show that one.
        _attach(_clone("/proc"), "./proc")
    host.pivot_root(b".", b".")  # pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one
    host.umount2(b".", host.MNT_DETACH)
    host.mount(None, b"/", None, 0x20 | host.MS_RDONLY | host.MS_NOSUID, None)  # MS_REMOUNT
    os.chdir(PLACE)


def _make_devices(names: Sequence[str], user: int) -> None:
    os.mkdir("dev", 0o755)
    for name in names:
        if os.geteuid() == 0:
            os.mknod(f"dev/{name}", stat.S_IFCHR | 0o600, os.stat(f"/dev/{name}").st_rdev)
            os.chown(f"dev/{name}", user, user)
        else:  # mknod(2) is not for an ordinary user: borrow the host's node
            os.close(os.open(f"dev/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
            flags = host.OPEN_TREE_CLONE | host.OPEN_TREE_CLOEXEC
            _attach(host.open_tree(host.AT_FDCWD, f"/dev/{name}".encode(), flags), f"dev/{name}")


def _clone(path: str, writable: bool = False) -> int:
    flags = host.OPEN_TREE_CLONE | host.OPEN_TREE_CLOEXEC | host.AT_RECURSIVE
    tree = host.open_tree(host.AT_FDCWD, os.fsencode(path), flags)
    attributes = host.MOUNT_ATTR_NOSUID | host.MOUNT_ATTR_NODEV
    attributes |= host.MOUNT_ATTR_NOEXEC if writable else host.MOUNT_ATTR_RDONLY
    host.mount_setattr(tree, b"", host.AT_EMPTY_PATH | host.AT_RECURSIVE, attributes)
    return tree


def _attach(tree: int, place: str) -> None:
    host.move_mount(tree, b"", host.AT_FDCWD, place.encode(), host.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


def give_up_rights(user: int) -> None:
    """Become an ordinary user without any capability, now and after any execve."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.umask(0o077)
    if os.geteuid() == 0:
        for capability in range(64):
            try:
                host.prctl(host.PR_CAPBSET_DROP, capability, 0, 0, 0)
            except OSError:
                break  # beyond the last this kernel knows
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    else:
        host.capset(0, 0, 0)
    host.prctl(host.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    host.prctl(host.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user clears it: prctl(2)
