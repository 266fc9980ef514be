"""/proc/PID/{stat,status,limits}: formats of fs/proc/array.c and fs/proc/base.c of Linux 6.1."""

from typing import TYPE_CHECKING

from enisle.abi.linux_time import NS, TICKS_PER_SECOND
from enisle.abi.types import PAGE
from enisle.abi.x86 import RIP, RSP
from enisle.kernel import signals
from enisle.kernel.cputime import thread_time
from enisle.kernel.limits import RLIM_INFINITY, RLIMIT_RSS, RLIMIT_SIGPENDING, RLIMITS
from enisle.kernel.proc import host, memory
from enisle.kernel.proc.memory import NOTHING, Sizes

if TYPE_CHECKING:
    from enisle.kernel.process import Process
    from enisle.kernel.thread import Thread

TICK_NS = NS // TICKS_PER_SECOND
STATES = {"R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "Z": "zombie", "X": "dead"}
PF_FORKNOEXEC = 0x40
COMM_LENGTH = 15
NOBODY_FOREGROUND = -1
LIMIT_NAMES = (
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
)
assert len(LIMIT_NAMES) == RLIMITS


def state_of(process: "Process", thread: "Thread | None") -> str:
    """Return the state letter of a thread, or of a process without one."""
    if process.zombie:
        return "Z"
    if thread is None:
        return "S"  # the kernel's own process, which waits for all others
    if process.stopped:
        return "T"
    return "S" if thread.waiter.asleep else thread.state


def name_of(process: "Process", thread: "Thread | None") -> bytes:
    return (thread.name if thread else process.name)[:COMM_LENGTH]


def sizes_of(thread: "Thread | None") -> Sizes:
    return memory.sizes(thread.mm) if thread else NOTHING


def clock_ticks(process: "Process", thread: "Thread | None", whole: bool) -> tuple[int, int, int, int]:
    """Return utime, stime, cutime and cstime."""
    usage = process.timers.usage
    with process.kernel.lock:
        own = usage.time() if whole or thread is None else thread_time(thread)
    children = usage.children
    return own.user // TICK_NS, own.system // TICK_NS, children.user // TICK_NS, children.system // TICK_NS


def terminal_of(process: "Process") -> tuple[int, int]:
    """Return the number of the controlling terminal and its foreground group."""
    terminal = process.session.terminal
    if terminal is None:
        return 0, NOBODY_FOREGROUND
    device = int(getattr(terminal, "device", 0))
    return (device & 0xFF) | (device >> 8 & 0xFFF) << 8, process.session.foreground


def stat(process: "Process", thread: "Thread | None", whole: bool) -> bytes:
    """Return the line of `stat`; `whole`: of the process rather than of one thread."""
    mm, size = (thread.mm, sizes_of(thread)) if thread else (None, NOTHING)
    tty, foreground = terminal_of(process)
    ignored, caught = process.handlers.masks()
    nice = thread.scheduling.nice if thread else 0
    blocked = thread.blocked if thread else 0
    low = 0x7FFF_FFFF
    start = int(process.started * TICKS_PER_SECOND)
    fields: list[int | bytes] = [
        process.ppid, process.pgid, process.session.sid, tty, foreground, 0 if process.has_execed else PF_FORKNOEXEC,
        mm.faults if mm else 0, 0, 0, 0, *clock_ticks(process, thread, whole), 20 + nice, nice,
        len(process.threads), 0, start, size.total * PAGE, size.resident, process.limits.soft(RLIMIT_RSS),
    ]  # fmt: skip
    if mm and thread:
        stopped = process.stopped
        fields += [mm.start_code, mm.end_code, mm.start_stack]
        fields += [thread.gpr[RSP], thread.gpr[RIP]] if stopped else [0, 0]
    else:
        fields += [0] * 5
    pending = (thread.pending.mask if thread else 0) & low
    fields += [pending, blocked & low, ignored & low, caught & low, 0, 0, 0, process.exit_signal if whole else -1]
    fields += [0, thread.scheduling.priority if thread else 0, thread.scheduling.policy if thread else 0, 0, 0, 0]
    if mm:
        fields += [mm.start_data, mm.end_data, mm.start_brk, *mm.arguments, *mm.environment]
    else:
        fields += [0] * 7
    fields.append((process.status or 0) if process.zombie else 0)
    number = thread.tid if thread and not whole else process.pid
    head = b"%d (%s) %s " % (number, name_of(process, thread), state_of(process, thread).encode())
    return head + " ".join(map(str, fields)).encode() + b"\n"


def status(process: "Process", thread: "Thread | None") -> bytes:
    lines = [*identity_lines(process, thread)]
    if thread and not process.zombie:
        lines += memory_lines(thread)
    lines += [*signal_lines(process, thread), *rights_lines(process, thread)]
    return "".join(f"{name}:\t{value}\n" for name, value in lines).encode("utf-8", "surrogateescape")


def identity_lines(process: "Process", thread: "Thread | None") -> list[tuple[str, object]]:
    who = process.credentials
    number = thread.tid if thread else process.pid
    state = state_of(process, thread)
    name = name_of(process, thread).decode("utf-8", "surrogateescape").replace("\\", "\\\\").replace("\n", "\\n")
    lines: list[tuple[str, object]] = [("Name", name)]
    if thread:
        lines.append(("Umask", f"{thread.fs.umask:04o}"))
    groups = "".join(f"{group} " for group in who.groups) or " "
    descriptors = max([64, *(1 << fd.bit_length() for fd, _ in thread.files.items())]) if thread else 0
    return [
        *lines,
        ("State", f"{state} ({STATES.get(state, 'running')})"),
        ("Tgid", process.pid),
        ("Ngid", 0),
        ("Pid", number),
        ("PPid", process.ppid),
        ("TracerPid", 0),
        ("Uid", f"{who.uid}\t{who.euid}\t{who.suid}\t{who.fsuid}"),
        ("Gid", f"{who.gid}\t{who.egid}\t{who.sgid}\t{who.fsgid}"),
        ("FDSize", descriptors),
        ("Groups", groups),
        ("NStgid", process.pid),
        ("NSpid", number),
        ("NSpgid", process.pgid),
        ("NSsid", process.session.sid),
    ]


def memory_lines(thread: "Thread") -> list[tuple[str, object]]:
    size, tables = sizes_of(thread), thread.mm.space.table_count
    pages = (
        ("VmPeak", size.total), ("VmSize", size.total), ("VmLck", size.locked), ("VmPin", 0), ("VmHWM", size.resident),
        ("VmRSS", size.resident), ("RssAnon", size.resident_anonymous), ("RssFile", size.resident_file),
        ("RssShmem", size.resident_shared), ("VmData", size.data), ("VmStk", size.stack), ("VmExe", size.executable),
        ("VmLib", size.library), ("VmPTE", tables), ("VmSwap", 0), ("HugetlbPages", 0),
    )  # fmt: skip
    lines: list[tuple[str, object]] = [(name, f"{count * PAGE // 1024:8d} kB") for name, count in pages]
    return [*lines, ("CoreDumping", 0), ("THP_enabled", int(not thread.mm.no_huge_pages))]


def signal_lines(process: "Process", thread: "Thread | None") -> list[tuple[str, object]]:
    ignored, caught = process.handlers.masks()
    most = process.limits.soft(RLIMIT_SIGPENDING)
    masks = (
        ("SigPnd", thread.pending.mask if thread else 0),
        ("ShdPnd", process.pending.mask),
        ("SigBlk", thread.blocked if thread else 0),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    )
    lines: list[tuple[str, object]] = [(name, f"{mask:016x}") for name, mask in masks]
    return [("Threads", len(process.threads)), ("SigQ", f"{signals.count_queued(process)}/{most}"), *lines]


def rights_lines(process: "Process", thread: "Thread | None") -> list[tuple[str, object]]:
    who = process.credentials
    count = process.kernel.config.processors
    allowed = thread.scheduling.processors(count) if thread else (1 << count) - 1
    sets = (
        ("CapInh", who.inheritable),
        ("CapPrm", who.permitted),
        ("CapEff", who.effective),
        ("CapBnd", who.bounding),
        ("CapAmb", who.ambient),
    )
    lines: list[tuple[str, object]] = [(name, f"{mask:016x}") for name, mask in sets]
    switches = host.thread_account(process.kernel, thread.host_thread if thread else 0, "status")
    return [
        *lines,
        ("NoNewPrivs", int(process.no_new_privileges)),
        ("Seccomp", 0),
        ("Seccomp_filters", 0),
        ("Speculation_Store_Bypass", "unknown"),
        ("SpeculationIndirectBranch", "unknown"),
        ("Cpus_allowed", f"{allowed:x}"),
        ("Cpus_allowed_list", ranges(allowed)),
        ("Mems_allowed", "1"),
        ("Mems_allowed_list", "0"),
        *((name, switches.get(name.encode(), 0)) for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")),
    ]


def ranges(mask: int) -> str:
    """Return a mask as a list of ranges: 0b10111 is 0-2,4."""
    parts: list[str] = []
    number = 0
    while mask >> number:
        if mask >> number & 1:
            first = number
            while mask >> (number + 1) & 1:
                number += 1
            parts.append(str(first) if first == number else f"{first}-{number}")
        number += 1
    return ",".join(parts)


def limits(process: "Process") -> bytes:
    lines = [f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"]
    for (name, unit), pair in zip(LIMIT_NAMES, process.limits.pairs, strict=True):
        soft, hard = ("unlimited" if value == RLIM_INFINITY else str(value) for value in pair)
        lines.append(f"{name:<25} {soft:<20} {hard:<20} {unit:<10}\n")
    return "".join(lines).encode()
