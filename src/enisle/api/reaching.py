"""How a client reaches its platform: the address, what may be asked again, problems made errors again, events read.

What is the same for the sync and the async client. Pure but for `find_address`, which reads the environment, the
contexts and the local platform's files.
"""

import json
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from enisle.api.contexts import find_context, load_contexts
from enisle.errors import EnisleError, GuestError, HostError, InvalidRequest, NotFound, StateError
from enisle.records import Record

PATIENCE_S = 8.0
"""How long something that may be asked twice is asked again when nobody answers."""
TIMEOUT = httpx.Timeout(10.0, read=45.0)
KINDS: dict[str, type[EnisleError]] = {
    "invalid-request": InvalidRequest,
    "key-taken": InvalidRequest,
    "not-found": NotFound,
    "state-error": StateError,
    "too-many": StateError,
    "host-error": HostError,
    "guest-error": GuestError,
}
Json = dict[str, Any]


class Address(Record):
    """Where a platform is, and what lets us in."""

    url: str
    token: str = ""
    ca: str = ""

    def options(self) -> Json:
        """Return what httpx makes a client from. A proxy of the environment is not asked for loopback."""
        import ssl

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        local = urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")
        verify = ssl.create_default_context(cafile=self.ca) if self.ca else True
        return {"base_url": self.url, "headers": headers, "timeout": TIMEOUT, "verify": verify, "trust_env": not local}


def find_address(url: str | None = None, token: str | None = None) -> Address:
    """Return what was named, or ENISLE_URL, or the current context, or the platform of this user on this computer.

    Raises StateError when there is none of them, HostError when it cannot be read.
    """
    url = url or os.environ.get("ENISLE_URL") or ""
    token = token or os.environ.get("ENISLE_TOKEN") or ""
    if not url:
        if load_contexts()["current"]:
            known = find_context()
            return Address(known["url"], token or known["token"], known["ca"])
        url, token = _local(token)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidRequest(f"{url!r} is not the address of a platform", "it is no URL", "http://127.0.0.1:PORT")
    for known in load_contexts()["contexts"].values() if not token else ():
        if known["url"] == url.rstrip("/"):
            return Address(**known)
    return Address(url.rstrip("/"), token)


def _local(token: str) -> tuple[str, str]:
    from enisle.control import Places

    places = Places.default()
    try:
        url = str(json.loads(Path(places.platform).read_text())["url"])
        return url, token or Path(places.token).read_text().strip()
    except (OSError, ValueError, KeyError):
        why = f"none runs on {places.directory}, and no context is current"
        raise StateError("no platform is known", why, "`enisle up`, or name one with ENISLE_URL") from None


def new_key() -> str:
    """Return a key that makes a submission one task however often it is sent."""
    return uuid.uuid4().hex


def error_of(response: httpx.Response) -> EnisleError:
    """Return the error a problem document tells; its further fields are in `extras`."""
    try:
        told: Json = json.loads(response.content)
        kind = KINDS.get(str(told.get("kind")), _kind_of(response.status_code))
        error = kind(str(told["detail"]), str(told.get("why", "")), str(told.get("hint", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        told = {}
        error = _kind_of(response.status_code)(
            f"the platform answered with status {response.status_code}", response.text[:200], "is it a platform?"
        )
    error.extras = told  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _kind_of(status: int) -> type[EnisleError]:
    if status in (404, 409, 429):
        return NotFound if status == 404 else StateError
    return HostError if status >= 500 else InvalidRequest


def lost(url: str, error: Exception) -> HostError:
    """Return what is told when nobody answers."""
    return HostError(f"the platform at {url} does not answer", str(error) or type(error).__name__, "`enisle status`")


def is_worth_asking_again(response: httpx.Response) -> bool:
    """Whether a refusal passes by itself: the platform is starting, or its engine is."""
    return response.status_code in (502, 504) or (response.status_code == 503 and "retry-after" in response.headers)


def pauses() -> Iterator[float]:
    """Yield the seconds between attempts: from 50 ms, doubling to a second, with some chance in them."""
    pause = 0.05
    while True:
        yield pause * random.uniform(0.7, 1.3)
        pause = min(1.0, pause * 2)


class EventReader:
    """Makes events of lines (WHATWG HTML, "Server-sent events"); remembers where to resume."""

    def __init__(self) -> None:
        self.last = ""
        self._name, self._data, self._identity = "", "", ""

    def again(self) -> "EventReader":
        """Return a reader for the next connection: what was begun is void."""
        reader = EventReader()
        reader.last = self.last
        return reader

    def feed(self, line: str) -> tuple[str, Any] | None:
        """Take a line; return an event's name and JSON value when it ends one."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            name, data = self._name, self._data
            self._name, self._data = "", ""
            if not name:
                return None
            self.last = self._identity or self.last
            self._identity = ""
            return name, json.loads(data or "{}")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data += value
        elif field == "id":
            self._identity = value
        return None
