"""The supervisor: holds a state directory, runs the engine and the platform's processes, and starts again what dies.

Its children die with it, also when it is killed (PR_SET_PDEATHSIG, prctl(2)); keepers of islands are not its children.
One thread owns it: it waits for children and signals, and does to the engine what the controller asks.
"""

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enisle.control import edge
from enisle.control.asks import Json, answer_all
from enisle.control.guests import API, DISPATCHER, controller_parts, prepare
from enisle.control.listening import check_address, check_engine, health, host_name, reached, remembered_port
from enisle.control.parts import Part, python
from enisle.control.places import Places, write_private
from enisle.control.platform import (
    PlatformInfo,
    PlatformOptions,
    announce,
    holder_of,
    lock_owner,
    require_layout,
    tail_of,
)
from enisle.errors import EnisleError, HostError, StateError
from enisle.tasks import Engine, admit_host, engine_address, expel_host, put_aside

HEALTHY_S = 40.0
TICK_S = 0.25


class Stopped(Exception):
    """A signal asked for the end."""


class Supervisor:
    """`Supervisor(places, options).run(ready)` returns when the platform has ended."""

    def __init__(self, places: Places, options: PlatformOptions) -> None:
        self._places, self._options = places, options
        self._lock_fd = -1
        self._wake = (-1, -1)
        self._stopping = False
        self._engine: Engine | None = None
        self._engine_again = 0.0
        self._parts: list[Part] = []
        self._info: PlatformInfo | None = None

    def run(self, ready: Callable[[PlatformInfo], None]) -> PlatformInfo:
        """Raises StateError when another has the directory, HostError when something cannot start."""
        self._take_lock()
        try:
            self._listen_to_signals()
            self._start()
            self._info = self._describe()
            announce(self._places, self._info)
            say(f"up at {self._info.url}")
            ready(self._info)
            while not self._stopping:
                self._wait(TICK_S)
                self._look_after()
            return self._info
        except Stopped:
            raise StateError("the platform was stopped", "while it started", "") from None
        finally:
            self._end()

    # ---- the beginning ---------------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        self._lock_fd = os.open(self._places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            why = f"process {lock_owner(self._places)} runs it on {self._places.directory}"
            raise StateError("the platform is up already", why, "`enisle status`, or `enisle down` first") from None
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)
        self._places.platform.unlink(missing_ok=True)  # of one that was killed

    def _listen_to_signals(self) -> None:
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signo, self._stop)
        signal.signal(signal.SIGCHLD, lambda signo, frame: None)

    def _stop(self, signo: int, frame: object) -> None:
        self._stopping = True

    def _start(self) -> None:
        options = self._options
        require_layout(options.controller)
        if options.joined:
            return self._start_joined()
        if options.api:
            check_address(options.listen, options.port)
        if options.engine_url:
            check_engine(options.engine_url)
            write_private(self._places.engine_url, options.engine_url)
        else:
            # Hosts that join reach it where the API is reached; beyond loopback it is encrypted (tasks.Engine).
            self._engine = Engine(self._places.engine, options.server or None, listen=options.listen)
            self._engine.__enter__()
            write_private(self._places.engine_url, self._engine.url)
        prepare(self._places)
        port, api, tls = 0, list[str](), (options.certificate, options.key)
        if options.api:
            port = options.port or remembered_port(self._places, options.listen)
            api = ["--listen", options.listen, "--port", str(port), *(["--insecure"] if options.insecure else [])]
            for name, value in zip(("--tls-certificate", "--tls-key"), tls, strict=True):
                api += [name, value] if value else []
        accept = ["--accept-store"] if options.accept_store else []
        self._parts += controller_parts(options.controller, self._places, (), accept, api, tls)
        if options.agent:
            words = ("agent", str(self._places.directory), "--host", self._host)
            self._parts.insert(1, Part("agent", python("enisle.control", *words)))
        self._url = f"http{'s' if options.certificate else ''}://{reached(options.listen)}:{port}" if port else ""
        for part in self._parts:
            part.start()
        if options.api:
            self._wait_until_healthy(port)

    def _start_joined(self) -> None:
        """Run the agent of another platform's host, and return once it has reached that platform."""
        places, host = self._places, self._host
        self._url = str(json.loads(Path(self._options.joined).read_text())["url"])
        words = ("agent", str(places.directory), "--host", host, "--joined", self._options.joined)
        self._parts.append(agent := Part("agent", python("enisle.control", *words)))
        agent.start()
        deadline = time.monotonic() + HEALTHY_S
        while holder_of(places, host) != agent.pid:
            self._wait(0.02)
            if self._stopping:
                raise Stopped
            if not agent.running or time.monotonic() > deadline:
                why = f"it says: {tail_of(places.log, 300)}" if not agent.running else "it does not reach the engine"
                raise HostError(f"the agent of {host} does not start", why, f"see {places.log}")

    @property
    def _host(self) -> str:
        return (self._options.host or host_name()) if self._options.agent else ""

    def _wait_until_healthy(self, port: int) -> None:
        deadline, why = time.monotonic() + HEALTHY_S, ""
        while time.monotonic() < deadline:
            self._wait(0.02)
            if self._stopping:
                raise Stopped
            for part in self._parts:
                if not part.running and (part.name == API or part.island):
                    what = "the controller's island" if part.island else "the API"
                    why = f"{part.last_words()}. {tail_of(self._places.log, 300)}"
                    hint = "`enisle up` without --controller needs no island" if part.island else ""
                    raise HostError(f"{what} does not start", why, hint or f"see {self._places.log}")
            self._look_after()
            why = health(self._options.listen, port, bool(self._options.certificate))
            if not why:
                return
        raise HostError("the platform does not become healthy", why, f"see {self._places.log}")

    def _describe(self) -> PlatformInfo:
        import enisle

        return PlatformInfo(
            url=self._url,
            pid=os.getpid(),
            engine_port=self._engine.port if self._engine else 0,
            started=time.time(),
            version=enisle.__version__,
            host=self._host,
            directory=str(self._places.directory),
            parts=self._processes(),
            controller=self._options.controller,
            joined=bool(self._options.joined),
        )

    def _processes(self) -> dict[str, int]:
        engine = {"engine": self._engine.pid} if self._engine and self._engine.running else {}
        return engine | {part.name: part.pid for part in self._parts if part.running}

    # ---- while it runs ---------------------------------------------------------------------------------------------

    def _wait(self, timeout_s: float) -> None:
        """Sleep until a child dies, a signal comes or the time is over."""
        if select.select([self._wake[0]], [], [], timeout_s)[0]:
            os.read(self._wake[0], 512)

    def _look_after(self) -> None:
        """Start again what died: the engine at once, the others after a pause that doubles."""
        changed = False
        self._answer()
        if self._engine and not self._engine.running and time.monotonic() >= self._engine_again:
            say("the engine died; starting it again")
            self._engine_again = time.monotonic() + 1.0
            try:
                self._engine.start()
                write_private(self._places.engine_url, self._engine.url)
                changed = True
            except EnisleError as error:
                say(str(error))
        elif self._engine and time.monotonic() >= self._engine_again:
            self._engine_again = time.monotonic() + 2.0
            try:
                if self._engine.heal():
                    say("the engine could not write; there is room now, so it was started again")
            except EnisleError as error:
                say(str(error))
        for part in self._parts:
            changed |= part.look_after()
        if changed and self._info:
            self._info = self._info._replace(parts=self._processes(), engine_port=self._engine_port())
            try:
                announce(self._places, self._info)
            except HostError as error:
                say(str(error))

    def _answer(self) -> None:
        """Do what the controller may ask: the API lets hosts in, the dispatcher makes a lost stream anew."""
        if engine := self._engine:
            directory = engine.directory
            answer_all(self._places.asks(API), {"admit": lambda it: _admit(directory, it), "expel": self._expel})
            answer_all(self._places.asks(DISPATCHER), {"put-aside": lambda it: _put_aside(directory, it)})

    def _expel(self, asked: Json) -> Json:
        expel_host(self._places.engine, str(asked["host"]))
        return {}

    def _engine_port(self) -> int:
        return self._engine.port if self._engine else 0

    # ---- the end ---------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End the children, those above first: the API, the agent, the dispatcher, the engine."""
        for part in reversed(self._parts):
            part.stop()
        if self._engine:
            self._engine.__exit__(None, None, None)
        signal.set_wakeup_fd(-1)
        for descriptor in self._wake:
            if descriptor >= 0:
                os.close(descriptor)
        if lock_owner(self._places) == os.getpid():  # else the directory was removed, and may be another's by now
            self._places.platform.unlink(missing_ok=True)
        os.close(self._lock_fd)
        say("down")


def _admit(engine: Path, asked: Json) -> Json:
    admit_host(engine, str(asked["host"]), str(asked["key"]))
    address = engine_address(engine)
    return {"engine_url": address.hosts_url, "ca": address.ca.read_text() if address.ca else ""}


def _put_aside(engine: Path, asked: Json) -> Json:
    put_aside(engine, str(asked["stream"]))
    return {}


def say(line: str) -> None:
    """Write a line of the log, with its time."""
    edge.say(time.strftime("%Y-%m-%dT%H:%M:%SZ supervisor", time.gmtime()), line)


def main(state: str) -> int:
    """Run a detached supervisor: tell the starter through standard output how it went, then let go of it."""
    from enisle.control.platform import describe

    options = PlatformOptions(**json.loads(os.environ.pop("ENISLE_PLATFORM_OPTIONS", "{}")))

    def ready(info: PlatformInfo) -> None:
        _tell({"ok": info._asdict()})

    try:
        Supervisor(Places(state), options).run(ready)
    except EnisleError as error:
        say(str(error))
        _tell({"error": describe(error)})
        return error.exit_code
    return 0


def _tell(answer: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # the starter did not wait
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)
