"""What an island has of its own: /dev, /sys, /tmp, /var, /run, an empty home, and the host's paths shown in it.

Runs after the pivot, so every path here is the island's and no symbolic link of a guest's root leads out.
"""

import os
import stat
from collections.abc import Sequence
from errno import EROFS

from enisle.abi import host
from enisle.errors import HostError, InvalidRequest
from enisle.island.configuration import Configuration
from enisle.island.rootfs import Trees, attach, clone, write_file
from enisle.island.view import Bind
from enisle.kernel import processors_of

NODES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
"""Memory devices, major 1 (Documentation/admin-guide/devices.txt)."""
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
DIRECTORIES = (
    ("/tmp", 0o1777),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/var", 0o755),
    ("/var/tmp", 0o1777),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/spool", 0o755),
    ("/home", 0o755),
    ("/mnt", 0o755),
    ("/srv", 0o755),
)
LINKS = (("/var/run", "/run"), ("/var/lock", "/run/lock"))


def clone_sources(binds: tuple[Bind, ...]) -> tuple[tuple[Bind, int], ...]:
    """Take hold of what is to be shown. Requires: nothing is mounted over the sources yet."""
    return tuple((bind, _clone_source(bind)) for bind in binds)


def clone_trees(binds: tuple[tuple[Bind, int], ...], shared_memory: str, user: bool) -> Trees:
    """Take hold of the rest that must outlive the host's root. Requires: not pivoted yet."""
    # mknod(2) needs the host's own CAP_MKNOD, so an ordinary user's island borrows the host's nodes.
    devices = tuple((name, _clone_device(name)) for name, _ in NODES) if user else ()
    flags = host.OPEN_TREE_CLONE | host.OPEN_TREE_CLOEXEC
    return Trees(binds, devices, host.open_tree(host.AT_FDCWD, shared_memory.encode(), flags))


def _clone_source(bind: Bind) -> int:
    try:
        return clone(bind.source, bind.writable)
    except OSError as error:
        raise InvalidRequest(f"cannot show {bind.source}", error.strerror or "", "check the path of --mount") from error


def _clone_device(name: str) -> int:
    flags = host.OPEN_TREE_CLONE | host.OPEN_TREE_CLOEXEC
    try:
        return host.open_tree(host.AT_FDCWD, f"/dev/{name}".encode(), flags)
    except OSError as error:
        raise HostError(f"cannot show /dev/{name}", error.strerror or "", "run as root") from error


def furnish(trees: Trees, configuration: Configuration, home: str) -> None:
    """Fill the new root. Requires: pivoted, umask 022."""
    for path, mode in (*DIRECTORIES, (home, 0o700)):
        _make_directory(path, mode)
    for path, target in (("/proc", "/proc"), *LINKS):
        if not os.path.lexists(path):
            os.symlink(target, path)  # /proc leads to itself: host lookups end in ELOOP, and our kernel serves the path
    _furnish_dev(trees)
    _furnish_sys(configuration.processors)
    if configuration.has_nodes:
        _furnish_nodes(configuration)
    for bind, tree in trees.binds:
        _show(bind, tree)


def _make_directory(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except FileExistsError:
        return


def _furnish_dev(trees: Trees) -> None:
    _make_directory("/dev", 0o755)
    host.mount(b"dev", b"/dev", b"tmpfs", host.MS_NOSUID | host.MS_NOEXEC, b"mode=755,size=1m,nr_inodes=4096")
    if trees.devices:
        for name, tree in trees.devices:
            write_file(f"/dev/{name}", "")
            attach(tree, f"/dev/{name}")
    else:
        for name, minor in NODES:
            os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
            os.chmod(f"/dev/{name}", 0o666)
    for name, target in DEVICE_LINKS:
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"/dev/{name}", 0o755)
    # Group tty (5) has no meaning where only our own ids are mapped.
    options = b"newinstance,ptmxmode=0666,mode=620" + (b"" if trees.devices else b",gid=5")
    host.mount(b"devpts", b"/dev/pts", b"devpts", host.MS_NOSUID | host.MS_NOEXEC, options)
    attach(trees.shared_memory, "/dev/shm")


def _furnish_sys(processors: int) -> None:
    cpus = "/sys/devices/system/cpu"
    os.makedirs(cpus, 0o755, exist_ok=True)
    every = f"0-{processors - 1}\n" if processors > 1 else "0\n"
    for name, text in (("online", every), ("possible", every), ("present", every), ("kernel_max", "255\n")):
        write_file(f"{cpus}/{name}", text, 0o444)
    for number in range(processors):
        _make_directory(f"{cpus}/cpu{number}", 0o755)
    os.makedirs("/sys/kernel/mm/transparent_hugepage", 0o755, exist_ok=True)
    write_file("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n", 0o444)
    write_file("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", f"{2 << 20}\n", 0o444)
    os.makedirs("/sys/fs/cgroup", 0o755, exist_ok=True)


def _furnish_nodes(configuration: Configuration) -> None:
    """Show the nodes as Linux does (Documentation/ABI/stable/sysfs-devices-node); distances as without a SLIT."""
    top, count = "/sys/devices/system/node", configuration.nodes
    nodes = [_bits(mask) for mask in processors_of(configuration.processors, count)]
    os.makedirs(top, 0o755, exist_ok=True)
    for name in ("online", "possible", "has_memory", "has_normal_memory"):
        write_file(f"{top}/{name}", f"{as_list(range(count))}\n", 0o444)
    with_processors = as_list([number for number, numbers in enumerate(nodes) if numbers])
    write_file(f"{top}/has_cpu", f"{with_processors}\n", 0o444)
    for number, processors in enumerate(nodes):
        place = f"{top}/node{number}"
        _make_directory(place, 0o755)
        texts = {
            "cpulist": as_list(processors),
            "cpumap": _as_map(processors),
            "distance": " ".join("10" if other == number else "20" for other in range(count)),
            "meminfo": f"Node {number} MemTotal:       {configuration.memory_limit // count >> 10} kB",
        }
        for name, text in texts.items():
            write_file(f"{place}/{name}", f"{text}\n", 0o444)
        for processor in processors:
            os.symlink(f"../../cpu/cpu{processor}", f"{place}/cpu{processor}")
            os.symlink(f"../../node/node{number}", f"/sys/devices/system/cpu/cpu{processor}/node{number}")


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def _as_map(numbers: Sequence[int]) -> str:
    """Return numbers as a bit map of 32-bit words, highest first."""
    mask = sum(1 << number for number in numbers)
    words = range(0, max(32, mask.bit_length()), 32)
    return ",".join(f"{mask >> shift & 0xFFFF_FFFF:08x}" for shift in reversed(words))


def as_list(numbers: Sequence[int]) -> str:
    """Return numbers as the kernel lists them: `0-2,5`."""
    parts: list[tuple[int, int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1] = parts[-1][0], number
        else:
            parts.append((number, number))
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def _show(bind: Bind, tree: int) -> None:
    directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    try:
        if directory:
            os.makedirs(bind.destination, 0o755, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(bind.destination), 0o755, exist_ok=True)
            os.close(os.open(bind.destination, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        attach(tree, bind.destination)
    except OSError as error:
        why = error.strerror or ""
        if error.errno == EROFS:
            why = "the place does not exist, and the directory it would be in is shown read-only"
        raise InvalidRequest(
            f"cannot show {bind.source} at {bind.destination}", why, "choose a place that exists or can be made"
        ) from error
