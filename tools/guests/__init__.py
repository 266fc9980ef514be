"""Real Linux guests for tests and benchmarks: Debian's kernels, an initial RAM file system, a crowd of processes.

    kernel = guests.get("6.1-cloud")           # fetched once, checked against its pinned SHA-256, cached
    initrd = guests.initramfs(kernel)          # static busybox, a few modules, an init that answers commands

Nothing is installed and no root is needed. The mirror is the one this machine's apt uses.
"""

from guests.initramfs import initramfs, module_order
from guests.kernels import Kernel, get, kernel_directory
from guests.manifest import Build, Entry, Package, Part, read_manifest, read_parts
from guests.oracle import Oracle, read_console, read_oracle
from guests.parts import find_part, get_part

__all__ = [
    "Build",
    "Entry",
    "Kernel",
    "Oracle",
    "Package",
    "Part",
    "find_part",
    "get",
    "get_part",
    "initramfs",
    "kernel_directory",
    "module_order",
    "read_console",
    "read_manifest",
    "read_oracle",
    "read_parts",
]
