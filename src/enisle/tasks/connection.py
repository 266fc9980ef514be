"""Connecting to the engine: one URL says where it is, as whom, and where its files are when it is ours.

An engine of ours is named `nats://enisle:PASSWORD@127.0.0.1:PORT?state=DIRECTORY`; its certificate and the high-water
mark of its store are found there. An external one is any URL of the client library; one whose servers have accounts
for hosts ends with `?questions=USER`. One event loop owns a connection.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError

from enisle.errors import HostError, InvalidRequest

CONNECT_S = 5.0
OLDEST = (2, 12)
AUTHORITY = "ca.pem"
FINAL = ("uthorization", "CERTIFICATE_VERIFY_FAILED")
"""Errors of a first attempt that another would meet again."""


def own_url(scheme: str, password: str, address: str, directory: Path) -> str:
    """Return the URL of an engine of ours over `directory`, for whoever may read that directory."""
    return f"{scheme}://enisle:{password}@{address}?state={quote(str(directory))}"


def state_directory(url: str) -> Path | None:
    """Return the directory of the engine when it is one of ours."""
    named = parse_qs(urlsplit(url).query).get("state")
    return Path(named[0]) if named else None


def is_own(url: str) -> bool:
    """Whether an engine is one of ours: then we say who may come in."""
    return state_directory(url) is not None


def questions_url(url: str) -> str:
    """Return the URL where hosts are asked: as a user of an account of its own, with the same password.

    On an engine of ours that is there; elsewhere where the URL says so, `?questions=USER`.
    """
    named = parse_qs(url.rpartition("?")[2] if "?" in url else "").get("questions", ["questions"])[0]
    scheme, sign, rest = url.partition("://")
    user, at, servers = rest.partition("@")
    if not (state_directory(url) or "questions=" in url) or not at:
        return url
    return f"{scheme}{sign}{named}:{user.partition(':')[2]}@{servers}"


def spread(urls: Sequence[str]) -> list[str]:
    """Return one URL a server: `tls://user:password@a,b,c` names three, with what the first said."""
    found: list[str] = []
    for url in urls:
        first, *others = url.split(",")
        begin, sign, rest = first.partition("://")
        user = rest.rpartition("@")[0]
        found.append(first if sign else f"nats://{first}")
        scheme = f"{begin}://" if sign else "nats://"
        found += [one if "://" in one else f"{scheme}{user}{'@' * bool(user)}{one}" for one in others]
    return found


def room(directory: Path) -> int:
    """Return how many bytes fit on the disk of a directory; none when it cannot be told."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


async def connect(
    client: Client, urls: Sequence[str], seed: str | None = None, ca: Path | str | None = None, **more: Any
) -> None:
    """Connect for as long as the client lives, through every death of the engine. Raises HostError."""
    last: list[str] = []
    urls = spread(urls)

    async def note(error: Exception) -> None:
        last[:] = [str(error) or type(error).__name__]
        if not client.is_connected and not connected and any(word in last[0] for word in FINAL):
            raise NatsError(last[0])  # ends the first attempts: they would go on to the same end

    connected = False
    options: dict[str, Any] = {"nkeys_seed_str": seed} if seed else {}
    if secure := _tls(urls, ca):
        options["tls"] = secure
        logging.getLogger("asyncio").addFilter(_is_news)
    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                [_bare(url) for url in urls],
                error_cb=note,
                reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType]  # seconds go to asyncio.sleep
                max_reconnect_attempts=-1,
                ping_interval=1,
                connect_timeout=2,
                **options,
                **more,
            )
    except (OSError, NatsError) as error:  # TimeoutError is an OSError
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await client.close()
        raise _unreachable(last[0] if last else str(error) or "nothing answered") from error
    connected = True
    version = client.connected_server_version
    if (version.major, version.minor) < OLDEST:
        await client.close()
        raise too_old(f"{version.major}.{version.minor}.{version.patch}")


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what asyncio says whenever the client library's encrypted connection ends; it means nothing."""
    return "eof_received" not in str(record.msg)


def too_old(version: str) -> HostError:
    why = f"it is nats-server {version}, without atomic batches"
    return HostError("the engine is too old", why, "use nats-server 2.12 or later")


def _unreachable(why: str) -> HostError:
    # Whoever is hung up on may be told why, or find the connection reset before it could read that.
    if any(word in why for word in ("uthorization", "reset by peer", "unexpected EOF")):
        return HostError(
            "the engine refuses us", "it does not know this user or key", "`enisle join` again, or see --nats"
        )
    return HostError("cannot reach the engine", why, "is the platform up? `enisle up`")


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def _tls(urls: Sequence[str], ca: Path | str | None) -> ssl.SSLContext | None:
    """Return how to check the engine's certificate: by the authority given (path or text), its own, the system's."""
    directory = state_directory(urls[0]) if urls else None
    if ca is None and directory is not None:
        ca = directory / AUTHORITY
    if not any(urlsplit(url).scheme == "tls" for url in urls):
        return None
    try:
        if isinstance(ca, str) and "-----BEGIN" in ca:
            return ssl.create_default_context(cadata=ca)
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"{ca} is no certificate of an authority", str(error), "name the engine's --ca") from None
