"""The kernel of one island: what all its processes share, and the door through which the island room drives it.

`lock` guards processes, threads and signals; address spaces and descriptor tables have locks of their own, taken
after it. No lock is held across a run of the guest or a wait.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from errno import EAGAIN
from typing import TYPE_CHECKING

from enisle.abi.types import Gpa, Gva, Pid
from enisle.errors import GuestError, LinuxError
from enisle.kernel import handlers, loader, memory_files, signals, vdso, vvar
from enisle.kernel.clock import Clock, HostTsc
from enisle.kernel.files import FdTable, FsContext
from enisle.kernel.futex import FutexTable
from enisle.kernel.mm import Mm
from enisle.kernel.poller import Poller
from enisle.kernel.process import Process, Session
from enisle.kernel.statistics import KernelStatistics, Totals
from enisle.kernel.stdio import adopt_stdio
from enisle.kernel.table import LONGEST
from enisle.kernel.thread import Thread
from enisle.kernel.timer_thread import TimerThread
from enisle.kernel.trees import Trees
from enisle.machine import VDSO, VVAR, Halt, Machine
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.call_filter import CallFilter
    from enisle.kernel.nodes import Nodes
    from enisle.kernel.paths import SyntheticNode
    from enisle.kernel.terminal import Terminal

SIGKILL = 9
PID_MAX, PID_RESERVED = 32768, 300
MESSAGES_KEPT = 100


class KernelConfig(Record):
    """What an island's kernel is told at its start. Sizes in bytes."""

    hostname: bytes = b"enisle"
    processes: int = 512
    """How many threads may exist at a time, and how many processes with those nobody has waited for."""
    processors: int = 1
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    """Of the programs that are started."""
    host_proc: int = -1
    """An O_PATH descriptor of the host's /proc/self from before the pivot; -1: there was none, /proc is the host's."""
    trace: Callable[[str], None] | None = None
    report: Callable[[str], None] | None = None
    """Told what the owner should know: a process killed for want of memory."""
    timing: bool = False
    """Measure the time spent in the guest (two clock reads per exit)."""


class ProcessRecord(Record):
    """One process as the island's owner sees it."""

    pid: int
    ppid: int
    state: str
    name: str
    threads: int


