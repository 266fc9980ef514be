"""Where the platform listens and whether it can: addresses, ports and engines, looked at before anything is started.

Short questions from the supervisor's thread.
"""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from enisle.control.places import Places, write_private
from enisle.errors import HostError, InvalidRequest
from enisle.tasks import spread


def host_name() -> str:
    """Return this computer's name, as a name of the platform."""
    plain = "".join(
        sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in socket.gethostname()
    )
    return plain.strip("-_")[:64] or "host"


def check_address(listen: str, port: int) -> None:
    """Raises HostError when that cannot be listened on."""
    try:
        family, _, _, _, address = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        hint = "another program has it; choose another with --port"
        raise HostError(f"cannot listen on {listen}:{port}", error.strerror or "", hint) from None


def check_engine(urls: str) -> None:
    """Raises HostError when nobody listens at any of the URLs, InvalidRequest when one is none."""
    why = ""
    for url in (urls.partition(",")[0], *spread([urls])[1:]):  # the first says how all are spoken to
        scheme, host, port = _parsed(url)
        if not host or scheme not in ("nats", "tls"):
            raise InvalidRequest(
                "this names no engine", "its address begins with nats:// or tls://", "nats://HOST:PORT"
            )
        try:
            socket.create_connection((host, port), 3.0).close()
            return
        except OSError as error:
            why = f"{host}:{port}: {error.strerror or error}"
    raise HostError("cannot reach the engine", why, "is it running there?")


def _parsed(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url.strip())
        return parts.scheme, parts.hostname or "", parts.port or 4222
    except ValueError:
        return "", "", 0


def remembered_port(places: Places, listen: str) -> int:
    """Return the port this platform had, when it is free, else one that is."""
    path = places.directory / "port"
    try:
        known = int(path.read_text())
        check_address(listen, known)
        return known
    except (OSError, ValueError, HostError):
        pass
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((listen, 0))
        port: int = probe.getsockname()[1]
    write_private(path, f"{port}\n")
    return port


def reached(listen: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
    return f"[{host}]" if ":" in host else host


def health(listen: str, port: int, tls: bool) -> str:
    """Return what is wrong, "" when nothing is."""
    import ssl

    host = reached(listen).strip("[]")
    if tls:
        # Only whether our own child is up is asked, on this host; nothing secret is said.
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=2, context=ssl._create_unverified_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        told: Any = json.loads(answer.read() or b"{}")
        reasons: list[str] = list(told.get("reasons", []))
        if answer.status == 200 or any(reason.startswith("safe mode") for reason in reasons):
            return ""  # in safe mode it is up, and says why it changes nothing
        return "; ".join(reasons) or f"status {answer.status}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
