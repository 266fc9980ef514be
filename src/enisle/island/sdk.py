"""The embedded SDK: an island as a context manager, commands in it, its files and processes.

    with Island(memory="512M") as island:
        result = island.run(["python3", "-c", "print(6 * 7)"])

One child process per island; it may crash, the caller does not. Every method may be called from any thread; the
`…_async` methods from a coroutine. Errors of `enisle.errors` come out as they went in; OSError for files.
"""

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from enisle.island.child import Child
from enisle.island.command import Result, RunningCommand, Stdin
from enisle.island.configuration import (
    DEFAULT_MEMORY,
    DEFAULT_PROCESSES,
    Configuration,
    parse_mount,
    parse_size,
    validate,
)
from enisle.island.files import Files, Listing
from enisle.records import Record

__all__ = ["Files", "GuestProcess", "Island", "Listing", "Result", "RunningCommand"]


class GuestProcess(Record):
    """One process of an island."""

    pid: int
    ppid: int
    state: str
    name: str
    threads: int


def _blocking(words: Sequence[str]) -> str:
    if not words:
        return ""
    from enisle.machine import resolve

    return resolve(words).encode()


class Island:
    """A sandbox with a file system, a network and processes of its own, in a child process.

    Sizes as "512M" or bytes; mounts as "SRC:DST[:ro|rw]". Raises InvalidRequest or HostError when it cannot be made.
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        mounts: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        memory: str | int = DEFAULT_MEMORY,
        processors: int = 0,
        processes: int = DEFAULT_PROCESSES,
        network: str = "none",
        processor: str = "auto",
        exitless: str = "auto",
        nodes: int = 1,
        page_tables: str = "off",
        vm_per_node: bool = False,
        verify_page_tables: bool = False,
        name: str = "",
        cpu: str | Sequence[str] = (),
    ) -> None:
        self.configuration = validate(
            Configuration(
                root=os.path.abspath(root) if root is not None else None,
                mounts=tuple(parse_mount(text) for text in mounts),
                environment=tuple((env or {}).items()),
                cwd=cwd,
                memory=parse_size(memory) if isinstance(memory, str) else memory,
                processors=processors,
                processes=processes,
                network=network,
                processor=processor,
                exitless=exitless,
                nodes=nodes,
                page_tables=page_tables,
                vm_per_node=vm_per_node,
                verify_page_tables=verify_page_tables,
                name=name,
                blocking=_blocking([cpu] if isinstance(cpu, str) else cpu),
            )
        )
        self._child = Child(self.configuration)
        self.files = Files(self._child)
        self.backend: str = self._child.made["backend"]
        """What runs its programs: "kvm" or "emulated"."""
        self.notes: tuple[str, ...] = tuple(self._child.made["notes"])
        """What the user should know of it, one line each."""

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The island process's id on the host."""
        return self._child.pid

    def close(self) -> None:
        """End the island: its processes, memory and files are gone. May be called again."""
        self._child.close()

    def __enter__(self) -> "Island":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> "Island":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    # ---- commands --------------------------------------------------------------------------------------------------

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: Stdin = None,
        terminal: tuple[int, int] | None = None,
    ) -> RunningCommand:
        """Start a command and return it running; its output can be read as it comes.

        `stdin`: bytes to feed it, a file or descriptor to hand it, subprocess.PIPE to write to it, None for nothing.
        `terminal`: (rows, columns) of a terminal of its own, instead; what it shows is "stdout".
        Raises NotFound or InvalidRequest when the program cannot be started.
        """
        return RunningCommand(self._child, argv, env or {}, cwd, stdin, terminal)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: Stdin = None,
        timeout: float | None = None,
    ) -> Result:
        """Run a command to its end and return what came of it; killed and marked after `timeout` seconds."""
        with self.start(argv, env=env, cwd=cwd, stdin=stdin) as command:
            return command.collect(timeout)

    async def run_async(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Run a command from a coroutine; cancelling it kills the command."""
        import asyncio

        started: list[RunningCommand] = []
        unwanted = threading.Event()

        def work() -> Result:
            with self.start(argv, env=env, cwd=cwd, stdin=stdin) as command:
                started.append(command)
                return command.collect(0 if unwanted.is_set() else timeout)

        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # The thread owns the command and closes it; it must only be made to end.
            unwanted.set()
            for command in started:
                await asyncio.to_thread(command.kill)
            await asyncio.wait([working])
            raise

    def processes(self) -> list[GuestProcess]:
        """Return the processes there are, of all commands."""
        return [GuestProcess(**record) for record in self._child.call({"call": "processes"})]

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal to every process of the island."""
        self._child.call({"call": "kill", "command": None, "signal": int(signo)})

    def set_page_tables(self, mode: str) -> None:
        """Change how page tables are replicated, as `page_tables` says it, while programs run.

        Raises InvalidRequest for what makes no sense, and for an island that was made with one node and no copies.
        """
        self._child.call({"call": "page_tables", "mode": mode})

    def statistics(self) -> dict[str, Any]:
        """Return the island's counters since it was made."""
        return self._child.call({"call": "statistics"})
