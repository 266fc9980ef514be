"""Starting, finding and ending the platform of a state directory.

The supervisor is a process of its own, detached unless it stays in the foreground; it holds the lock of the state
directory, so that two never share one. A killed platform leaves its platform.json behind: the lock tells, not the file.
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enisle import errors
from enisle.control.places import Places, write_private
from enisle.errors import EnisleError, HostError, InvalidRequest, StateError
from enisle.records import Record

LAYOUTS = ("host", "island", "islands")
"""Where the controller runs: on the host, on one island, or dispatcher and API on one each."""
START_S = 60.0
STOP_S = 30.0


class PlatformOptions(Record):
    """How a platform is to run. `port` 0: the one it had, else a free one; `engine_url` "": an engine of its own."""

    listen: str = "127.0.0.1"
    port: int = 0
    engine_url: str = ""
    agent: bool = True
    api: bool = True
    accept_store: bool = False
    host: str = ""
    """What the platform calls this computer; empty: its own name."""
    server: str = ""
    """Another nats-server than the installed one."""
    certificate: str = ""
    key: str = ""
    insecure: bool = False
    controller: str = "host"
    """One of LAYOUTS."""
    joined: str = ""
    """What this computer agreed with another platform (`joined.json`): then only an agent of that one runs here."""


class PlatformInfo(Record):
    """A platform that is up."""

    url: str
    pid: int
    """The supervisor's."""
    engine_port: int
    started: float
    version: str
    host: str
    """What this computer is called in it; "": it runs nothing."""
    directory: str
    parts: dict[str, int] = {}
    """Processes by their part."""
    controller: str = "host"
    """Its layout."""
    joined: bool = False
    """It is a host of the platform at `url`, and nothing else."""


def require_layout(layout: str) -> str:
    """Return the layout. Raises InvalidRequest."""
    if layout not in LAYOUTS:
        why = f"there are {', '.join(LAYOUTS)}"
        raise InvalidRequest(f"the controller cannot run on {layout!r}", why, "--controller island")
    return layout


def platform_info(places: Places) -> PlatformInfo:
    """Return what runs on a state directory. Raises StateError when nothing does."""
    pid = lock_owner(places)
    if pid is None:
        raise StateError("the platform is not up", f"nothing runs on {places.directory}", "`enisle up`")
    info = try_info(places)
    if info is None or info.pid != pid:
        raise StateError("the platform is starting", f"process {pid} has not said yet where it listens", "try again")
    return info


def try_info(places: Places) -> PlatformInfo | None:
    try:
        told: dict[str, Any] = json.loads(places.platform.read_text())
        return PlatformInfo(**{name: told[name] for name in PlatformInfo._fields if name in told})
    except (OSError, ValueError, TypeError):
        return None


def lock_owner(places: Places) -> int | None:
    """Return the process that holds the state directory, None when nobody does."""
    try:
        descriptor = os.open(places.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return int(os.pread(descriptor, 20, 0).decode().strip() or 0)
    finally:
        os.close(descriptor)


def holder_of(places: Places, host: str) -> int:
    """Return the process whose agent works for a host, 0 when none does or it has not reached its engine yet."""
    try:
        return int((places.host(host) / "agent.lock").read_text() or 0)
    except (OSError, ValueError):
        return 0


def start_platform(
    places: Places,
    listen: str = "127.0.0.1",
    port: int = 0,
    *,
    foreground: bool = False,
    ready: Callable[[PlatformInfo], None] = lambda info: None,
    **options: Any,
) -> PlatformInfo:
    """Start a platform and return when it works; `options` are those of PlatformOptions.

    In the foreground it returns when the platform has ended; `ready` is told meanwhile. Raises StateError when one runs
    there already, HostError or InvalidRequest when it cannot.
    """
    wanted = PlatformOptions(listen=listen, port=port, **options)
    places.prepare()
    owner = lock_owner(places)
    if owner is not None:
        why = f"process {owner} runs it on {places.directory}"
        raise StateError("the platform is up already", why, "`enisle status`, or `enisle down` first")
    if foreground:
        from enisle.control.supervisor import Supervisor

        return Supervisor(places, wanted).run(ready)
    info = _wait_until_ready(_spawn(places, wanted), places)
    ready(info)
    return info


def _spawn(places: Places, wanted: PlatformOptions) -> "subprocess.Popen[bytes]":
    """Start the supervisor on its own; its words go to the log, and through a pipe until it works."""
    try:
        log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot write {places.log}", error.strerror or "", "make room on that disk") from error
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "enisle.control", "supervise", str(places.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={**os.environ, "ENISLE_PLATFORM_OPTIONS": json.dumps(wanted._asdict())},
        )
    finally:
        os.close(log)


def _wait_until_ready(process: "subprocess.Popen[bytes]", places: Places) -> PlatformInfo:
    """Read what the supervisor tells: that it works, or why it does not."""
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        told = _read_line(process.stdout.fileno(), START_S)
    except TimeoutError:
        process.terminate()
        raise HostError(
            "the platform does not start", f"it took more than {START_S:g} s", f"see {places.log}"
        ) from None
    finally:
        process.stdout.close()
        process.stdout = None
    if not told:
        why = f"its supervisor ended with {process.wait()}: {tail_of(places.log)}"
        raise HostError("the platform does not start", why, f"see {places.log}")
    answer = json.loads(told)
    if "error" in answer:
        process.wait()
        raise rebuild(answer["error"])
    process.returncode = 0  # it goes on without us: nobody waits for it
    return PlatformInfo(**answer["ok"])


def _read_line(descriptor: int, timeout_s: float) -> bytes:
    line, deadline = b"", time.monotonic() + timeout_s
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(descriptor, 65536)
        if not part:
            break
        line += part
    return line


def describe(error: BaseException) -> dict[str, str]:
    """Return an error as a record; `rebuild` makes it one again."""
    if isinstance(error, EnisleError):
        kind = next(one.__name__ for one in type(error).__mro__ if hasattr(errors, one.__name__))
        return {"kind": kind, "message": error.message, "why": error.why, "hint": error.hint}
    return {"kind": "HostError", "message": f"{type(error).__name__}: {error}", "why": "", "hint": ""}


def rebuild(told: dict[str, Any]) -> EnisleError:
    kind = getattr(errors, str(told.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, EnisleError)):
        kind = EnisleError
    return kind(str(told.get("message", "")), str(told.get("why", "")), str(told.get("hint", "")))


def tail_of(path: Path, size: int = 400) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def stop_platform(places: Places, islands: bool = False) -> PlatformInfo:
    """End the platform; its islands go on unless `islands`. Returns what ran. Raises StateError, HostError."""
    info = platform_info(places)
    try:
        handle = os.pidfd_open(info.pid)
    except ProcessLookupError:
        raise StateError("the platform is not up", "it has just ended", "`enisle up`") from None
    try:
        if islands:
            from enisle.control.keeper_client import stop_all

            for host in sorted((places.directory / "hosts").glob("*/islands")):
                stop_all(host)
        if lock_owner(places) == info.pid:  # its number is its own as long as it holds the lock
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], STOP_S)[0]:
            why = f"process {info.pid} is there after {STOP_S:g} s"
            raise HostError("the platform does not end", why, f"see {places.log}; kill -9 {info.pid}")
    except ProcessLookupError:
        pass  # just now
    finally:
        os.close(handle)
    return info


def announce(places: Places, info: PlatformInfo) -> None:
    write_private(places.platform, json.dumps(info._asdict()) + "\n")
