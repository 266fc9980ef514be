"""The body of an island process: from a configuration to a machine, a jail, a kernel and guest processes.

Promises: limits are set before any guest runs; `close` kills every guest process and gives the machine back.
The main thread makes and closes it; `start`, `wait` and `kill` may be called from any thread afterwards.
"""

import gc
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enisle.abi import tsc
from enisle.errors import GuestError, HostError, InvalidRequest
from enisle.island import jail, preload
from enisle.island.configuration import Configuration
from enisle.island.hatch import Hatch
from enisle.island.program import start_program
from enisle.island.view import guest_environment
from enisle.kernel import Kernel, KernelConfig, Process
from enisle.machine import Machine, node_mask
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.machine import BlockingValue

Stdio = tuple[int, int, int]


class Command(Record):
    """A program to start: words as the user typed them, a place to start in, and descriptors of this process."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    stdio: Stdio


class IslandProcess:
    """The island this process is. Entered once, never left."""

    def __init__(self, configuration: Configuration, tell: Callable[[str], None], trace: Callable[[str], None]) -> None:
        """Build it. `tell` gets what the owner should know, `trace` each system call when that was asked for."""
        set_limits()
        self.configuration = configuration
        self.program: Sequence[str] = ()
        """The words of the first command."""
        self.hatch: Hatch | None = None
        self.machine = Machine(
            backend=configuration.processor,
            memory_limit=configuration.memory_limit,
            processors=configuration.processors,
            memory_kind=configuration.memory_kind,
            exitless=configuration.exitless != "off",
            blocking=blocking_of(configuration),
            nodes=nodes_of(configuration),
        )
        try:
            self.hatch = make_hatch(configuration.name)
            preload.preload()
            tsc.is_invariant()  # remembered from now on: it looks at the host's /proc
            self.jail = jail.enter(configuration, self.hatch.published.path if self.hatch else "")
            jail.close_door(self.jail)
            preload.seal()
            self.kernel = Kernel(self.machine, kernel_config(configuration, self.jail, tell, trace))
        except BaseException:
            self.machine.close()
            self.leave()
            raise
        gc.freeze()  # modules and tables are for good: no later collection needs to walk them
        gc.enable()
        self.environment = guest_environment(
            configuration, self.jail.home, os.environ.get("TERM"), jail.python_prefixes()
        )
        if self.hatch:
            self.hatch.open(self, self.jail.hatch)

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about this island, one line each."""
        if self.machine.fallback_reason:
            return (f"emulated processors: {self.machine.fallback_reason}", *self.jail.notes)
        return self.jail.notes

    def start(self, command: Command) -> Process:
        """Start a guest process. Raises NotFound or InvalidRequest when the program cannot be started."""
        self.program = self.program or command.argv
        argv = [os.fsencode(word) for word in command.argv]
        environment = [os.fsencode(f"{name}={value}") for name, value in command.environment.items()]

        def start(path: bytes) -> Process:
            return self.kernel.start(argv, environment, os.fsencode(command.cwd), command.stdio, program=path)

        return start_program(command.argv, command.environment, start)

    def wait(self, process: Process) -> int:
        """Return the wait status (wait(2)) of a started process once it stopped, continued or ended.

        Raises GuestError for what the guest did to its machine, and as it was raised whatever our kernel did wrong.
        """
        try:
            status = self.kernel.wait(process)
        except GuestError as error:
            if error.__cause__ is None or isinstance(error.__cause__, GuestError):
                raise
            raise error.__cause__ from None
        assert status is not None, f"{process.pid=}"
        return status

    def wait_for_end(self, process: Process) -> int:
        """Return the wait status of a started process once it ended."""
        status = self.wait(process)
        while os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            status = self.wait(process)
        return status

    def statistics(self) -> dict[str, Any]:
        """Return the counters of kernel and machine as one plain record, with `replication` and `walks` of nodes."""
        record = as_record(self.kernel.statistics()) | as_record(self.machine.statistics())
        for name, part in (("replication", self.machine.replication), ("walks", self.machine.walks)):
            if part:
                record[name] = as_record(part.statistics())
        return record

    def set_page_tables(self, words: str) -> None:
        """Change how page tables are replicated: MODE or MODE:NODES. Raises InvalidRequest."""
        replication = self.machine.replication
        if replication is None:
            raise InvalidRequest("this island has one node", "there is nothing to replicate", "make it with nodes=2")
        mode, colon, mask = words.partition(":")
        replication.set_mode(mode, node_mask(mask, replication.nodes) if colon else 0)

    def leave(self) -> None:
        """Take the island out of the list of running ones. May be called again."""
        if self.hatch:
            self.hatch.close()

    def close(self) -> None:
        """Kill every guest process, join their threads, give the machine back."""
        self.leave()
        self.kernel.shutdown()
        self.machine.close()

    def __enter__(self) -> "IslandProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_hatch(name: str) -> Hatch | None:
    """Return the island's hatch; None where there is no place for one and nobody asked for a name."""
    try:
        return Hatch(name)
    except HostError:
        if name:
            raise
        return None


def blocking_of(configuration: Configuration) -> "BlockingValue | None":
    """Return the blocking value of the island's machine."""
    if not configuration.blocking:
        return None
    from enisle.machine import BlockingValue

    return BlockingValue.decode(configuration.blocking)


def kernel_config(
    configuration: Configuration, place: jail.Jail, tell: Callable[[str], None], trace: Callable[[str], None]
) -> KernelConfig:
    """Return what our kernel needs to know of the island."""
    return KernelConfig(
        hostname=jail.HOST_NAME.encode(),
        processes=configuration.processes,
        processors=configuration.processors,
        uid=os.geteuid(),
        gid=os.getegid(),
        umask=place.umask,
        trace=trace if configuration.trace else None,
        report=tell,
        timing=configuration.timing,
        host_proc=place.host_proc,
    )


def nodes_of(configuration: Configuration) -> Any:
    """Return the machine's plan of nodes, None when there is one node as usual."""
    if not configuration.has_nodes:
        return None
    from enisle.machine import node_plan

    wanted = configuration
    return node_plan(wanted.nodes, wanted.page_tables, wanted.vm_per_node, wanted.verify_page_tables)


def set_limits() -> None:
    """Raise the number of open files as far as the host allows, and leave no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        raise HostError("cannot raise the limit of open files", str(error), "ulimit -n") from error


def as_record(statistics: Any) -> dict[str, Any]:
    """Return a frozen record (a named tuple or a dataclass) as a dictionary."""
    if hasattr(statistics, "_asdict"):
        return dict(statistics._asdict())
    return {name: getattr(statistics, name) for name in statistics.__dataclass_fields__}
