"""The processes and threads of a guest, read from its task list by discovered offsets.

Promises: bounded; a list that is damaged is told as incomplete with the reason, and what was read before stays.
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from enisle.introspect.lists import walk_list
from enisle.introspect.memory import Unmapped
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

NEEDED = ("tasks", "pid", "tgid", "comm", "real_parent")
MOST_THREADS = 100_000
EXITING, KERNEL_THREAD = 0x4, 0x0020_0000
"""PF_EXITING, PF_KTHREAD (include/linux/sched.h)."""
_STATES = ((0x402, "I"), (0x1, "S"), (0x2, "D"), (0x4, "T"), (0x8, "t"), (0x40, "P"), (0x1000, "D"), (0x8000, "D"))


class Thread(Record):
    """One thread: what the kernel calls a task."""

    tid: int
    comm: str
    state: str
    address: int


class Credentials(Record):
    """The ids of a task; None where the offset is not known."""

    uid: int | None = None
    gid: int | None = None
    euid: int | None = None
    egid: int | None = None
    fsuid: int | None = None


class Process(Record):
    """One thread group."""

    pid: int
    ppid: int
    tgid: int
    uid: int | None
    comm: str
    state: str
    threads: tuple[Thread, ...]
    credentials: Credentials
    kernel_thread: bool
    address: int


class ProcessList(Record):
    """The processes found, and why the list is not whole (empty: it is)."""

    processes: tuple[Process, ...]
    incomplete: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.incomplete


class TaskReader:
    """Reads tasks of one kernel by its facts."""

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.space = kernel.space
        value = kernel.facts.value
        self.offsets = {
            name: value(f"task_struct.{name}")
            for name in (*NEEDED, "state", "flags", "mm", "signal", "thread_node", "cred", "children", "sibling")
        }
        self.missing = [name for name in NEEDED if self.offsets[name] is None]
        self._head = value("signal_struct.thread_head")
        self._ids = {name: value(f"cred.{name}") for name in Credentials._fields}
        self.span = 16 + max((offset for offset in self.offsets.values() if offset is not None), default=0)
        self._creds: dict[int, Credentials] = {}

    def offset(self, name: str) -> int:
        offset = self.offsets[name]
        assert offset is not None, f"{name=} is needed and was checked"
        return offset

    def process(self, task: int) -> Process:
        """Return the process a task leads. Raises Unmapped."""
        words = self.space.read(task, self.span)
        pid, tgid = self._u32(words, "pid"), self._u32(words, "tgid")
        parent = self._u64(words, "real_parent")
        credentials = self.credentials(words)
        flags = self._u32(words, "flags") if self.offsets["flags"] is not None else 0
        return Process(
            pid=pid,
            ppid=self.space.u32(parent + self.offset("tgid")),
            tgid=tgid,
            uid=credentials.uid,
            comm=self._comm(words),
            state=self._state(words),
            threads=tuple(self.threads(task, words)),
            credentials=credentials,
            kernel_thread=bool(flags & KERNEL_THREAD),
            address=task,
        )

    def thread(self, task: int) -> Thread:
        """Return one thread. Raises Unmapped."""
        words = self.space.read(task, self.span)
        return Thread(self._u32(words, "pid"), self._comm(words), self._state(words), task)

    def threads(self, task: int, words: bytes) -> Iterator[Thread]:
        """Yield the threads of the group that `task` leads, itself first. Raises Unmapped."""
        node = self.offsets["thread_node"]
        if node is None or self._head is None or self.offsets["signal"] is None:
            yield Thread(self._u32(words, "pid"), self._comm(words), self._state(words), task)
            return
        walk = walk_list(self.space, self._u64(words, "signal") + self._head, most=MOST_THREADS)
        if not walk.complete:
            raise Unmapped(task)
        for member in walk.nodes:
            yield self.thread(member - node)

    def credentials(self, words: bytes) -> Credentials:
        """Return the ids of the task whose memory is `words`."""
        if self.offsets["cred"] is None:
            return Credentials()
        pointer = self._u64(words, "cred")
        if pointer not in self._creds:
            found = {
                name: self.space.u32(pointer + offset) if offset is not None else None
                for name, offset in self._ids.items()
            }
            self._creds[pointer] = Credentials(**found)
        return self._creds[pointer]

    def _u32(self, words: bytes, name: str) -> int:
        return struct.unpack_from("<I", words, self.offset(name))[0]

    def _u64(self, words: bytes, name: str) -> int:
        return struct.unpack_from("<Q", words, self.offset(name))[0]

    def _comm(self, words: bytes) -> str:
        start = self.offset("comm")
        return words[start : start + 16].partition(b"\0")[0].decode("utf-8", "replace")

    def _state(self, words: bytes) -> str:
        """Return the letter /proc shows (fs/proc/array.c)."""
        if self.offsets["state"] is None:
            return "?"
        flags = self._u32(words, "flags") if self.offsets["flags"] is not None else 0
        if flags & EXITING and self.offsets["mm"] is not None and not self._u64(words, "mm"):
            return "Z"
        state = self._u32(words, "state")
        if not state:
            return "R"
        return next((letter for bits, letter in _STATES if state & bits == bits), "?")


def list_processes(kernel: "Kernel") -> ProcessList:
    """Return all processes but the idle task, in the list's order."""
    reader = TaskReader(kernel)
    if reader.missing or not kernel.init_task:
        unknown = ", ".join(reader.missing) or "init_task"
        return ProcessList((), (f"cannot list processes: {unknown} not found",))
    offset = reader.offset("tasks")
    walk = walk_list(kernel.space, kernel.init_task + offset)
    processes: list[Process] = []
    troubles = [walk.broken] if walk.broken else []
    for node in walk.nodes:
        try:
            processes.append(reader.process(node - offset))
        except Unmapped as fault:
            troubles.append(f"the task at {node - offset:#x} cannot be read: {fault}")
    return ProcessList(tuple(processes), tuple(troubles[:20]))


def family(kernel: "Kernel", most: int = 200_000) -> tuple[dict[int, int], list[str]]:
    """Return {task: leader or 0} reached through children from init_task, and what was broken on the way.

    The tree does not use the task list: a task missing there is found here. A thread of a group has its own children.
    """
    reader = TaskReader(kernel)
    if reader.missing or None in (reader.offsets["children"], reader.offsets["sibling"]) or not kernel.init_task:
        return {}, ["the tree of children cannot be walked: offsets not found"]
    children, sibling = reader.offset("children"), reader.offset("sibling")
    found: dict[int, int] = {kernel.init_task: 0}
    work = [kernel.init_task]
    troubles: list[str] = []
    while work and len(found) < most:
        task = work.pop()
        walk = walk_list(kernel.space, task + children, most=most)
        if walk.broken:
            troubles.append(f"children of {task:#x}: {walk.broken}")
        for member in [node - sibling for node in walk.nodes] + _other_threads(reader, task):
            if member not in found:
                found[member] = task
                work.append(member)
    return found, troubles[:20]


def _other_threads(reader: TaskReader, task: int) -> list[int]:
    """Return the threads of a task's group other than itself."""
    try:
        words = reader.space.read(task, reader.span)
        return [thread.address for thread in reader.threads(task, words) if thread.address != task]
    except Unmapped:
        return []
