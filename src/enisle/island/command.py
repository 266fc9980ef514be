"""A command running on an island, seen from the SDK: its output as it comes, its end, and what came of it.

Owned by the thread that reads it; `kill` may be called by any, `write`, `end_input` and `resize` by one at a time.
"""

import os
import select
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from enisle.errors import StateError
from enisle.island.child import Child
from enisle.records import Record

CHUNK = 1 << 16
TYPED_AT_ONCE = 1024
"""Less than a terminal's queue: what is typed after a character that flushes it is not lost with it."""
PIPE = -1
"""subprocess.PIPE: write to `RunningCommand.stdin` yourself."""

Stdin = bytes | IO[bytes] | int | None


class Result(Record):
    """What came of a command. `exit_code` is 128 + N when signal N ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    statistics: dict[str, Any]
    timed_out: bool = False


class RunningCommand:
    """A started command. Iterate over it for its output as it comes, or `collect` all of it."""

    def __init__(
        self,
        child: Child,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        stdin: Stdin,
        terminal: tuple[int, int] | None = None,
    ) -> None:
        self._child = child
        self._feed: memoryview | None = None
        self._timed_out = False
        self._typed_line = False
        self.has_terminal = terminal is not None
        self.stdin: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        theirs = self._open_terminal(terminal) if terminal else self._open_pipes(stdin)
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        message = {"call": "start", "argv": list(argv), "env": dict(env), "cwd": cwd}
        try:
            self._number: int = child.call(message, theirs)["command"]
            self._end = child.request({"call": "wait", "command": self._number}, wake=self._ended)
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)

    def _open_terminal(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Make a terminal of (rows, columns) all three descriptors; what it shows is read as `stdout`."""
        from enisle.island.command_terminal import open_pair

        ours, theirs = open_pair(*size)
        self.stdout = open(ours, "rb", 0)  # noqa: SIM115 - closed in `close`
        self.stdin = open(os.dup(ours), "wb", 0)  # noqa: SIM115 - closed in `close`
        return theirs, theirs, theirs

    def _open_pipes(self, stdin: Stdin) -> tuple[int, int, int]:
        theirs = self._open_stdin(stdin)
        stdout, their_stdout = os.pipe()
        stderr, their_stderr = os.pipe()
        self.stdout, self.stderr = open(stdout, "rb", 0), open(stderr, "rb", 0)  # noqa: SIM115 - closed in `close`
        return theirs, their_stdout, their_stderr

    def _open_stdin(self, stdin: Stdin) -> int:
        if stdin is None:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if not isinstance(stdin, bytes) and stdin != PIPE:
            return os.dup(stdin if isinstance(stdin, int) else stdin.fileno())
        theirs, ours = os.pipe()
        self.stdin = open(ours, "wb", 0)  # noqa: SIM115 - closed in `close`
        if isinstance(stdin, bytes):
            self._feed = memoryview(stdin)
        return theirs

    # ---- the end ---------------------------------------------------------------------------------------------------

    def poll(self) -> int | None:
        """Return the exit code when the command has ended, else None. Raises GuestError when the island has."""
        return self.wait() if self._end.answered.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the command has ended. Raises TimeoutError, or GuestError with the island."""
        if not self._end.answered.wait(timeout):
            raise TimeoutError(f"the command still runs after {timeout} seconds")
        status: int = self._end.result()["status"]
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal to the command's processes; nothing happens when it has ended."""
        if not self._end.answered.is_set():
            self._child.call({"call": "kill", "command": self._number, "signal": int(signo)})

    def collect(self, timeout: float | None = None) -> Result:
        """Read all output and return the result; kill the command after `timeout` seconds."""
        output = {"stdout": bytearray(), "stderr": bytearray()}
        for name, chunk in self._chunks(None if timeout is None else time.monotonic() + timeout):
            output[name] += chunk
        code = self.wait()
        statistics = self._end.result()["statistics"]
        return Result(code, bytes(output["stdout"]), bytes(output["stderr"]), statistics, self._timed_out)

    # ---- input -----------------------------------------------------------------------------------------------------

    def write(self, content: bytes | memoryview, timeout: float | None = None) -> int:
        """Return how many bytes the input took at once, after waiting for it to take any; 0 at the timeout.

        For `stdin=PIPE` or a terminal. Raises BrokenPipeError when nobody reads it any more.
        """
        if self.stdin is None or self.stdin.closed:
            raise BrokenPipeError
        descriptor = self.stdin.fileno()
        os.set_blocking(descriptor, False)
        waiting = select.poll()
        waiting.register(descriptor, select.POLLOUT)
        waiting.register(self._ended, select.POLLIN)
        ready = dict(waiting.poll(None if timeout is None else 1000 * timeout))
        if self._ended in ready:
            raise BrokenPipeError
        try:
            if not self.has_terminal:
                return os.write(descriptor, content[:CHUNK])
            return self._type(descriptor, bytes(content[:TYPED_AT_ONCE]))
        except BlockingIOError:
            return 0

    def _type(self, descriptor: int, content: bytes) -> int:
        import termios

        from enisle.island.command_terminal import first_signal, meant_by, settle

        modes = termios.tcgetattr(descriptor)
        written = os.write(descriptor, content[: first_signal(modes, content)])
        if written:
            self._typed_line = content[written - 1] not in b"\r\n"
        if signals := meant_by(modes, content[:written]):
            settle(descriptor, modes)
            self._signal(signals)
        return written

    def _signal(self, signals: Sequence[int]) -> None:
        for signo in signals:
            self._child.call({"call": "terminal", "command": self._number, "signal": signo})

    def end_input(self) -> None:
        """Let the command read the end: closes a pipe, types the character that means it at a terminal."""
        if self.stdin is None or self.stdin.closed:
            return
        if not self.has_terminal:
            self.stdin.close()
            return
        import termios

        from enisle.island.command_terminal import end_of_input

        self.write(end_of_input(termios.tcgetattr(self.stdin.fileno()), not self._typed_line), 1.0)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the command's terminal. Raises InvalidRequest, StateError without one."""
        if not self.has_terminal or self.stdin is None:
            raise StateError("the command has no terminal", "it was started without", "start it with one")
        from enisle.island.command_terminal import resize

        self._signal(resize(self.stdin.fileno(), rows, columns))

    # ---- output ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield ("stdout" or "stderr", chunk) as they come, until the command has ended.

        Processes it left behind may write on; that is not waited for.
        """
        return self._chunks(None)

    def _chunks(self, deadline: float | None) -> Iterator[tuple[str, bytes]]:
        with selectors.DefaultSelector() as selector:
            for name, file in (("stdout", self.stdout), ("stderr", self.stderr)):
                if file is not None:
                    os.set_blocking(file.fileno(), False)
                    selector.register(file, selectors.EVENT_READ, name)
            selector.register(self._ended, selectors.EVENT_READ, "ended")
            if self._feed is not None and self.stdin is not None:
                os.set_blocking(self.stdin.fileno(), False)
                selector.register(self.stdin, selectors.EVENT_WRITE, "stdin")
            ended = False
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = {key.data: key for key, _ in selector.select(0 if ended else left)}
                if ready.pop("stdin", None):
                    self._feed_some(selector)
                if ready.pop("ended", None):
                    ended = True  # what it wrote before is in the pipes already: one more round empties them
                    selector.unregister(self._ended)
                    continue
                yield from self._read_some(selector, ready)
                if ended and not ready:
                    yield from self._last_words()
                    return
                if deadline is not None and not ended and time.monotonic() >= deadline:
                    self._timed_out, deadline = True, None
                    self.kill()

    def _read_some(
        self, selector: selectors.BaseSelector, ready: Mapping[str, selectors.SelectorKey]
    ) -> Iterator[tuple[str, bytes]]:
        for name, key in ready.items():
            chunk = self._read(key.fd)
            if chunk:
                yield name, chunk
            else:
                selector.unregister(key.fileobj)

    def _read(self, descriptor: int) -> bytes:
        """Return what there is, nothing at the end: for our side of a terminal that is EIO (pty(7))."""
        try:
            return os.read(descriptor, CHUNK)
        except OSError:
            if not self.has_terminal:
                raise
            return b""

    def _last_words(self) -> Iterator[tuple[str, bytes]]:
        """Yield what a terminal still has: the host passes it on later than the writer goes on; only reading waits."""
        while self.has_terminal and (chunk := self._read(self.stdout.fileno())):
            yield "stdout", chunk

    def _feed_some(self, selector: selectors.BaseSelector) -> None:
        assert self.stdin is not None
        assert self._feed is not None
        try:
            if self._feed:
                self._feed = self._feed[os.write(self.stdin.fileno(), self._feed[:CHUNK]) :]
        except BrokenPipeError:
            self._feed = memoryview(b"")  # it does not want to read more
        if not self._feed:
            selector.unregister(self.stdin)
            self.stdin.close()
            self._feed = None

    def close(self) -> None:
        """Kill the command if it still runs, and close our ends of its pipes."""
        end = getattr(self, "_end", None)
        if end is not None and not end.answered.is_set():
            self.kill()
            end.answered.wait()
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1

    def __enter__(self) -> "RunningCommand":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
