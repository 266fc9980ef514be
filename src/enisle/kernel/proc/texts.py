"""The text files of /proc/PID and /proc/PID/task/TID: a table of how each is shown and changed."""

from collections.abc import Callable
from errno import EACCES, EINVAL
from typing import TYPE_CHECKING

from enisle.errors import LinuxError
from enisle.kernel.proc import host, memory, status
from enisle.kernel.proc.descriptors import Subject
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

COMM_LENGTH = 15
OOM_ADJUSTMENTS = range(-1000, 1001)
UNSET_ID = b"4294967295"

Show = Callable[["Thread", Subject], bytes]
Change = Callable[["Thread", Subject, bytes], None]


class Entry(Record):
    """A text file of a process: how it is shown, changed, and whether only its user may read it."""

    show: Show
    change: Change | None
    private: bool


EVERYWHERE: dict[bytes, Entry] = {}
PROCESSES: dict[bytes, Entry] = {}
THREADS: dict[bytes, Entry] = {}


def shows(
    name: bytes, change: Change | None = None, private: bool = False, of: dict[bytes, Entry] = EVERYWHERE
) -> Callable[[Show], Show]:
    """Enter a text into the directories of processes and threads, or of one of both."""

    def enter(show: Show) -> Show:
        of[name] = Entry(show, change, private)
        return show

    return enter


# ---- changes ---------------------------------------------------------------------------------------------------------


def set_comm(viewer: "Thread", subject: Subject, text: bytes) -> None:
    if viewer.process is not subject.process:
        raise LinuxError(EINVAL)
    thread = subject.living()
    thread.name = text.split(b"\0", 1)[0].removesuffix(b"\n")[:COMM_LENGTH]
    if thread.is_leader:
        subject.process.name = thread.name


def set_adjustment(viewer: "Thread", subject: Subject, text: bytes) -> None:
    try:
        value = int(text.strip(b"\0\n\t "))
    except ValueError:
        raise LinuxError(EINVAL) from None
    if value not in OOM_ADJUSTMENTS:
        raise LinuxError(EINVAL)
    if value < subject.process.oom_score_adj and viewer.process.credentials.euid:
        raise LinuxError(EACCES)
    subject.process.oom_score_adj = value


