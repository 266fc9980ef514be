"""Files of /proc about the island as a whole: its processors, memory, time, versions.

The numbers are the island's own: the limit of its memory, what its processes used, when it began. Any guest thread.
"""

import time
from typing import TYPE_CHECKING

from enisle.abi.linux_time import CLOCK_BOOTTIME, NS, TICKS_PER_SECOND
from enisle.abi.types import PAGE
from enisle.kernel.calls.system import RELEASE, SYSNAME, VERSION
from enisle.kernel.proc import host, sysctl
from enisle.kernel.proc.parts import LinkNode, ProcNode, TextNode, constant

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.thread import Thread
    from enisle.machine import Queries

TICK_NS = NS // TICKS_PER_SECOND
KIB = 1024
OWN_LINES = ("processor", "physical id", "siblings", "core id", "cpu cores", "apicid", "initial apicid")
FILE_SYSTEMS = (b"tmpfs", b"proc", b"devpts", b"overlay")
DEVICES = b"""Character devices:
  1 mem
  5 /dev/tty
  5 /dev/ptmx
136 pts

Block devices:
"""


E = 2.718281828459045
"""Euler's number; `math` is a library of its own, which would have to be loaded for this alone."""


def blocked_cpuinfo(block: str, queries: "Queries") -> str:
    """Return one processor of /proc/cpuinfo with what its blocking value lets it say of itself."""
    told = queries.cpuinfo()
    lines: list[str] = []
    for line in block.splitlines():
        name, separator, _ = line.partition(":")
        lines.append(f"{name}{separator} {told[name.strip()]}" if name.strip() in told else line)
    return "\n".join(lines)


class LoadAverage:
    """How many threads wanted a processor, averaged over 1, 5 and 15 minutes as kernel/sched/loadavg.c decays them."""

    MINUTES = (1, 5, 15)

    def __init__(self) -> None:
        self._seen: tuple[float, float] | None = None
        self.loads = (0.0, 0.0, 0.0)

    def update(self, now: float, used: float) -> tuple[float, ...]:
        """Take the time and all processor time used until then, in seconds; return the averages."""
        if self._seen:
            elapsed = now - self._seen[0]
            if elapsed < 1.0:
                return self.loads
            running = max(0.0, used - self._seen[1]) / elapsed
            one, five, fifteen = (
                load * (decay := E ** (-elapsed / (60 * minutes))) + running * (1 - decay)
                for load, minutes in zip(self.loads, self.MINUTES, strict=True)
            )
            self.loads = (one, five, fifteen)
        self._seen = (now, used)
        return self.loads


