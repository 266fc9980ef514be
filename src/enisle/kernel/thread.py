"""A guest thread: a host thread that owns one virtual processor and serves its exits.

The loop is the exit way of the house: run the guest, take what came up, serve it, run again. Everything that must
happen before the guest goes on (signals, stops, exit) is announced by `work`.
"""

import threading
import time
from collections import Counter
from errno import EAGAIN, EFAULT, ENOMEM, ENOSYS
from typing import TYPE_CHECKING

from enisle.abi.linux import ERESTARTSYS, MAX_ERRNO
from enisle.abi.types import Pid
from enisle.abi.x86 import GPR_COUNT, RAX, RIP
from enisle.errors import HostError, LinuxError
from enisle.kernel import faults, signals
from enisle.kernel.files import FdTable, FsContext
from enisle.kernel.mm import Mm
from enisle.kernel.scheduling import Scheduling
from enisle.kernel.table import U64, KeepRegisters
from enisle.kernel.wait import Waiter, deadline_after, remaining
from enisle.machine import (
    SYSCALL,
    BusError,
    CallSlot,
    Exit,
    Halt,
    Interrupted,
    OutOfMemory,
    PageFault,
    Processor,
    ProcessorException,
    Registers,
)

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.nodes import MemoryPolicy
    from enisle.kernel.process import Process

NO_SYSCALL = -1


class ThreadExit(BaseException):
    """Unwinds a guest thread whose end is decided."""


