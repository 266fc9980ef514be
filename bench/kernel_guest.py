"""A running test guest with its own view of itself: what introspection is measured and tested against."""

import socket
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import guests

from bench.btf import Btf
from enisle.errors import GuestError
from enisle.introspect import Fact, Introspection, LiveGuest, Process, ProcessorState
from enisle.linuxvm import VirtualMachine, VmConfig

BOOT = 240.0
"""Seconds a guest may take under TCG on a busy host."""
STATES = {"task_struct.state": ("__state", "state")}
CALLS = {"read": 0, "write": 1, "getpid": 39, "exit": 60, "kill": 62, "getuid": 102, "getppid": 110, "openat": 257}
CURRENT = ("current_task", "pcpu_hot", "const_current_task", "const_pcpu_hot")


class TestGuest:
    """One guest that has said it is ready."""

    __test__ = False

    def __init__(self, machine: VirtualMachine, console: socket.socket) -> None:
        self.machine, self.guest = machine, LiveGuest(machine)
        self._console = console
        self._said, self._mark, self._lines = b"", b"", 0
        self.oracle = guests.Oracle({})

    def run(self, line: str, timeout: float = 60.0) -> str:
        """Have the guest's shell do a line; return what it said."""
        self.start(line)
        return self.wait_for_done(timeout)

    def start(self, line: str) -> None:
        """Have it do a line, and wait for nothing; `wait_for_done` does."""
        self._said = b""
        self._lines += 1
        self._mark = b"=line %d." % self._lines
        self._console.sendall(b'%s; echo "%s"\n' % (line.encode(), self._mark))

    def is_done(self) -> bool:
        """Return whether the line started last has been done; does not wait."""
        self._console.settimeout(0)
        try:
            self._said += self._console.recv(65536)
        except BlockingIOError:
            pass
        return self._mark in self._said

    def wait_for_done(self, timeout: float = 30.0) -> str:
        """Wait until the line started last has been done."""
        deadline = time.monotonic() + timeout
        while self._mark not in self._said:
            self._console.settimeout(max(deadline - time.monotonic(), 0.01))
            self._said += self._console.recv(65536)
        return self._said.split(self._mark)[0].decode(errors="replace")

    def dump(self) -> guests.Oracle:
        """Ask for everything: symbols, types, tasks, modules."""
        self.run("dump")
        self.oracle = self._oracle()
        return self.oracle

    def ask(self) -> guests.Oracle:
        """Ask for tasks and modules anew."""
        self.run("ask; send")
        return self._oracle()

    def _oracle(self) -> guests.Oracle:
        for _ in range(100):  # the port's file follows the guest
            time.sleep(0.1)
            try:
                return told(self.machine, self._said)
            except GuestError:
                continue
        raise AssertionError("the guest's port stays silent")


def told(machine: VirtualMachine, said: bytes | None = None) -> guests.Oracle:
    """Return what a guest has said of itself last. Raises GuestError when that is nothing yet.

    `said` is what whoever sits at its console has heard: beside a slow reader QEMU writes bytes twice into the log.
    """
    if through_port := machine.port("oracle").read_bytes():
        return guests.read_oracle(through_port)
    return guests.read_console(machine.console_log.read_bytes() if said is None else said)


@contextmanager
def running(
    name: str,
    append: str = "PROCESSES=200 MODULES=12",
    files: Mapping[str, bytes] | None = None,
    **settings: object,
) -> Generator[TestGuest]:
    """Boot one of the pinned kernels, with further executable files in its root."""
    kernel = guests.get(name)
    config = VmConfig(
        kernel=str(kernel.image),
        initrd=str(guests.initramfs(kernel, files)),
        append=f"console=ttyS0 quiet {append}",
        ports=("oracle",),
        accelerator="tcg",
        gdb=True,
    )._replace(**settings)
    with VirtualMachine.start(config) as machine:
        with machine.console() as console:
            guest = TestGuest(machine, console)
            machine.wait_for_console("=ready", BOOT)
            yield guest


def wrong_facts(session: Introspection, oracle: guests.Oracle) -> list[Fact]:
    """Return the facts that the guest's own symbols and types contradict.

    A kernel that tells no types (CONFIG_DEBUG_INFO_BTF) or symbols of data (CONFIG_KALLSYMS_ALL) contradicts none.
    """
    symbols, types = oracle.symbols(), Btf(oracle.btf) if oracle.btf else None

    def right(fact: Fact) -> bool:
        if fact.kind == "offset":
            structure, _, member = fact.name.partition(".")
            return types is None or fact.value in [
                types.offset(structure, name) for name in STATES.get(fact.name, (member,))
            ]
        names = CURRENT if fact.kind == "per-cpu" else (fact.name,)
        untold = "init_task" not in symbols and not any(name in symbols for name in names)
        return untold or any(fact.value in symbols.get(name, ()) for name in names)

    return [fact for fact in session.kernel.facts if fact.value is not None and not right(fact)]


def wrong_calls(session: Introspection, oracle: guests.Oracle) -> list[str]:
    """Return the system calls that lead elsewhere than to the function of their name; those of CALLS are asked."""
    symbols, handlers = oracle.symbols(), session.kernel.dispatch.handlers
    return [name for name, number in CALLS.items() if symbols.get(f"__x64_sys_{name}") != [handlers[number]]]


def differing_tasks(
    session: Introspection, before: guests.Oracle, after: guests.Oracle, seen: Sequence[Process] | None = None
) -> list[str]:
    """Return the threads that the two views tell differently; `before` and `after` are the guest's own, and `seen` was
    listed between them (without it, now: a thread begun since `after` differs)."""
    ours = {
        thread.tid: (p.tgid, p.ppid, _name(thread.comm), p.credentials.uid, p.credentials.euid, len(p.threads))
        for p in (session.processes().processes if seen is None else seen)
        for thread in p.threads
    }
    views = [
        {t.pid: (t.tgid, t.ppid, _name(t.name), t.uid, t.euid, t.threads) for t in oracle.tasks()}
        for oracle in (before, after)
    ]
    lasting = views[0].keys() & views[1].keys()
    missing = [
        f"{tid}: {ours.get(tid)} here, {views[0][tid]} there" for tid in lasting if views[0][tid] != ours.get(tid)
    ]
    unknown = [f"{tid}: {ours[tid]} here alone" for tid in ours.keys() - views[0].keys() - views[1].keys()]
    return missing + [line for line in unknown if "cat" not in line]


def _name(name: str) -> str:
    """Return a name without what /proc adds to a worker's (fs/proc/array.c, proc_task_name)."""
    return name.partition("-")[0].partition("+")[0][:15] if name.startswith("kworker") else name[:15]


def in_user_mode(guest: TestGuest) -> list[ProcessorState]:
    """Return the processors at a moment when all are in user mode; empty when that was not to be had."""
    for _ in range(60):
        with guest.machine.paused():
            states = list(guest.guest.processors())
            if all(state.cpl == 3 for state in states):
                return states
        time.sleep(0.05)
    return []