class Kernel:
    """Linux for one island."""

    def __init__(self, machine: Machine, config: KernelConfig | None = None) -> None:
        self.machine, self.config = machine, config or KernelConfig()
        self.trace, self.timing = self.config.trace, self.config.timing
        self.call_filter = self._make_call_filter()
        self.find = self.call_filter.find if self.call_filter else handlers.find
        """Finds the entry of a system call."""
        self.lock = threading.RLock()
        self.nodes = self._make_nodes()
        self.clock = self._make_clock()
        self.poller = Poller(self)
        memory_files.prepare()
        self.futexes = FutexTable()
        self.terminals: dict[int, Terminal] = {}
        self.synthetic: Mapping[bytes, SyntheticNode] | None = Trees(self)
        self.timer_thread = TimerThread(self.panic)
        self.hostname, self.domainname = self.config.hostname, b"(none)"
        self.boot_time = time.time()
        self.threads: dict[Pid, Thread] = {}
        self.processes_by_pid: dict[Pid, Process] = {}
        self.failure: BaseException | None = None
        self.messages: list[str] = []
        self._next_pid = 1
        self.totals = Totals()
        self._changed = threading.Condition(self.lock)
        self.init = self._make_init()

    def _make_call_filter(self) -> "CallFilter | None":
        value = self.machine.blocking
        if value is None or not value.refuses_calls:
            return None
        from enisle.kernel.call_filter import CallFilter

        return CallFilter(value)

    def _make_nodes(self) -> "Nodes | None":
        if not self.machine.replication:
            return None
        from enisle.kernel.nodes import Nodes

        return Nodes(self, self.machine.replication)

    @property
    def _may_read_counter(self) -> bool:
        """Whether RDTSC runs natively: the vDSO uses it then."""
        value = self.machine.blocking
        return value is None or "rdtsc" not in value.trapped()

    def _make_clock(self) -> Clock:
        """Put the vDSO and its page of clock parameters into every address space, and make the clock that feeds it."""
        parameters = self.machine.add_common_page(Gva(VVAR), b"", execute=False)
        self.machine.add_common_page(Gva(VDSO), vdso.image(self._may_read_counter), execute=True)
        memory = self.machine.memory

        def write(offset: int, content: bytes) -> None:
            memory.write(Gpa(parameters + offset), content)

        counter = self.machine.counter() if self._may_read_counter else None
        clock = Clock(HostTsc(counter.offset), counter.khz) if counter else Clock()
        clock.attach(vvar.Page(write, self.config.processors))
        return clock

    def _make_init(self) -> Process:
        init = Process(self, self.new_pid(), None, b"enisle")
        init.credentials.__init__(self.config.uid, self.config.gid)
        self.processes_by_pid[init.pid] = init
        return init

    def new_pid(self) -> Pid:
        """Return an unused id. Raises EAGAIN at the island's limits. Requires: lock (or start-up)."""
        limit = min(self.config.processes, PID_MAX // 2 - PID_RESERVED)
        if len(self.threads) >= limit or len(self.processes_by_pid) > limit:  # the kernel's own, pid 1, does not count
            raise LinuxError(EAGAIN)
        while self._next_pid in self.threads or self._next_pid in self.processes_by_pid:
            self._next_pid = self._next_pid + 1 if self._next_pid < PID_MAX else PID_RESERVED
        pid = self._next_pid
        self._next_pid = pid + 1 if pid < PID_MAX else PID_RESERVED
        return Pid(pid)

    # ---- the door --------------------------------------------------------------------------------------------------

    def start(
        self, argv: list[bytes], env: list[bytes], cwd: bytes, stdio: tuple[int, int, int], program: bytes = b""
    ) -> Process:
        """Start the program at path `program` (or argv[0]) in a session of its own.

        Raises LinuxError with the errno of what is wrong with it.
        """
        directory = os.open(cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fs = FsContext(directory, self.config.umask)
        mm = Mm(self.machine)
        files = FdTable()
        try:
            loaded = loader.load(mm, lambda path: open_program(fs, path), program or argv[0], argv, env)
            with self.lock:
                process = Process(self, self.new_pid(), self.init, loaded.name)
                process.session, process.pgid = Session(process.pid), process.pid
                adopt_stdio(process, files, stdio)
                thread = Thread(process, process.pid, mm, files, fs)
                self.add(process, thread)
        except BaseException:
            mm.release()
            files.release()
            fs.release()
            raise
        process.has_execed = process.started_from_outside = True
        thread.start(loaded.registers(), 0, None)
        return process

    def add(self, process: Process, thread: Thread) -> None:
        """Make a thread, and its process when that is new, known. Requires: lock."""
        self.totals.started += process.pid not in self.processes_by_pid
        self.processes_by_pid[process.pid] = process
        if process.parent:
            process.parent.children[process.pid] = process
        process.threads[thread.tid] = thread
        self.threads[thread.tid] = thread

    def wait(self, process: Process, timeout: float | None = None) -> int | None:
        """Wait for a started process's end or stop; return its wait status, None at the timeout. Raises GuestError."""
        with self._changed:
            self._changed.wait_for(lambda: process.zombie or process.wait_event or self.failure, timeout)
            if self.failure:
                hint = "run with --debug for the report"
                raise GuestError("the island died", repr(self.failure), hint) from self.failure
            if process.zombie:
                return process.status
            event, process.wait_event = process.wait_event, None
            return event

    def signal_terminal(self, signo: int) -> None:
        """Deliver a signal of the caller's terminal to the foreground group of each session there.

        A program started without a terminal is in the caller's foreground itself.
        """
        with self.lock:
            sessions = {process.session for process in self.processes_by_pid.values() if process.pid != 1}
            for session in sessions:
                leader = self.processes_by_pid.get(session.sid)
                if session.terminal.inherited if session.terminal else leader and leader.parent is self.init:
                    self.kill_group(session.foreground, signo)

    def signal_foreground(self, started: Process, signo: int) -> None:
        """Deliver a signal of a started program's own terminal to who is in front there."""
        with self.lock:
            if started.session.terminal:
                started.session.terminal.signal(signo)

    def kill_group(self, pgid: Pid, signo: int) -> int:
        """Send a signal from the kernel to a process group; return how many processes it has. Requires: lock."""
        members = [p for p in self.processes_by_pid.values() if p.pgid == pgid and not p.zombie and p.pid != 1]
        for process in members:
            signals.send_to_process(process, signo, signals.kernel_info(signo))
        return len(members)

    def kill(self, signo: int, started: Process | None = None) -> None:
        """Send a signal to every process, or to those of the session of one that was started."""
        with self.lock:
            for process in list(self.processes_by_pid.values()):
                chosen = started is None or process.session is started.session
                if chosen and process.pid != 1 and not process.zombie:
                    signals.send_to_process(process, signo, signals.kernel_info(signo))

    def window_changed(self) -> None:
        self.signal_terminal(28)  # SIGWINCH

    def shutdown(self, timeout: float = 5.0) -> None:
        """Kill every process and wait for its threads."""
        deadline = time.monotonic() + timeout
        while True:
            with self.lock:
                threads = list(self.threads.values())
                for thread in threads:
                    thread.process.exit_group(SIGKILL)
            if not threads or time.monotonic() > deadline:
                return
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))

    def processes(self) -> list[ProcessRecord]:
        """Return a record of every process there is."""
        with self.lock:
            return [
                ProcessRecord(p.pid, p.ppid, state_of(p), p.name.decode(errors="replace"), len(p.threads))
                for p in self.processes_by_pid.values()
                if p.pid != 1
            ]

    def statistics(self) -> KernelStatistics:
        """Return what the island has done so far."""
        with self.lock:
            return self.totals.record(self)

    # ---- what processes and threads tell ---------------------------------------------------------------------------

    def count_unknown(self, number: int) -> None:
        self.totals.unknown[min(number, LONGEST)] += 1

    def report(self, text: str) -> None:
        """Say something to the island's owner (what Linux would print to its log)."""
        self.messages.append(text)
        del self.messages[:-MESSAGES_KEPT]
        if self.config.report:
            self.config.report(text)

    def halted(self, thread: Thread, halt: Halt) -> None:
        """The machine under `thread` cannot go on: the island ends."""
        raise GuestError("the guest's machine stopped", halt.reason, f"in {thread.name!r}, thread {thread.tid}")

    def panic(self, error: BaseException) -> None:
        """A bug of ours, or a guest that broke its machine: end the island, keep the report."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def thread_gone(self, thread: Thread) -> None:
        with self.lock:
            self.threads.pop(thread.tid, None)
            self.totals.add(thread)
        self.machine.release_processor(thread.processor)

    def process_gone(self, process: Process) -> None:
        with self._changed:
            self._changed.notify_all()

    def adopt(self, child: Process) -> None:
        """Give an orphan a new parent: the nearest subreaper or the kernel. Requires: lock."""
        ancestor = child.parent
        while ancestor and (ancestor.zombie or not ancestor.child_subreaper) and ancestor.pid != 1:
            ancestor = ancestor.parent
        if child.parent_death_signal and not child.zombie:
            info = signals.kernel_info(child.parent_death_signal)
            signals.send_to_process(child, child.parent_death_signal, info)
        if child.parent:
            child.parent.children.pop(child.pid, None)
        child.parent = ancestor or self.init
        child.parent.children[child.pid] = child
        if child.zombie:
            child.announce_end()

    def forget(self, process: Process) -> None:
        """Requires: lock."""
        self.processes_by_pid.pop(process.pid, None)


def open_program(fs: FsContext, path: bytes) -> int:
    """Open the first program of a session, where there is no guest yet to resolve the path for."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=fs.cwd)


def state_of(process: Process) -> str:
    """Return the state letter of /proc/PID/stat."""
    if process.zombie:
        return "Z"
    if process.stopped:
        return "T"
    leader = process.leader
    return leader.state if leader else "X"