class Thread:
    """One guest thread (`struct task_struct`)."""

    def __init__(self, process: "Process", tid: Pid, mm: Mm, files: FdTable, fs: FsContext) -> None:
        self.kernel: Kernel = process.kernel
        self.process, self.tid = process, tid
        self.mm, self.files, self.fs = mm, files, fs
        self.name = process.name
        self.waiter = Waiter()
        self.work = bool(process.stopped)
        """Something must be done before the guest runs on; set by `notify`."""
        self.dying = False
        """The thread ends at its next look at `work` (exit_group, execve of a sibling)."""
        self.blocked = 0
        """Blocked signals as a mask: bit n-1 is signal n."""
        self.real_blocked = 0
        """What stays blocked for senders while sigtimedwait waits for it."""
        self.restore_mask: int | None = None
        """The mask to put back when a call that changed it for its wait is over (sigsuspend, ppoll …)."""
        self.pending = signals.PendingSignals()
        self.altstack = signals.AltStack()
        self.last_trap = signals.Trap()
        self.original_rax = NO_SYSCALL
        """The number of the call being served, for restarts."""
        self.restart: signals.RestartBlock | None = None
        self.scheduling = Scheduling()
        self.clear_child_tid = 0
        self.robust_list = 0
        self.state = "R"
        """As /proc/PID/stat prints it."""
        self.syscalls = 0
        self.exits: Counter[str] = Counter()
        """Exits but for system calls, by their kind."""
        self.in_guest = False
        self.slot: CallSlot | None = None
        """The call slot, once the thread has been seen to call often."""
        self.answered: int | None = None
        """A result the poller found, that must pass the exit door because signals come first."""
        self.heat = self.last_call_ns = 0
        self.guest_ns = 0
        self.node = 0
        """Where it runs, if the island has nodes."""
        self.moving = False
        """It must change its processor for its node's."""
        self.memory_policy: MemoryPolicy | None = None
        self.processor: Processor = self._acquire_processor()
        self.gpr = self.processor.gpr
        self._host: threading.Thread | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    def _acquire_processor(self) -> Processor:
        try:
            return self.kernel.machine.acquire_processor()
        except HostError:  # KVM has a largest number of processors
            raise LinuxError(EAGAIN) from None

    def start(self, registers: list[int], fs_base: int, xsave: bytes | None, gs_base: int = 0) -> None:
        """Begin to run in the guest with these registers (`abi.x86` order) on a host thread of its own.

        Raises EAGAIN when the host has no thread left.
        """
        if self.kernel.nodes:
            self.kernel.nodes.begin(self)
        for index in range(GPR_COUNT):
            self.gpr[index] = registers[index]
        self.processor.fs_base, self.processor.gs_base = fs_base, gs_base
        self.processor.xrstor(xsave or signals.INITIAL_XSAVE)
        self.kernel.machine.enter(self.processor, self.mm.space, self.node)
        self._host = threading.Thread(target=self._main, name=f"guest-{self.tid}", daemon=True)
        try:
            self._host.start()
        except RuntimeError:  # a limit of the host: RLIMIT_NPROC, a pids cgroup
            self._host = None
            raise LinuxError(EAGAIN) from None

    def _main(self) -> None:
        nodes = self.kernel.nodes
        if nodes:
            nodes.settle(self)
        try:
            while True:
                self._step()
        except ThreadExit:
            pass
        except BaseException as error:
            self.kernel.panic(error)
        try:
            self.process.thread_gone(self)
        except BaseException as error:
            self.kernel.panic(error)
        if nodes:
            nodes.end(self)

    def join(self, timeout: float) -> None:
        if self._host and self._host is not threading.current_thread():
            self._host.join(timeout)

    @property
    def host_thread(self) -> int:
        """The host's identifier of the thread this runs on (for affinity and clocks), 0 before it starts."""
        return self._host.native_id or 0 if self._host else 0

    @property
    def host_ident(self) -> int:
        """Python's identifier of the host thread, 0 before it starts."""
        return self._host.ident or 0 if self._host else 0

    # ---- the exit way ----------------------------------------------------------------------------------------------

    def _step(self) -> None:
        if self.work:
            self._do_work()
        event = self.run_processor()
        if event is SYSCALL:  # the one that is hot
            self.serve_syscall()
            return
        self.serve(event)

    def serve(self, event: Exit) -> None:
        """Serve an exit that is no system call."""
        self.exits[type(event).__name__] += 1
        match event:
            case PageFault():
                faults.page_fault(self, event)
            case ProcessorException():
                faults.exception(self, event)
            case BusError():
                faults.bus_error(self)
            case Interrupted():
                if self.mm.executable is not None:
                    self.mm.executable.interrupted(self)
            case Halt():
                self.kernel.halted(self, event)
            case _:
                raise AssertionError(f"unknown exit {event!r}")

    def run_processor(self) -> Exit:
        """Let the guest run until it exits."""
        begun = time.perf_counter_ns() if self.kernel.timing else 0
        self.in_guest = True
        event = self.processor.run()
        self.in_guest = False
        if begun:
            self.guest_ns += time.perf_counter_ns() - begun
        while self.slot and self.slot.serving:  # a forged call: two hands must not serve one thread
            time.sleep(0)
        return event

    def serve_syscall(self) -> None:
        """Serve the call in the registers through the exit door."""
        gpr = self.gpr
        number = gpr[RAX] & 0xFFFF_FFFF
        self.original_rax = number
        try:
            if self.answered is None:
                self.syscalls += 1
                result = self.call(number)
                if self.kernel.poller.enabled:
                    self.kernel.poller.note(self)
            else:
                result, self.answered = self.answered, None
        except KeepRegisters:
            self.original_rax = NO_SYSCALL
            return
        if -MAX_ERRNO <= result < 0 and result <= -ERESTARTSYS:
            self.work = True  # restart or EINTR: decided when signals are looked at
        gpr[RAX] = result & U64
        if self.restore_mask is not None:
            self.work = True
        if not self.work:
            self.original_rax = NO_SYSCALL

    def call(self, number: int) -> int:
        """Run the handler of call `number` on the registers; return its result or a negated errno."""
        entry = self.kernel.find(number)
        if self.kernel.trace:
            from enisle.kernel.trace import traced_call

            return traced_call(self, number, entry)
        if entry is None:
            self.kernel.count_unknown(number)
            return -ENOSYS
        return self.guarded(entry.call, self.gpr)

    def guarded(self, call: "signals.Handler", registers: Registers) -> int:
        """Call a handler, turning what it raises for the guest into a negated errno."""
        epoch = self.mm.memory.epoch
        try:
            return call(self, registers) or 0
        except LinuxError as error:
            return -error.errno
        except OutOfMemory:
            return -ENOMEM
        except OSError as error:
            if error.errno == EFAULT and (epoch & 1 or self.mm.memory.epoch != epoch):
                return self.guarded(call, registers)  # a flush took the host's mapping away for a moment
            return -(error.errno or EFAULT)

    def _do_work(self) -> None:
        self.work = False
        if self.dying:
            raise ThreadExit
        if self.moving and self.kernel.nodes:
            self.kernel.nodes.change_processor(self)
        signals.deliver(self)
        self.original_rax = NO_SYSCALL

    # ---- being interrupted -----------------------------------------------------------------------------------------

    def notify(self) -> None:
        """Make the thread look at its `work` soon, wherever it is. From any thread."""
        self.work = True
        self.processor.kick()
        self.waiter.wake()

    def interrupted(self) -> bool:
        """Return whether a wait must end: a deliverable signal, a stop or the thread's end."""
        return self.dying or signals.is_pending(self)

    def wait_fd(self, fd: int, events: int, deadline: float | None = None) -> None:
        """Wait until host descriptor `fd` has one of the poll `events`.

        Raises ERESTARTSYS when a signal comes first, ETIMEDOUT at the monotonic deadline, MustLeave (see `wait`).
        """
        while True:
            if self.interrupted():  # also what a wait that ended both ready and woken has forgotten
                raise LinuxError(ERESTARTSYS)
            if self.waiter.poll([(fd, events)], remaining(deadline)):
                return

    def sleep(self, seconds: float | None) -> bool:
        """Sleep until somebody wakes the thread (True), or `seconds` have passed (False).

        Raises ERESTARTSYS when a signal comes first. Callers look at their own condition again after True.
        """
        if self.interrupted():
            raise LinuxError(ERESTARTSYS)
        woken = self.waiter.sleep(seconds)
        if self.interrupted():
            raise LinuxError(ERESTARTSYS)
        return woken

    def sleep_until(self, deadline: float | None) -> bool:
        return self.sleep(None if deadline is None else max(0.0, deadline - time.monotonic()))

    deadline_after = staticmethod(deadline_after)

    @property
    def is_leader(self) -> bool:
        return self.tid == self.process.pid

    @property
    def instruction(self) -> int:
        return self.gpr[RIP]
