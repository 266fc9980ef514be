"""/proc/sys: settings a program may ask for. None can be changed from inside of an island."""

import os
from typing import TYPE_CHECKING

from enisle.kernel.calls.system import RELEASE, SYSNAME, VERSION
from enisle.kernel.proc.parts import DirectoryNode, ProcNode, Render, TextNode, constant

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel

FILE_MAX = (1 << 63) - 1
CONSTANTS = {
    "fs/aio-max-nr": "65536",
    "fs/file-max": str(FILE_MAX),
    "fs/inotify/max_queued_events": "16384",
    "fs/inotify/max_user_instances": "128",
    "fs/inotify/max_user_watches": "65536",
    "fs/nr_open": "1048576",
    "fs/pipe-max-size": "1048576",
    "fs/pipe-user-pages-soft": "16384",
    "kernel/cap_last_cap": "40",
    "kernel/core_pattern": "core",
    "kernel/core_uses_pid": "0",
    "kernel/msgmax": "8192",
    "kernel/msgmnb": "16384",
    "kernel/msgmni": "32000",
    "kernel/ngroups_max": "65536",
    "kernel/osrelease": RELEASE.decode(),
    "kernel/ostype": SYSNAME.decode(),
    "kernel/overflowgid": "65534",
    "kernel/overflowuid": "65534",
    "kernel/perf_event_paranoid": "4",
    "kernel/pid_max": "32768",
    "kernel/random/entropy_avail": "256",
    "kernel/random/poolsize": "256",
    "kernel/random/urandom_min_reseed_secs": "60",
    "kernel/random/write_wakeup_threshold": "256",
    "kernel/randomize_va_space": "2",
    "kernel/sched_rr_timeslice_ms": "100",
    "kernel/sem": "32000\t1024000000\t500\t32000",
    "kernel/shmall": "18446744073692774399",
    "kernel/shmmax": "18446744073692774399",
    "kernel/shmmni": "4096",
    "kernel/tainted": "0",
    "kernel/version": VERSION.decode(),
    "net/core/somaxconn": "4096",
    "vm/max_map_count": "65530",
    "vm/mmap_min_addr": "65536",
    "vm/nr_hugepages": "0",
    "vm/overcommit_memory": "0",
    "vm/overcommit_ratio": "50",
    "vm/swappiness": "60",
}


def make_tree(kernel: "Kernel") -> DirectoryNode:
    """Return /proc/sys of one kernel."""
    boot_id = uuid()
    texts: dict[str, Render] = {path: constant(text.encode() + b"\n") for path, text in CONSTANTS.items()}
    texts |= {
        "fs/file-nr": lambda _: b"%d\t0\t%d\n" % (count_files(kernel), FILE_MAX),
        "kernel/domainname": lambda _: kernel.domainname + b"\n",
        "kernel/hostname": lambda _: kernel.hostname + b"\n",
        "kernel/random/boot_id": constant(boot_id + b"\n"),
        "kernel/random/uuid": lambda _: uuid() + b"\n",
        "kernel/threads-max": constant(b"%d\n" % kernel.config.processes),
    }
    return directory(b"sys", texts)


def directory(name: bytes, texts: dict[str, Render]) -> DirectoryNode:
    """Return a directory of texts by their paths beneath it."""
    below: dict[str, dict[str, Render]] = {}
    nodes: list[ProcNode] = []
    for path, render in sorted(texts.items()):
        first, _, rest = path.partition("/")
        if rest:
            below.setdefault(first, {})[rest] = render
        else:
            nodes.append(TextNode(first.encode(), render))
    return DirectoryNode(name, [*(directory(first.encode(), rest) for first, rest in below.items()), *nodes])


def uuid() -> bytes:
    """Return a random UUID (RFC 4122, version 4) as text."""
    raw = bytearray(os.urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()


def count_files(kernel: "Kernel") -> int:
    """Return how many descriptors all processes have open."""
    with kernel.lock:
        tables = {id(thread.files): thread.files for thread in kernel.threads.values()}
    return sum(sum(1 for _ in table.items()) for table in tables.values())
