"""A guest process: a group of threads with one identity, its family, and how it ends.

State is guarded by `kernel.lock`. A process lives as long as a thread of it does, then is a zombie until its parent
has waited for it; the kernel itself is the parent (pid 1) of what was started from outside and of orphans.
"""

import time
from typing import TYPE_CHECKING

from enisle.abi.types import Pid
from enisle.kernel import futex, signals
from enisle.kernel.credentials import Credentials
from enisle.kernel.limits import ResourceLimits

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.pidfd import PidFile
    from enisle.kernel.terminal import Terminal
    from enisle.kernel.thread import Thread

CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = range(1, 7)
SIGCHLD = 17


class Session:
    """A session: its leader's pid, its controlling terminal, and which group is in front of it."""

    def __init__(self, sid: Pid) -> None:
        self.sid = sid
        self.terminal: Terminal | None = None
        self.foreground: Pid = sid


class Process:
    """One thread group."""

    def __init__(self, kernel: "Kernel", pid: Pid, parent: "Process | None", name: bytes) -> None:
        self.kernel, self.pid, self.parent, self.name = kernel, pid, parent, name
        self.threads: dict[Pid, Thread] = {}
        self.children: dict[Pid, Process] = {}
        self.session = parent.session if parent else Session(pid)
        self.pgid: Pid = parent.pgid if parent else pid
        self.handlers = signals.SignalHandlers()
        self.pending = signals.PendingSignals()
        self.credentials: Credentials = parent.credentials.clone() if parent else Credentials()
        self.limits: ResourceLimits = parent.limits.clone() if parent else ResourceLimits()
        self.exit_signal = SIGCHLD
        self.started = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.exiting = False
        self.status: int | None = None
        """Wait status (wait(2) format) once decided."""
        self.zombie = False
        self.watchers: list[PidFile] = []
        """Descriptors of this process, told when it ends."""
        self.stopped = 0
        """The signal that stopped the group, or 0."""
        self.stopping = False
        """Threads are still on their way into the stop."""
        self.wait_event: int | None = None
        """A stop (signal << 8 | 0x7F) or continue (0xFFFF) the parent has not waited for."""
        self.has_execed = False
        self.started_from_outside = False
        self.child_subreaper = False
        self.dumpable = True
        self.parent_death_signal = 0
        self.no_new_privileges = False
        self.oom_score_adj: int = parent.oom_score_adj if parent else 0
        self.personality = 0
        self.vfork_parent: Thread | None = None
        self.timers = signals.ProcessTimers(self)

    @property
    def ppid(self) -> Pid:
        return self.parent.pid if self.parent else Pid(0)

    @property
    def leader(self) -> "Thread | None":
        return self.threads.get(self.pid) or next(iter(self.threads.values()), None)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def exit_group(self, status: int) -> None:
        """Decide the process's end with a wait status; every thread ends soon. The first decision holds."""
        with self.kernel.lock:
            if self.exiting:
                return
            self.exiting, self.status = True, status
            for thread in self.threads.values():
                thread.dying = True
                thread.notify()

    def thread_gone(self, thread: "Thread") -> None:
        """Clean up after a thread's last instruction. Runs on its own host thread."""
        self.kernel.poller.forget(thread)
        futex.exit_robust_list(thread)
        if thread.clear_child_tid and thread.mm.users > 1:
            futex.clear_child_tid(thread)
        self.timers.thread_gone(thread)
        self.finish_vfork(thread)
        thread.mm.release()
        thread.files.release()
        thread.fs.release()
        thread.waiter.close()
        with self.kernel.lock:
            del self.threads[thread.tid]
            signals.thread_gone(thread)
            last = not self.threads
            if not last and len(self.threads) == 1:
                next(iter(self.threads.values())).notify()  # an execve may wait for its siblings' end
        self.kernel.thread_gone(thread)
        if last:
            self._become_zombie()

    def finish_vfork(self, thread: "Thread") -> None:
        """Let the vfork parent go on: the child has left its address space."""
        parent, self.vfork_parent = self.vfork_parent, None
        if parent:
            parent.waiter.wake()
        del thread

    def _become_zombie(self) -> None:
        kernel = self.kernel
        self.timers.close()
        with kernel.lock:
            if self.status is None:
                self.status = 0
            self.zombie = True
            for watcher in self.watchers:
                watcher.ended()
            for child in list(self.children.values()):
                kernel.adopt(child)
            if self.session.sid == self.pid and self.session.terminal:
                self.session.terminal.hang_up(self)
            self.announce_end()
        kernel.process_gone(self)

    def announce_end(self) -> None:
        """Tell the parent, or vanish when it does not care (SIGCHLD ignored, SA_NOCLDWAIT). Requires: kernel.lock."""
        parent = self.parent
        if parent is None:
            return
        alone = parent.zombie or parent.pid == 1
        if self.exit_signal and not alone:
            code, status = self.child_code()
            info = signals.child_info(self.exit_signal, code, self.pid, self.credentials.uid, status)
            signals.send_to_process(parent, self.exit_signal, info)
        if alone or (self.exit_signal == SIGCHLD and not signals.wants_children(parent)):
            self.reap()
        self.wake_waiters()

    def child_code(self) -> tuple[int, int]:
        """Return si_code and si_status of the process's end."""
        status = self.status or 0
        if status & 0x7F:
            return (CLD_DUMPED if status & 0x80 else CLD_KILLED), status & 0x7F
        return CLD_EXITED, status >> 8 & 0xFF

    def announce_state(self, code: int, signo: int) -> None:
        """Tell the parent of a stop or a continue. Requires: kernel.lock."""
        parent = self.parent
        self.wait_event = 0xFFFF if code == CLD_CONTINUED else signo << 8 | 0x7F
        if parent and parent.pid != 1 and not parent.zombie and not signals.ignores_stops(parent):
            info = signals.child_info(SIGCHLD, code, self.pid, self.credentials.uid, signo)
            signals.send_to_process(parent, SIGCHLD, info)
        if parent and parent.pid == 1:
            self.kernel.process_gone(self)  # `Kernel.wait` looks again
        self.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake every thread of the parent: one of them may be in wait4. Requires: kernel.lock."""
        if self.parent:
            for thread in self.parent.threads.values():
                thread.waiter.wake()

    def reap(self) -> None:
        """Forget the process for good. Requires: kernel.lock."""
        if self.parent:
            self.parent.children.pop(self.pid, None)
            self.parent.timers.usage.child_reaped(self.timers.usage)
        self.kernel.forget(self)
