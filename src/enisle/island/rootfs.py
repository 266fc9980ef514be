"""The island's root file system, of real mounts: then the host's kernel resolves guest paths, and nothing else exists.

Order: `stage` mounts a tmpfs over a directory of the host (in our name space alone) and layers the system directories
over it; `pivot` makes it the root and lets the host's go; `furnish` adds what an island has of its own.
Promises: nothing is left on the host, and what is written lands in one tmpfs of limited size.
Owned by the main thread before any other thread exists. Requires: umask 022, name spaces of its own.
"""

import os
import stat

from enisle.abi import host
from enisle.errors import HostError
from enisle.island.publish import copy_public
from enisle.island.view import SYSTEM, Bind
from enisle.records import Record

STAGES = ("/sys", "/mnt", "/media", "/srv")
"""Directories one of which every host has, and that we need nothing of once the tmpfs lies over it."""
NOBODY = 65534
SECRETS = ("shadow", "shadow-", "gshadow", "gshadow-", "sudoers", "sudoers.d")


class Layers(Record):
    """Where the parts of the tmpfs lie while it is being built."""

    root: str
    upper: str
    work: str
    empty: str
    shared_memory: str


class Trees(Record):
    """Detached mounts, cloned before the host's root is let go."""

    binds: tuple[tuple[Bind, int], ...]
    devices: tuple[tuple[str, int], ...]
    shared_memory: int


def stage(size: int) -> Layers:
    """Mount the tmpfs and make its parts."""
    place = next((path for path in STAGES if os.path.isdir(path)), None)
    if place is None:
        raise HostError("cannot build a root file system", f"none of {', '.join(STAGES)} exists", "mkdir /mnt")
    inodes = max(1 << 14, size >> 12)
    host.mount(b"enisle", place.encode(), b"tmpfs", host.MS_NODEV, f"mode=755,size={size},nr_inodes={inodes}".encode())
    layers = Layers(*(f"{place}/{name}" for name in Layers._fields))
    for path in layers:
        os.mkdir(path, 0o755)
    os.chmod(layers.shared_memory, 0o1777)
    return layers


def layer_system(layers: Layers, own_etc: dict[str, str], user: bool) -> list[str]:
    """Show the host's system directories with private writes; return notes about what had to be read-only.

    /usr and /opt are overlays. Of /etc root sees what any user of the host may read, whatever the guest's root may do.
    """
    host.mount(layers.root.encode(), layers.root.encode(), None, host.MS_BIND, None)
    notes: list[str] = []
    for path in SYSTEM:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(path), layers.root + path)
        elif path != "/etc" and not overlay(layers, path, path, user):
            _show_read_only(path, layers.root + path)
            notes.append(f"{path} is read-only here: this host cannot lay an overlay over it")
    _layer_etc(layers, own_etc, user)
    return notes


def layer_root(layers: Layers, directory: str, own_etc: dict[str, str], user: bool) -> None:
    """Use a directory as the whole root, with private writes."""
    upper = layers.upper + "/root"
    os.mkdir(upper, 0o755)
    os.symlink("/proc", upper + "/proc")
    if own_etc and stat.S_ISDIR(_mode(directory + "/etc")):
        os.mkdir(upper + "/etc", 0o755)
        _write_all(upper + "/etc", own_etc)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By number: a path may hold the colons and commas that separate an overlay's options.
        if not overlay(layers, f"/proc/self/fd/{descriptor}", "/root", user, place=layers.root):
            raise HostError(
                f"cannot use {directory} as a root",
                "this host cannot lay an overlay over it",
                "copy it to a local disk",
            )
    finally:
        os.close(descriptor)


def overlay(layers: Layers, lower: str, name: str, user: bool, place: str | None = None) -> bool:
    """Mount an overlay of `lower`; whether the host could."""
    place = place or layers.root + name
    upper, work = layers.upper + name, layers.work + name
    for path in (place, upper, work):
        if not os.path.isdir(path):
            os.mkdir(path, 0o755)
    # userxattr: in a user name space trusted.* attributes cannot be written (overlayfs.rst, 5.11).
    options = f"lowerdir={lower},upperdir={upper},workdir={work}" + (",userxattr" if user else "")
    try:
        host.mount(b"enisle", place.encode(), b"overlay", host.MS_NODEV, options.encode())
    except OSError:
        return False
    return True


def _layer_etc(layers: Layers, own: dict[str, str], user: bool) -> None:
    upper = layers.upper + "/etc"
    os.mkdir(upper, 0o755)
    _write_all(upper, own)
    for name in SECRETS:
        if name not in own:
            os.mknod(f"{upper}/{name}", stat.S_IFCHR, 0)  # overlayfs.rst: a 0/0 device hides the name below it
    lower = "/etc" if user else _as_nobody_sees(layers, "/etc")
    if lower is None or not overlay(layers, lower, "/etc", user):
        copy_public("/etc", layers.root + "/etc", hidden=SECRETS)
        _write_all(layers.root + "/etc", own)


def _as_nobody_sees(layers: Layers, directory: str) -> str | None:
    """Mount `directory` so that files any user may read can be read, and no others, by root neither.

    overlayfs opens the files below with the rights of who mounted it (overlayfs.rst, "Permission model"): here nobody,
    without the capabilities over files, which setfsuid takes from root (capabilities(7)).
    """
    place = layers.work + "/public"
    os.mkdir(place)
    host.setfsgid(NOBODY)
    host.setfsuid(NOBODY)
    try:
        options = f"lowerdir={layers.empty}:{directory}"
        host.mount(b"enisle", place.encode(), b"overlay", host.MS_RDONLY | host.MS_NODEV, options.encode())
    except OSError:
        return None
    finally:
        host.setfsuid(0)
        host.setfsgid(0)
    return place


def _show_read_only(path: str, place: str) -> None:
    tree = clone(path, writable=False)
    attach(tree, place)


def clone(path: str, writable: bool) -> int:
    """Return a detached copy of the mounts at `path`, without set-user-id programs and devices."""
    flags = host.OPEN_TREE_CLONE | host.OPEN_TREE_CLOEXEC | host.AT_RECURSIVE
    tree = host.open_tree(host.AT_FDCWD, os.fsencode(path), flags)
    attributes = host.MOUNT_ATTR_NOSUID | host.MOUNT_ATTR_NODEV | (0 if writable else host.MOUNT_ATTR_RDONLY)
    host.mount_setattr(tree, b"", host.AT_EMPTY_PATH | host.AT_RECURSIVE, attributes)
    return tree


def attach(tree: int, place: str) -> None:
    """Mount a detached copy at a place that exists, and close it."""
    try:
        host.move_mount(tree, b"", host.AT_FDCWD, os.fsencode(place), host.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def pivot(layers: Layers) -> None:
    """Make the built root the root of this process, and let the host's go."""
    os.chdir(layers.root)
    host.pivot_root(b".", b".")  # pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one
    host.umount2(b".", host.MNT_DETACH)
    os.chdir("/")


def _write_all(directory: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        write_file(f"{directory}/{name}", text)


def write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Create a small file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
