"""Asking a server of ours what it is, without the client library: who starts it is no event loop.

Speaks the few words of the protocol that takes (NATS protocol: INFO, CONNECT, SUB, PUB, MSG). One thread, short calls.
"""

import json
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from enisle.errors import HostError

PROBE_S = 2.0


def greeting(address: str, port: int, timeout_s: float = 0.2) -> dict[str, Any] | None:
    """Return what the server at an address says of itself (INFO), None when nothing such is there."""
    try:
        with socket.create_connection((address, port), timeout_s) as connection:
            return _info(connection.makefile("rb").readline())
    except (OSError, ValueError):
        return None


def ask_system(what: str, address: str, port: int, password: str, ca: Path | None) -> dict[str, Any]:
    """Return the server's account of itself (VARZ, HEALTHZ), as its system user may ask. Raises HostError."""
    try:
        return _ask(what, address, port, password, ca)
    except (OSError, ValueError, KeyError, IndexError) as error:
        why = f"{type(error).__name__} {error}".strip()
        raise HostError("the engine does not tell how it keeps data", why, "is it our nats-server?") from error


def _ask(what: str, address: str, port: int, password: str, ca: Path | None) -> dict[str, Any]:
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((address, port), PROBE_S))
        lines = connection.makefile("rb")
        _info(lines.readline())
        if ca is not None:  # the greeting comes in the clear, then both sides encrypt
            context = ssl.create_default_context(cafile=str(ca))
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=address))
            lines = connection.makefile("rb")
        user = {"user": "system", "pass": password, "verbose": False, "pedantic": False, "lang": "", "version": ""}
        ask = f"SUB answer 1\r\nPUB $SYS.REQ.SERVER.PING.{what} answer 0\r\n\r\n"
        connection.sendall(f"CONNECT {json.dumps(user)}\r\n{ask}PING\r\n".encode())
        while line := lines.readline():
            if line.startswith(b"MSG"):
                return json.loads(lines.read(int(line.split()[-1])))["data"]
            if line.startswith(b"-ERR"):
                raise ValueError(line.decode().strip())
        raise ValueError("it hung up")


def _info(line: bytes) -> dict[str, Any]:
    word, _, rest = line.partition(b" ")
    if word != b"INFO":
        raise ValueError("not an engine")
    return json.loads(rest)
