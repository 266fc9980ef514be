"""The engine as a child of ours: one nats-server with JetStream, for a platform whose state is on this computer.

Promises: synced to disk before anything is acknowledged, and refused when the server says otherwise (Jepsen's analysis
of NATS 2.12 shows what its default loses); passwords known to the holder of the state directory alone; encrypted when
it listens beyond loopback; the server dies with us, also when we are killed. Owned by one thread.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from enisle.errors import HostError, InvalidRequest, StateError
from enisle.tasks.admission import (
    ACCOUNTS,
    CONFIGURATION,
    LOG,
    PID,
    EngineAddress,
    engine_address,
    write_accounts,
    write_whole,
)
from enisle.tasks.connection import OLDEST, room, too_old
from enisle.tasks.probe import ask_system, greeting
from enisle.tasks.server import die_with, find_server, free_port, is_free, is_loopback

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
MAX_PAYLOAD = 1 << 20
ROOM_BYTES = 4 << 20
"""With less room on its disk an engine is not started anew: it could not write either."""
LOG_BYTES = 8 << 20
"""A log longer than this is put aside at the next start; one such is kept."""

SERVER = """\
server_name: {name}
listen: {listen}
pid_file: {pid}
max_payload: {payload}
{tls}
include {accounts}
jetstream {{ store_dir: {store}, sync_interval: always, max_memory_store: 256MB, max_file_store: {file_bytes} }}
"""


class Engine:
    """One server over one state directory. `with Engine(path) as engine: engine.url`."""

    def __init__(
        self,
        directory: Path,
        server: str | None = None,
        port: int = 0,
        file_bytes: int = 8 << 30,
        *,
        listen: str = "127.0.0.1",
        tls: bool | None = None,
        advertise: str = "",
    ) -> None:
        self.directory, self._server, self._wanted_port = directory.absolute(), find_server(server), port
        self._file_bytes, self._listen, self._advertised = file_bytes, listen, advertise
        loopback = is_loopback(listen)
        if tls is False and not loopback:
            why = f"{listen} is reached by other computers"
            raise InvalidRequest("the engine cannot listen there without encryption", why, "leave TLS on")
        self._tls = tls if tls is not None else not loopback
        self._lock_fd = -1
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> EngineAddress:
        return engine_address(self.directory)

    @property
    def url(self) -> str:
        """Where we ourselves reach it; only for processes that may read the state directory."""
        return self.address.url

    @property
    def hosts_url(self) -> str:
        """Where admitted hosts reach it, each with its own seed."""
        return self.address.hosts_url

    @property
    def port(self) -> int:
        return self.address.port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def responds(self, timeout_s: float = 2.0) -> bool:
        """Whether the server greets whoever connects: a stopped process does not."""
        return greeting(self.address.contact, self.port, timeout_s) is not None

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
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            raise HostError("the platform's state cannot be kept", why, "name another directory with --state") from None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock_fd, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise StateError(
                f"{self.directory} is in use",
                f"process {owner} runs a platform on it",
                "`enisle down`, or name another",
            ) from None
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server, or start it again after its death; the address and the passwords stay.

        Raises HostError, also when what runs then is too old or does not sync what it acknowledges.
        """
        assert not self.running
        try:
            self._write_files()
            self._spawn()
        except OSError as error:
            why = f"{error.filename or self.directory}: {error.strerror}"
            raise HostError("the engine does not start", why, "is the disk full?") from error
        try:
            self._wait_until_up()
            require_synced(self.address)
        except BaseException:
            self.stop()
            raise

    def _write_files(self) -> None:
        self._remember()
        if self._tls:
            from enisle.tasks.certificates import addresses, write_certificates

            write_certificates(self.directory, [*addresses(self._listen), self.address.contact, self._advertises()])
        write_accounts(self.directory)
        text = json.dumps  # a quoted string of JSON is one of the engine's configuration too
        files = {name: text(str(self.directory / f"server.{name}")) for name in ("pem", "key")}
        tls = f"tls {{ cert_file: {files['pem']}, key_file: {files['key']}, timeout: 5 }}" if self._tls else ""
        listen = f"[{self._listen}]" if ":" in self._listen else self._listen
        server = SERVER.format(
            name=text(f"enisle-{self.directory.name or 'root'}"),
            listen=text(f"{listen}:{self.port}"),
            pid=text(str(self.directory / PID)),
            payload=MAX_PAYLOAD,
            tls=tls,
            accounts=text(ACCOUNTS),
            store=text(str(self.directory / "store")),
            file_bytes=self._file_bytes,
        )
        write_whole(self.directory / CONFIGURATION, server)

    def _remember(self) -> None:
        """Write down where we are; the port and the passwords of before are kept when they can be read."""
        with contextlib.suppress(StateError):
            known = self.address
            self._write_address(self._choose_port(known.port), known.password, known.system)
            return
        self._write_address(self._choose_port(0), secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    def _write_address(self, port: int, password: str, system: str) -> None:
        parts: dict[str, Any] = {"port": port, "password": password, "system": system, "tls": self._tls}
        contact = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._listen, self._listen)
        write_whole(
            self.directory / "engine.json", json.dumps(parts | {"contact": contact, "advertised": self._advertises()})
        )

    def _advertises(self) -> str:
        """Return the address hosts are told."""
        if self._advertised or self._listen not in ("0.0.0.0", "::"):
            return self._advertised or self._listen
        from enisle.tasks.certificates import outward_address

        return outward_address()

    def _choose_port(self, before: int) -> int:
        if self._wanted_port:
            if not is_free(self._listen, self._wanted_port):
                why = "another program has it"
                raise HostError(f"cannot listen on port {self._wanted_port}", why, "choose another with --port")
            return self._wanted_port
        return before if before and is_free(self._listen, before) else free_port(self._listen)

    def _spawn(self) -> None:
        path = self.directory / LOG
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.rename(path.with_suffix(".old"))
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with contextlib.closing(os.fdopen(log, "wb")) as output:
            self._process = subprocess.Popen(
                [self._server, "-c", self.directory / CONFIGURATION],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with(os.getpid()),
            )

    def _wait_until_up(self) -> None:
        assert self._process is not None
        deadline, address = time.monotonic() + START_TIMEOUT_S, self.address
        while time.monotonic() < deadline and self._process.poll() is None:
            if told := greeting(address.contact, address.port):
                version = str(told.get("version", "0"))
                if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
                    raise too_old(version)
                return
            time.sleep(0.005)
        last = (self.directory / LOG).read_text(errors="replace").strip().splitlines()[-1:]
        raise HostError("the engine does not start", "".join(last), f"see {self.directory}/{LOG}")

    def heal(self) -> bool:
        """Start a server anew that could not write once and takes nothing since, when there is room; whether it was.

        After a failed write the engine keeps silent about the stream until its next start. Raises HostError.
        """
        if not self.running:
            return False
        try:
            ailment = find_ailment(self.address)
        except HostError:
            return False  # stopped or overloaded; it may come back by itself
        if "write error" not in ailment or room(self.directory) < ROOM_BYTES:
            return False
        self.stop()
        self.start()
        return True

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


def find_ailment(address: EngineAddress) -> str:
    """Return what a running engine says is wrong with it, an empty string when nothing is. Raises HostError."""
    told = ask_system("HEALTHZ", address.contact, address.port, address.system, address.ca)
    return "" if told.get("status") == "ok" else str(told.get("error") or told.get("status"))


def require_synced(address: EngineAddress) -> None:
    """Ask a running engine of ours whether it syncs each message before it answers. Raises HostError when not."""
    told = ask_system("VARZ", address.contact, address.port, address.system, address.ca)
    if told.get("jetstream", {}).get("config", {}).get("sync_always") is not True:
        why = "it answers before what it was given is on disk: a power cut would lose locks (sync_interval)"
        raise HostError("the engine is not safe", why, "`enisle down`, then `enisle up`: its configuration is ours")