def badness(subject: Subject) -> int:
    """Return how likely the process is to be killed for want of memory, 0 to 1999 (proc_oom_score)."""
    physical = subject.process.kernel.machine.memory
    size = status.sizes_of(subject.process.leader)
    points = size.resident + subject.process.oom_score_adj * physical.limit_frames // 1000
    return max(0, (1000 + points * 1000 // physical.limit_frames) * 2 // 3)


# ---- texts -----------------------------------------------------------------------------------------------------------


@shows(b"cmdline")
def cmdline(_viewer: "Thread", subject: Subject) -> bytes:
    """Return the arguments as they are in the process's memory now; nothing for a zombie."""
    if subject.process.zombie or not subject.process.leader:
        return b""
    mm = subject.living().mm
    (start, end), (_, environment_end) = mm.arguments, mm.environment
    text = mm.read(start, end - start)
    if text and text[-1:] != b"\0":  # setproctitle: it goes on into the environment (get_mm_cmdline)
        text = mm.read(start, environment_end - start).split(b"\0", 1)[0] + b"\0"
    return text


@shows(b"environ", private=True)
def environ(_viewer: "Thread", subject: Subject) -> bytes:
    mm = subject.living().mm
    start, end = mm.environment
    return mm.read(start, end - start)


@shows(b"comm", change=set_comm)
def comm(_viewer: "Thread", subject: Subject) -> bytes:
    return status.name_of(subject.process, subject.thread or subject.process.leader) + b"\n"


@shows(b"io", private=True)
def show_io(_viewer: "Thread", subject: Subject) -> bytes:
    """Return what the host counted for the threads there are; it includes what our kernel did for them."""
    kernel = subject.process.kernel
    threads = list(subject.process.threads.values()) if subject.whole else [subject.living()]
    names = (b"rchar", b"wchar", b"syscr", b"syscw", b"read_bytes", b"write_bytes", b"cancelled_write_bytes")
    total: dict[bytes, int] = dict.fromkeys(names, 0)
    for thread in threads:
        for name, value in host.thread_account(kernel, thread.host_thread, "io").items():
            total[name] = total.get(name, 0) + value
    return b"".join(b"%s: %d\n" % item for item in total.items())


@shows(b"status")
def show_status(_viewer: "Thread", subject: Subject) -> bytes:
    return status.status(subject.process, subject.thread or subject.process.leader)


@shows(b"stat")
def show_stat(_viewer: "Thread", subject: Subject) -> bytes:
    return status.stat(subject.process, subject.thread or subject.process.leader, subject.whole)


@shows(b"statm")
def show_statm(_viewer: "Thread", subject: Subject) -> bytes:
    thread = subject.thread or subject.process.leader
    return memory.statm(thread.mm) if thread and not subject.process.zombie else b"0 0 0 0 0 0 0\n"


@shows(b"children", of=THREADS)
def children_of(_viewer: "Thread", subject: Subject) -> bytes:
    with subject.process.kernel.lock:
        return b"".join(b"%d " % pid for pid in sorted(subject.process.children))


@shows(b"auxv", private=True)
def show_auxv(_viewer: "Thread", subject: Subject) -> bytes:
    return subject.living().mm.auxv


@shows(b"cgroup")
def show_cgroup(_viewer: "Thread", _subject: Subject) -> bytes:
    return b"0::/\n"


@shows(b"gid_map")
def show_gid_map(_viewer: "Thread", _subject: Subject) -> bytes:
    return b"%10d %10d %10d\n" % (0, 0, 0xFFFF_FFFF)


@shows(b"uid_map")
def show_uid_map(_viewer: "Thread", _subject: Subject) -> bytes:
    return b"%10d %10d %10d\n" % (0, 0, 0xFFFF_FFFF)


@shows(b"limits")
def show_limits(_viewer: "Thread", subject: Subject) -> bytes:
    return status.limits(subject.process)


@shows(b"loginuid")
def show_loginuid(_viewer: "Thread", _subject: Subject) -> bytes:
    return UNSET_ID


@shows(b"sessionid")
def show_sessionid(_viewer: "Thread", _subject: Subject) -> bytes:
    return UNSET_ID


@shows(b"maps", private=True)
def show_maps(viewer: "Thread", subject: Subject) -> bytes:
    return memory.maps(viewer, subject.living().mm)


@shows(b"smaps", private=True)
def show_smaps(viewer: "Thread", subject: Subject) -> bytes:
    return memory.smaps(viewer, subject.living().mm)


@shows(b"smaps_rollup", private=True)
def show_smaps_rollup(_viewer: "Thread", subject: Subject) -> bytes:
    return memory.smaps_rollup(subject.living().mm)


@shows(b"mountinfo")
def show_mountinfo(_viewer: "Thread", subject: Subject) -> bytes:
    return host.mountinfo(subject.process.kernel)


@shows(b"mounts")
def show_mounts(_viewer: "Thread", subject: Subject) -> bytes:
    return host.mounts(subject.process.kernel)


@shows(b"oom_adj")
def show_oom_adj(_viewer: "Thread", subject: Subject) -> bytes:
    return b"%d\n" % (subject.process.oom_score_adj * 17 // 1000)


@shows(b"oom_score")
def show_oom_score(_viewer: "Thread", subject: Subject) -> bytes:
    return b"%d\n" % badness(subject)


@shows(b"oom_score_adj", change=set_adjustment)
def show_oom_score_adj(_viewer: "Thread", subject: Subject) -> bytes:
    return b"%d\n" % subject.process.oom_score_adj


@shows(b"personality", private=True)
def show_personality(_viewer: "Thread", subject: Subject) -> bytes:
    return b"%08x\n" % subject.process.personality


@shows(b"setgroups")
def show_setgroups(_viewer: "Thread", _subject: Subject) -> bytes:
    return b"allow\n"


@shows(b"timerslack_ns", of=PROCESSES)
def show_timerslack_ns(_viewer: "Thread", subject: Subject) -> bytes:
    return b"%d\n" % subject.living().scheduling.timer_slack


@shows(b"wchan")
def show_wchan(_viewer: "Thread", _subject: Subject) -> bytes:
    return b"0"
