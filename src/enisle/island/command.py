"""A command running on an island, seen from the SDK: its output as it comes, its end, and what came of it.

Owned by the thread that reads it; `kill` may be called by any.
"""

import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from enisle.island.child import Child
from enisle.records import Record

CHUNK = 1 << 16
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
        self, child: Child, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, stdin: Stdin
    ) -> None:
        self._child = child
        self._feed: memoryview | None = None
        self._timed_out = False
        self.stdin: IO[bytes] | None = None
        theirs = self._open_stdin(stdin)
        stdout, their_stdout = os.pipe()
        stderr, their_stderr = os.pipe()
        self.stdout, self.stderr = open(stdout, "rb", 0), open(stderr, "rb", 0)  # noqa: SIM115 - closed in `close`
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        message = {"call": "start", "argv": list(argv), "env": dict(env), "cwd": cwd}
        try:
            self._number: int = child.call(message, (theirs, their_stdout, their_stderr))["command"]
            self._end = child.request({"call": "wait", "command": self._number}, wake=self._ended)
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in (theirs, their_stdout, their_stderr):
                os.close(descriptor)

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

    # ---- output ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield ("stdout" or "stderr", chunk) as they come, until the command has ended.

        Processes it left behind may write on; that is not waited for.
        """
        return self._chunks(None)

    def _chunks(self, deadline: float | None) -> Iterator[tuple[str, bytes]]:
        with selectors.DefaultSelector() as selector:
            for name, file in (("stdout", self.stdout), ("stderr", self.stderr)):
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
                    return
                if deadline is not None and not ended and time.monotonic() >= deadline:
                    self._timed_out, deadline = True, None
                    self.kill()

    def _read_some(
        self, selector: selectors.BaseSelector, ready: Mapping[str, selectors.SelectorKey]
    ) -> Iterator[tuple[str, bytes]]:
        for name, key in ready.items():
            chunk = os.read(key.fd, CHUNK)
            if chunk:
                yield name, chunk
            else:
                selector.unregister(key.fileobj)

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
