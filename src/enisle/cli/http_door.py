"""The door to a platform over HTTP: one connection, answers as JSON, problem documents as errors, events as they come.

What the platform calls a failure is raised as the same kind of error; everything the network does is Unreachable.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from enisle.api import within
from enisle.cli.reach import NO_QUERY, Query, Unreachable
from enisle.errors import EnisleError, GuestError, HostError, InvalidRequest, NotFound, StateError

CONNECT_S = 5.0
READ_S = 45.0
"""More than any answer waits, and than four heartbeats of the events."""
KINDS: dict[str, type[EnisleError]] = {
    "invalid-request": InvalidRequest,
    "key-taken": InvalidRequest,
    "not-found": NotFound,
    "state-error": StateError,
    "host-error": HostError,
    "guest-error": GuestError,
    "too-many": StateError,
}
STATUSES: dict[int, type[EnisleError]] = {400: InvalidRequest, 404: NotFound, 409: StateError, 503: HostError}


class HttpDoor:
    """Asks the platform at an address with a token, in a tenant; `ca` names a file of certificates to trust.

    One thread owns it.
    """

    def __init__(self, url: str, token: str = "", ca: str = "", tenant: str = "") -> None:
        parts = urlsplit(url)
        try:
            self._port = parts.port
        except ValueError:
            self._port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or self._port == -1 or parts.query:
            raise InvalidRequest(f"{url!r} is no address of a platform", "it is no URL", "http://127.0.0.1:4600")
        self.url = url.rstrip("/")
        self._host, self._secure, self._base = parts.hostname, parts.scheme == "https", parts.path.rstrip("/")
        self._token, self._ca, self._tenant = token, ca, tenant
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> "HttpDoor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def ask(self, method: str, path: str, query: Query = NO_QUERY, body: Any = None, key: str = "") -> Any:
        """Return what is answered. Raises EnisleError."""
        content = None if body is None else json.dumps(body).encode()
        return self._asked(method, path, query, content, "application/json", key)

    def upload(self, path: str, query: Query, content: bytes, key: str, method: str = "PUT") -> Any:
        return self._asked(method, path, query, content, "application/octet-stream", key)

    def _asked(self, method: str, path: str, query: Query, content: bytes | None, media: str, key: str) -> Any:
        headers = {"Content-Type": media} if content is not None else {}
        if key:
            headers["Idempotency-Key"] = key
        answer = self._send(method, path, query, content, headers)
        found = self._read(answer)
        try:
            return json.loads(found) if found else None
        except (ValueError, RecursionError) as error:
            why = "what it said is no JSON: it is no platform, perhaps"
            raise HostError(f"{self.url} cannot be understood", why, "check the address") from error

    def download(self, path: str, query: Query) -> Iterator[bytes]:
        answer = self._send("GET", path, query, None, {})
        while part := self._read(answer, 256 << 10):
            yield part

    def events(self) -> Iterator[tuple[str, str, Any]]:
        """Yield events until the connection breaks, which is Unreachable too."""
        answer = self._send("GET", "/v1/events", NO_QUERY, None, {"Accept": "text/event-stream"})
        name, told = "", ""
        while line := self._line(answer):
            field, _, value = line.rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                told += value
            elif not field and not value and name:
                found: dict[str, Any] = json.loads(told or "{}")
                yield name, str(found.get("id", "")), found.get("value")
                name, told = "", ""
        raise Unreachable("the platform ended the stream of events", self.url, "enisle status")

    def _send(
        self, method: str, path: str, query: Query, content: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """Return an answer that is no problem. A connection that broke is made again, for what may be asked twice."""
        query = within(self._tenant, path, query)
        target = self._base + quote(path) + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", **headers}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        fresh = self._connection is None
        try:
            connection = self._connection or self._connect()
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not fresh and (method == "GET" or "Idempotency-Key" in headers) and not isinstance(error, TimeoutError):
                return self._send(method, path, query, content, headers)
            raise self._lost(error) from error
        if answer.status >= 400:
            raise self._problem(answer.status, self._read(answer))
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_S, context=_trust(self._ca)
            )
        else:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        self._connection.connect()
        self._connection.sock.settimeout(READ_S)
        return self._connection

    def _read(self, answer: http.client.HTTPResponse, most: int | None = None) -> bytes:
        try:
            return answer.read(most)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._lost(error) from error

    def _line(self, answer: http.client.HTTPResponse) -> str:
        try:
            return answer.readline().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> EnisleError:
        """Return what the network did, told so that it can be acted on."""
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate: {error.verify_message}"
            return HostError(f"the platform at {self.url} is not to be trusted", why, "name its certificate with --ca")
        if isinstance(error, ssl.SSLError):
            hint = "does it speak TLS? an address begins with http or https"
            return HostError(f"cannot speak TLS with {self.url}", error.reason or str(error), hint)
        if isinstance(error, socket.gaierror):
            return HostError(f"cannot find {self._host}", error.strerror or "", "check the address")
        why = "it took too long" if isinstance(error, TimeoutError) else getattr(error, "strerror", "") or str(error)
        return Unreachable(f"the platform at {self.url} does not answer", why or type(error).__name__, "enisle status")

    def _problem(self, status: int, content: bytes) -> EnisleError:
        try:
            told: Any = json.loads(content)
            message, why, hint = (str(told.get(name) or "") for name in ("detail", "why", "hint"))
            kind = KINDS.get(str(told.get("kind"))) or STATUSES.get(status, EnisleError)
            if "reasons" in told and not message:
                message, why = "the platform is not well", "; ".join(map(str, told["reasons"]))
        except (ValueError, AttributeError, TypeError):
            kind, message, why, hint = STATUSES.get(status, EnisleError), "", "", ""
        if not message:
            message, why = f"{self.url} answered with {status}", why or "it is no platform, perhaps"
        return kind(message, why, hint)


def _trust(ca: str) -> ssl.SSLContext:
    """Return how a platform proves who it is. Raises InvalidRequest for a file that holds no certificates."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise InvalidRequest(f"cannot use the certificates in {ca}", why, "--ca FILE, in PEM") from None
