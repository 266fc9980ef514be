"""The embedded SDK: an island as a context manager, commands in it, its files and processes.

    with Island(memory="512M") as island:
        result = island.run(["python3", "-c", "print(6 * 7)"])

One child process per island; it may crash, the caller does not. Every method may be called from any thread; the
`…_async` methods from a coroutine. Errors of `enisle.errors` come out as they went in; OSError for files.
"""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, NamedTuple, TypeVar

from enisle import errors
from enisle.errors import EnisleError, GuestError, StateError
from enisle.island.channel import Channel, Message, pair
from enisle.island.command import Result, RunningCommand, Stdin
from enisle.island.configuration import (
    DEFAULT_MEMORY,
    DEFAULT_PROCESSES,
    Configuration,
    parse_mount,
    parse_size,
    to_record,
    validate,
)

__all__ = ["Files", "GuestProcess", "Island", "Listing", "Result", "RunningCommand"]


T = TypeVar("T")


class Listing(NamedTuple):
    """One name of a directory. `mode` reads as in `ls -l`; `size` in bytes."""

    name: str
    mode: str
    size: int


class GuestProcess(NamedTuple):
    """One process of an island."""

    pid: int
    ppid: int
    state: str
    name: str
    threads: int


class Pending:
    """A request on its way, and the place of its answer."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.answer: Message = {}
        self.descriptors: list[int] = []
        self.wake: int = -1
        """An eventfd to write to as well, for who waits on descriptors too."""

    def settle(self, answer: Message, descriptors: list[int]) -> None:
        self.answer, self.descriptors = answer, descriptors
        if self.wake >= 0:
            os.eventfd_write(self.wake, 1)
        self.answered.set()  # last: who sees it may close `wake`


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
            )
        )
        self.files = Files(self)
        self.notes: tuple[str, ...] = ()
        self.backend = ""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, Pending] = {}
        """Guarded by _lock; None answers come from `_receive` alone."""
        self._gone: EnisleError | None = None
        """Why there is no island any more. Guarded by _lock."""
        self._open()

    # ---- life ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        ours, theirs = pair()
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        with theirs:
            self._child = subprocess.Popen(
                [*child_command(), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = Channel(ours)
        first = self._register(0)
        self._receiver = threading.Thread(target=self._receive, name="enisle-island", daemon=True)
        self._receiver.start()
        try:
            self._channel.send({"id": 0, "configuration": to_record(self.configuration)})
        except OSError:
            pass  # it died already; the receiver tells why
        try:
            made = self.answer_of(first)
        except BaseException:
            self.close()
            raise
        self.backend, self.notes = made["backend"], tuple(made["notes"])

    def close(self) -> None:
        """End the island: its processes, memory and files are gone. May be called again."""
        with self._lock:
            self._gone = self._gone or StateError("the island is closed")
        self._channel.shutdown()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if threading.current_thread() is not self._receiver:
            self._receiver.join()
        self._channel.close()
        self._messages.close()

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
        await in_thread(self.close)

    # ---- commands --------------------------------------------------------------------------------------------------

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: Stdin = None,
    ) -> RunningCommand:
        """Start a command and return it running; its output can be read as it comes.

        `stdin`: bytes to feed it, a file or descriptor to hand it, subprocess.PIPE to write to it, None for nothing.
        Raises NotFound or InvalidRequest when the program cannot be started.
        """
        return RunningCommand(self, argv, env or {}, cwd, stdin)

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

        command = await in_thread(lambda: self.start(argv, env=env, cwd=cwd, stdin=stdin))
        try:
            return await in_thread(lambda: command.collect(timeout))
        except asyncio.CancelledError:
            command.kill()
            raise
        finally:
            command.close()

    def processes(self) -> list[GuestProcess]:
        """Return the processes there are, of all commands."""
        return [GuestProcess(**record) for record in self.call({"call": "processes"})]

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal to every process of the island."""
        self.call({"call": "kill", "command": None, "signal": int(signo)})

    def statistics(self) -> dict[str, Any]:
        """Return the island's counters since it was made."""
        return self.call({"call": "statistics"})

    # ---- requests --------------------------------------------------------------------------------------------------

    def call(self, message: Message, descriptors: Sequence[int] = ()) -> Any:
        """Send a request and return what it answers. Raises what the island raised."""
        return self.answer_of(self.request(message, descriptors))

    def call_for_descriptor(self, message: Message) -> int:
        """Send a request that is answered with a descriptor; it is the caller's."""
        pending = self.request(message)
        self.answer_of(pending)
        return pending.descriptors[0]

    def request(self, message: Message, descriptors: Sequence[int] = (), wake: int = -1) -> Pending:
        """Send a request without waiting; return the place of its answer, whose arrival is also told to `wake`."""
        number = next(self._numbers)
        pending = self._register(number, wake)
        try:
            self._channel.send({"id": number, **message}, descriptors)
        except OSError:
            pass  # the island is gone; the receiver settles every pending request and knows why
        return pending

    def _register(self, number: int, wake: int = -1) -> Pending:
        pending = Pending()
        pending.wake = wake
        with self._lock:
            if self._gone is not None:
                raise self._gone
            self._pending[number] = pending
        return pending

    def answer_of(self, pending: Pending) -> Any:
        """Wait for an answer and return it. Raises what the island raised."""
        pending.answered.wait()
        if "error" in pending.answer:
            raise rebuild(pending.answer["error"])
        return pending.answer["ok"]

    def _receive(self) -> None:
        while (received := self._channel.receive()) is not None:
            message, descriptors = received
            with self._lock:
                pending = self._pending.pop(message["id"], None)
            if pending is not None:
                pending.settle(message, descriptors)
        self._bury()

    def _bury(self) -> None:
        """Tell everyone who waits that the island is gone, and why."""
        try:
            status = self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = self._child.wait()
        with self._lock:
            self._gone = self._gone or self._post_mortem(status)
            waiting = list(self._pending.values())
            self._pending.clear()
            error = {"kind": type(self._gone).__name__, "message": self._gone.message, "why": self._gone.why}
        for pending in waiting:
            pending.settle({"error": {**error, "hint": self._gone.hint}}, [])

    def _post_mortem(self, status: int) -> EnisleError:
        self._messages.seek(0)
        report = self._messages.read()[-4000:].decode(errors="replace").strip()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        return GuestError(f"the island's process died ({how})", report or "it left no report", "make a new island")


