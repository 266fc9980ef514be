"""What is said to a machine and by it: its serial console, its virtio ports, the debugger's socket."""

import fcntl
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from enisle.errors import GuestError, HostError, StateError
from enisle.linuxvm import state
from enisle.linuxvm.hold import Holdable


class Talkative(Holdable):
    """A machine with a console. `wait` comes from below."""

    def wait(self, timeout: float | None = None) -> str | None:
        """Wait for its end; return the reason, or None when `timeout` seconds were not enough."""
        raise NotImplementedError

    @property
    def console_log(self) -> Path:
        """What it wrote to its console, the last megabytes."""
        return self.directory / state.PEN / "console.log"

    def port(self, name: str) -> Path:
        """Return the file that what it writes to a virtio port lands in."""
        return self.directory / state.PEN / f"port-{name}"

    @property
    def gdb(self) -> Path:
        """The socket where a debugger may connect (`VmConfig.gdb`)."""
        return self.directory / state.PEN / "gdb"

    @contextmanager
    def console(self) -> Generator[socket.socket, None, None]:
        """Hold its serial console: what is sent is typed. Raises StateError when somebody else does."""
        self.require_alive()
        with open(self.directory / "console.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"the console of {self.name} is taken", "one may sit at it at a time", "leave the other one first"
                ) from None
            with self.connect("console") as connection:
                yield connection

    @contextmanager
    def connect(self, name: str) -> Generator[socket.socket, None, None]:
        """Connect to one of QEMU's sockets ("console", "gdb")."""
        directory = os.open(self.directory / state.PEN, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(f"/proc/self/fd/{directory}/{name}")
            except OSError as error:
                why = f"its {name} is gone: {error.strerror}"
                raise StateError(f"the machine {self.name} is not running", why, "enisle vm ps") from error
            finally:
                os.close(directory)
            yield connection

    def wait_for_console(self, text: str, timeout: float = 60.0) -> None:
        """Wait until its console has said something. Raises GuestError when it ends first, HostError when late."""
        deadline = time.monotonic() + timeout
        wanted = text.encode()
        while wanted not in self._console():
            if (reason := self.wait(0.05)) is not None:
                if wanted in self._console():
                    return
                raise GuestError(f"{self.name} ended before it said {text!r}", reason, "look at its console")
            if time.monotonic() > deadline:
                tail = self._console()[-200:].decode(errors="replace").strip()
                raise HostError(f"{self.name} did not say {text!r} within {timeout:g} seconds", tail)

    def _console(self) -> bytes:
        try:
            return self.console_log.read_bytes()
        except OSError:
            return b""
