"""QEMU's monitor (QMP, docs/interop/qmp-spec.rst), spoken by the qemu.qmp library, from ordinary threads.

QEMU serves one client at a time, so a conversation is short and holds a lock file. Promises: every call comes back
within its time limit, with an answer or an EnisleError. The library's coroutines run in one thread of this module.
"""

import asyncio
import concurrent.futures
import fcntl
import os
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from enisle.errors import HostError, StateError

Answer = TypeVar("Answer")
TIMEOUT = 10.0

_starting = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""The loop of this process, by its id: after a fork the thread is not there. Guarded by _starting."""


def _loop() -> asyncio.AbstractEventLoop:
    with _starting:
        if os.getpid() not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="enisle-qmp", daemon=True).start()
            _loops[os.getpid()] = loop
        return _loops[os.getpid()]


class Monitor:
    """One conversation with a QEMU, as a context manager. `address` is its socket."""

    def __init__(self, address: Path, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._client = QMPClient("enisle")
        self._directory = self._lock = -1

    def __enter__(self) -> "Monitor":
        self._lock = lock_within(self._address.parent.parent / "monitor.lock", self._timeout)
        try:
            # A socket's name has 107 bytes at most (unix(7)); a path through the descriptor is always short.
            self._directory = os.open(self._address.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._run(self._client.connect(f"/proc/self/fd/{self._directory}/{self._address.name}"))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._client.disconnect())
        except Exception:
            pass  # it has ended, or hangs: nothing more is wanted of it
        finally:
            self._close()

    def _close(self) -> None:
        for descriptor in (self._directory, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._lock = -1

    def execute(self, name: str, **arguments: Any) -> Any:
        """Return what a command answers. Raises StateError when QEMU refuses, HostError when it does not answer."""
        return self._run(self._client.execute(name, arguments))

    def human(self, line: str) -> str:
        """Return what a command of the monitor for people prints."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def lend(self, descriptor: int, name: str) -> None:
        """Give QEMU a descriptor, known to it by that name."""

        async def lend() -> None:
            self._client.send_fd_scm(descriptor)
            await self._client.execute("getfd", {"fdname": name})

        self._run(lend())

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        running = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, self._timeout), _loop())
        try:
            # The loop watches the time; here only against a loop that is gone.
            return running.result(self._timeout + 5)
        except Exception as error:
            raise _explain(error, self._address.parent.parent.name, self._timeout) from error
        finally:
            running.cancel()  # when interrupted: nobody waits for it any more


def execute_alone(address: Path, command: str, timeout: float) -> None:
    """Execute one command in this thread, which has no event loop. Raises StateError or HostError."""

    async def converse() -> None:
        client = QMPClient("enisle")
        directory = os.open(address.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await client.connect(f"/proc/self/fd/{directory}/{address.name}")
            await client.execute(command)
            await client.disconnect()
        finally:
            os.close(directory)

    try:
        asyncio.run(asyncio.wait_for(converse(), timeout))
    except Exception as error:
        raise _explain(error, address.parent.parent.name, timeout) from error


def _explain(error: Exception, name: str, seconds: float) -> Exception:
    """Return what to raise for an error of the library; a bug of ours stays what it is."""
    if isinstance(error, (TimeoutError, concurrent.futures.TimeoutError)):
        hint = f"enisle vm stop --force {name}"
        return HostError(f"QEMU of {name} hangs", f"it did not answer within {seconds:g} seconds", hint)
    if isinstance(error, ExecuteError):
        return StateError(f"QEMU of {name} refuses", str(error))
    # The library asserts that a connection it has just made still stands (0.0.6, AsyncProtocol.connect).
    if isinstance(error, (QMPError, OSError, EOFError, AssertionError)):
        return StateError(f"the machine {name} is not running", f"its monitor is gone: {error}", "enisle vm ps")
    return error


def lock_within(path: Path, seconds: float) -> int:
    """Return a descriptor that holds the lock file. Raises HostError when somebody else keeps it too long."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        name = path.parent.name
        raise StateError(f"the machine {name} is not running", error.strerror or "", "enisle vm ps") from error
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                why = f"somebody else has been talking to it for {seconds:g} seconds"
                raise HostError(f"the machine {path.parent.name} is busy", why, "try again") from None
            time.sleep(0.005)
        except BaseException:
            os.close(descriptor)
            raise