class Files:
    """The files of an island, reached from outside. Paths are absolute paths of the island."""

    def __init__(self, island: Island) -> None:
        self._island = island

    def read(self, path: str) -> bytes:
        """Return a regular file's content. Raises OSError as open(2) does."""
        descriptor = self._island.call_for_descriptor({"call": "open", "path": path, "mode": "read"})
        with open(descriptor, "rb") as file:
            return file.read()

    def write(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """Make `content` the whole of a regular file, created with `mode` if it was not there."""
        request = {"call": "open", "path": path, "mode": "write", "permissions": mode}
        descriptor = self._island.call_for_descriptor(request)
        with open(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def list(self, path: str) -> list[Listing]:
        """Return the names in a directory, sorted."""
        return [Listing(*entry) for entry in self._island.call({"call": "list", "path": path})]


def child_command() -> list[str]:
    """Return how an island process is started."""
    return [sys.executable, "-m", "enisle.island"]


def rebuild(record: Message) -> Exception:
    """Return the error that the island process described."""
    kind = record["kind"]
    if kind == "OSError":
        return OSError(record["errno"], os.strerror(record["errno"]), record.get("filename"))
    if kind == "bug":
        why = f"{record['message']}\n{record.get('report', '')}".rstrip()
        return GuestError("a bug in Enisle ended the island", why, "please report it with the lines above")
    error: EnisleError = getattr(errors, kind)(record["message"], record.get("why", ""), record.get("hint", ""))
    error.exit_code = record.get("exit_code", type(error).exit_code)
    return error


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking call without holding up the event loop."""
    import asyncio

    return await asyncio.to_thread(function)
