"""The platform a verb speaks to, and how it is asked: one door for all of them, small enough for a fake in tests."""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from enisle.cli.platform_options import PlatformOptions
from enisle.errors import HostError
from enisle.records import Record

Query = Mapping[str, str | int | float]
NO_QUERY: Query = {}


class Unreachable(HostError):
    """Nobody answered, or the connection broke: it may be tried again."""


class Door(Protocol):
    """An API. Every call raises EnisleError: of its kind for what the platform refuses, Unreachable without one."""

    @property
    def url(self) -> str: ...

    def ask(self, method: str, path: str, query: Query = NO_QUERY, body: Any = None, key: str = "") -> Any:
        """Return what it answers, from JSON. With a `key`, the same asked again is done once."""
        ...

    def download(self, path: str, query: Query) -> Iterator[bytes]: ...

    def upload(self, path: str, query: Query, content: bytes, key: str, method: str = "PUT") -> Any: ...

    def events(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (name, id, value): what is so, then `current`, then what changes."""
        ...


class Address(Record):
    """Where a platform is, and what to show it."""

    url: str
    token: str = ""
    ca: str = ""
    tenant: str = ""


@contextmanager
def reach(options: PlatformOptions) -> Generator[Door]:
    """Open the door of the platform that is meant. Raises NotFound when none is known."""
    from enisle.cli.http_door import HttpDoor

    options.tenant = options.tenant or os.environ.get("ENISLE_TENANT", "")
    with HttpDoor(*find_address(options)._replace(tenant=options.tenant)) as door:
        yield door


def find_address(options: PlatformOptions) -> Address:
    """Return the platform of --url, --context, ENISLE_URL or the current context, in this order."""
    from enisle.api import find_context, load_contexts

    named = options.url or ("" if options.context else os.environ.get("ENISLE_URL", ""))
    token = os.environ.get("ENISLE_TOKEN", "")
    if not named:
        known = find_context(options.context)
        return Address(known["url"], known["token"] if options.context else token or known["token"], known["ca"])
    for known in load_contexts()["contexts"].values():
        if known["url"].rstrip("/") == named.rstrip("/"):
            return Address(named, token or known["token"], known["ca"])
    return Address(named, token)
