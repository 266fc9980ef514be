"""An island process whose kernel is a fake: threads instead of guests, the same calls as the real one.

`python tests/fake_island.py DESCRIPTOR` serves the SDK's control channel; the jail is real.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from enisle.errors import GuestError, LinuxError


class KernelConfig(NamedTuple):
    hostname: bytes = b""
    processes: int = 0
    processors: int = 0
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    trace: Any = None
    report: Any = None
    timing: bool = False
    host_proc: int = -1


class Statistics(NamedTuple):
    syscalls: int = 7


class Record(NamedTuple):
    pid: int
    ppid: int
    state: str
    name: str
    threads: int


class Machine:
    backend, fallback_reason = "fake", ""
    replication = walks = None

    def __init__(self, **_: Any) -> None:
        pass

    def statistics(self) -> Statistics:
        return Statistics()

    def counter(self) -> None:
        return None

    def close(self) -> None:
        pass


class Process:
    """One running fake program. It owns copies of the descriptors it was given, as a guest does."""

    def __init__(
        self, kernel: "Kernel", pid: int, argv: list[bytes], env: dict[bytes, bytes], stdio: list[int]
    ) -> None:
        self.kernel, self.pid, self.argv, self.env, self.stdio = kernel, pid, argv, env, stdio
        self.status: int | None = None
        self.killed = threading.Event()

    def run(self, program: Callable[["Process"], int]) -> None:
        try:
            status = program(self)
        except BrokenPipeError:
            status = int(signal.SIGPIPE)
        for descriptor in self.stdio:
            os.close(descriptor)
        self.end(status)

    def end(self, status: int) -> None:
        with self.kernel.changed:
            self.status = status if self.status is None else self.status
            self.kernel.changed.notify_all()

    def write(self, descriptor: int, content: bytes) -> None:
        while content:
            content = content[os.write(self.stdio[descriptor], content) :]


def echo(process: Process) -> int:
    process.write(1, b" ".join(process.argv[1:]) + b"\n")
    return 0


def fail(process: Process) -> int:
    process.write(2, b"failing\n")
    return int(process.argv[1]) << 8


def cat(process: Process) -> int:
    while chunk := os.read(process.stdio[0], 65536):
        process.write(1, chunk)
    return 0


def env(process: Process) -> int:
    process.write(1, b"\n".join(b"=".join(pair) for pair in sorted(process.env.items())))
    return 0


def sleep(process: Process) -> int:
    process.write(1, b"sleeping\n")
    process.killed.wait(float(process.argv[1]))
    return 0


def put(process: Process) -> int:
    with open(process.argv[1], "wb") as file:
        file.write(process.argv[2])
    return 0


def linger(process: Process) -> int:
    """End at once and leave something behind that keeps stdout open."""
    kept = os.dup(process.stdio[1])
    threading.Thread(target=lambda: (time.sleep(30), os.close(kept)), daemon=True).start()
    process.write(1, b"done\n")
    return 0


def crash(process: Process) -> int:
    os.abort()


def bug(process: Process) -> int:
    process.kernel.fail(AssertionError("frame=0x1001"))
    return 0


def break_machine(process: Process) -> int:
    process.kernel.fail(GuestError("the guest's machine stopped", "triple fault", "see the report"))
    return 0


PROGRAMS = {f.__name__.encode(): f for f in (echo, fail, cat, env, sleep, put, linger, crash, bug, break_machine)}


class Kernel:
    def __init__(self, machine: Machine, config: KernelConfig) -> None:
        self.changed = threading.Condition()
        self.started: list[Process] = []
        self.failure: BaseException | None = None

    def start(
        self, argv: list[bytes], env: list[bytes], cwd: bytes, stdio: tuple[int, int, int], program: bytes = b""
    ) -> Process:
        name = os.path.basename(program)
        if os.path.dirname(program) != b"/bin" or name not in PROGRAMS:
            raise LinuxError(2)
        variables = dict(pair.split(b"=", 1) for pair in env)
        process = Process(self, len(self.started) + 2, argv, variables, [os.dup(fd) for fd in stdio])
        self.started.append(process)
        threading.Thread(target=process.run, args=(PROGRAMS[name],), daemon=True).start()
        return process

    def fail(self, error: BaseException) -> None:
        with self.changed:
            self.failure = error
            self.changed.notify_all()

    def wait(self, process: Process, timeout: float | None = None) -> int | None:
        with self.changed:
            self.changed.wait_for(lambda: process.status is not None or self.failure, timeout)
        if self.failure:
            raise GuestError("the island died", repr(self.failure)) from self.failure
        return process.status

    def kill(self, signo: int, started: Process | None = None) -> None:
        for process in self.started:
            if started in (None, process):
                process.end(signo)
                process.killed.set()

    def processes(self) -> list[Record]:
        return [Record(p.pid, 1, "S", p.argv[0].decode(), 1) for p in self.started if p.status is None]

    def statistics(self) -> Statistics:
        return Statistics()

    def shutdown(self) -> None:
        self.kill(9)


def install() -> None:
    """Put the fakes where the island room looks for machine and kernel."""
    for name, contents in (
        ("enisle.machine", {"Machine": Machine, "node_mask": lambda text, nodes: 1}),
        (
            "enisle.kernel",
            {
                "load_handlers": lambda: None,
                "Kernel": Kernel,
                "KernelConfig": KernelConfig,
                "Process": Process,
                "processors_of": lambda processors, nodes: ((1 << processors) - 1,),  # nobody asks for nodes here
            },
        ),
        ("enisle.kernel.calls", {}),
        ("enisle.kernel.proc", {}),
    ):
        module = ModuleType(name)
        module.__path__ = [f"{os.path.dirname(__file__)}/unit"]  # a directory without modules
        module.__dict__.update(contents)
        sys.modules[name] = module


if __name__ == "__main__":
    install()
    from enisle.island.service import main

    main()