class System:
    """What the texts are made from, for one kernel."""

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.load = LoadAverage()
        self._block: bytes | None = None

    # ---- time and processors -------------------------------------------------------------------------------------

    def uptime_ns(self) -> int:
        return self.kernel.clock.now_ns(CLOCK_BOOTTIME)

    def age_ns(self) -> int:
        """Return how long the island has run, in nanoseconds."""
        return max(1, int((time.time() - self.kernel.boot_time) * NS))

    def used_ns(self) -> tuple[int, int]:
        """Return user and system time of all processes there are and were waited for, in nanoseconds."""
        user = system = 0
        with self.kernel.lock:
            for process in self.kernel.processes_by_pid.values():
                usage = process.timers.usage
                for part in (usage.time(), usage.children):
                    user, system = user + part.user, system + part.system
        return user, system

    def uptime(self, _thread: "Thread") -> bytes:
        idle = max(0, self.age_ns() * self.kernel.config.processors - sum(self.used_ns()))
        return b"%.2f %.2f\n" % (self.uptime_ns() / NS, idle / NS)

    def loadavg(self, _thread: "Thread") -> bytes:
        one, five, fifteen = self.load.update(time.monotonic(), sum(self.used_ns()) / NS)
        threads = list(self.kernel.threads.values())
        running = sum(not thread.waiter.asleep for thread in threads)
        last = max(self.kernel.processes_by_pid, default=1)
        return b"%.2f %.2f %.2f %d/%d %d\n" % (one, five, fifteen, running, len(threads), last)

    def stat(self, _thread: "Thread") -> bytes:
        count = self.kernel.config.processors
        user, system = (value // TICK_NS for value in self.used_ns())
        idle = max(0, self.age_ns() // TICK_NS * count - user - system)
        lines = [b"cpu  %d 0 %d %d 0 0 0 0 0 0\n" % (user, system, idle)]
        share = (user // count, system // count, idle // count)
        lines += [b"cpu%d %d 0 %d %d 0 0 0 0 0 0\n" % (number, *share) for number in range(count)]
        statistics = self.kernel.statistics()
        running = sum(not thread.waiter.asleep for thread in list(self.kernel.threads.values()))
        lines.append(b"intr 0\nctxt %d\nbtime %d\n" % (statistics.syscalls, self.boot_time()))
        lines.append(b"processes %d\n" % statistics.processes_started)
        lines.append(b"procs_running %d\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n" % running)
        return b"".join(lines)

    def boot_time(self) -> int:
        """Return when the clock of the island was 0, in seconds of the calendar."""
        return int(time.time() - self.uptime_ns() / NS)

    def cpuinfo(self, _thread: "Thread") -> bytes:
        """Return the host's first processor once for each of the island's."""
        if self._block is None:
            self._block = host.find(self.kernel, "../cpuinfo").split(b"\n\n", 1)[0]
            queries = self.kernel.machine.queries
            if queries:
                self._block = blocked_cpuinfo(self._block.decode(), queries).encode()
        count = self.kernel.config.processors
        return b"".join(self._processor(self._block.decode(), number, count) for number in range(count))

    @staticmethod
    def _processor(block: str, number: int, count: int) -> bytes:
        own = dict(zip(OWN_LINES, (number, 0, count, number, count, number, number), strict=True))
        lines: list[str] = []
        for line in block.splitlines():
            name, separator, _ = line.partition(":")
            key = name.strip()
            lines.append(f"{name}{separator} {own[key]}" if key in own else line)
        return ("\n".join(lines) + "\n\n").encode()

    # ---- memory --------------------------------------------------------------------------------------------------

    def meminfo(self, _thread: "Thread") -> bytes:
        memory = self.kernel.machine.memory
        total, free = memory.limit_frames, max(0, memory.limit_frames - memory.used_frames)
        tables = self.kernel.machine.statistics().page_tables
        pages = {
            "MemTotal": total, "MemFree": free, "MemAvailable": free, "Buffers": 0, "Cached": 0, "SwapCached": 0,
            "Active": memory.used_frames, "Inactive": 0, "Active(anon)": memory.used_frames, "Inactive(anon)": 0,
            "Active(file)": 0, "Inactive(file)": 0, "Unevictable": 0, "Mlocked": 0, "SwapTotal": 0, "SwapFree": 0,
            "Dirty": 0, "Writeback": 0, "AnonPages": memory.used_frames, "Mapped": memory.window_frames, "Shmem": 0,
            "KReclaimable": 0, "Slab": 0, "SReclaimable": 0, "SUnreclaim": 0, "KernelStack": 0, "PageTables": tables,
            "NFS_Unstable": 0, "Bounce": 0, "WritebackTmp": 0, "CommitLimit": total, "Committed_AS": memory.used_frames,
            "VmallocTotal": (1 << 47) // PAGE, "VmallocUsed": 0, "VmallocChunk": 0, "Percpu": 0, "AnonHugePages": 0,
        }  # fmt: skip
        lines = [f"{name + ':':<16}{count * PAGE // KIB:>8} kB\n" for name, count in pages.items()]
        lines += [f"{name + ':':<16}{0:>8}\n" for name in ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd")]
        lines += [
            f"{'HugePages_Surp:':<16}{0:>8}\n",
            f"{'Hugepagesize:':<16}{2048:>8} kB\n",
            f"{'Hugetlb:':<16}{0:>8} kB\n",
        ]
        return "".join(lines).encode()

    def vmstat(self, _thread: "Thread") -> bytes:
        memory = self.kernel.machine.memory
        statistics = self.kernel.statistics()
        free = max(0, memory.limit_frames - memory.used_frames)
        values = {
            "nr_free_pages": free,
            "nr_anon_pages": memory.used_frames,
            "nr_mapped": memory.window_frames,
            "nr_page_table_pages": self.kernel.machine.statistics().page_tables,
            "pgfault": statistics.faults,
            "pswpin": 0,
            "pswpout": 0,
        }
        return b"".join(b"%s %d\n" % (name.encode(), value) for name, value in values.items())

    # ---- all of it -----------------------------------------------------------------------------------------------

    def nodes(self) -> list[ProcNode]:
        """Return the entries of /proc that are about no process."""
        return [
            TextNode(b"cmdline", constant(b"enisle\n")),
            TextNode(b"cpuinfo", self.cpuinfo),
            TextNode(b"devices", constant(DEVICES)),
            TextNode(b"filesystems", constant(b"".join(b"nodev\t%s\n" % name for name in FILE_SYSTEMS))),
            TextNode(b"loadavg", self.loadavg),
            TextNode(b"meminfo", self.meminfo),
            LinkNode(b"mounts", constant(b"self/mounts")),
            LinkNode(b"net", constant(b"self/net")),
            TextNode(b"stat", self.stat),
            TextNode(b"swaps", constant(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
            sysctl.make_tree(self.kernel),
            TextNode(b"uptime", self.uptime),
            TextNode(b"version", constant(b"%s version %s (enisle) %s\n" % (SYSNAME, RELEASE, VERSION))),
            TextNode(b"vmstat", self.vmstat),
        ]
