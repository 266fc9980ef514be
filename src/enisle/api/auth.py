"""Who asks, and whether they may: bearer tokens, cookies of signed-in browsers, and pages of others kept out.

A cookie is only believed for a change when the page that sends it can set a header (`X-Enisle: 1`), which no form of
another site can, and when its Origin is ours. Only known names are answered to: a name that another site points at us
(DNS rebinding) is not among them. Failures are counted by address, and the first and the last of a row are told in the
audit; what is valid passes always.
"""

import contextlib
import ipaddress
import socket
import time
from collections import OrderedDict

from starlette.requests import HTTPConnection, Request

from enisle.api.problems import HttpProblem
from enisle.api.tokens import Principal, TokenBook
from enisle.errors import EnisleError

COOKIE = "enisle"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_FAILURES = 20
WINDOW_S = 60.0
REMEMBERED = 4096
MAX_TOLD = 60
"""Refusals that the audit is told of within a minute, whoever many there are that try."""


class Failures:
    """How often each address failed lately. Bounded: the oldest are forgotten."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def too_many(self, address: str) -> bool:
        began, count = self._counts.get(address, (0.0, 0))
        return count >= MAX_FAILURES and time.monotonic() - began < WINDOW_S

    def left_s(self, address: str) -> float:
        """Return how long an address has to wait that failed too often."""
        return max(1.0, self._counts.get(address, (0.0, 0))[0] + WINDOW_S - time.monotonic())

    def add(self, address: str) -> int:
        """Count a failure; return how many that makes."""
        now = time.monotonic()
        began, count = self._counts.pop(address, (now, 0))
        began, count = (now, 1) if now - began >= WINDOW_S else (began, count + 1)
        self._counts[address] = (began, count)
        while len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return count


def neighbourhood(address: str) -> str:
    """Return what one client can choose its addresses from: in IPv6 that is a /64 at least (RFC 6177)."""
    try:
        return str(ipaddress.ip_network((address, 64), strict=False)) if ":" in address else address
    except ValueError:
        return address


class Guard:
    """Checks every request of an app."""

    def __init__(self, book: TokenBook, names: tuple[str, ...] = ()) -> None:
        self.book, self.failures, self._told = book, Failures(), Failures()
        self._names = frozenset({"localhost", socket.gethostname().lower(), *(name.lower() for name in names)})

    def require_our_name(self, connection: HTTPConnection) -> None:
        """Raises HttpProblem 403 for a name that is not ours: an address as such cannot be pointed at us by others."""
        given = connection.headers.get("host", "")
        name = host_of(given)
        if name not in self._names and not _is_address(name):
            raise HttpProblem(
                403,
                f"this platform is not {name[:80] or 'without a name'}",
                "it only answers to names it was told",
                "use its address, or start it with --name",
            )

    async def require(self, request: Request, scope: str) -> Principal:
        """Return who asks. Raises HttpProblem 401, 403, 429."""
        principal, by_cookie = await self._find(request)
        if by_cookie and request.method not in SAFE_METHODS:
            self._require_our_page(request)
        if scope not in principal.scopes:
            raise HttpProblem(403, f"this needs the scope {scope}", f"{principal.actor} has not", "use another token")
        return principal

    async def _find(self, request: Request) -> tuple[Principal, bool]:
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        by_cookie = not kind
        if by_cookie:
            secret = request.cookies.get(COOKIE, "")
        elif kind.lower() != "bearer":
            secret = ""
        secret = secret.strip()
        address = request.client.host if request.client else ""
        if secret:
            limited = self.failures.too_many(neighbourhood(address))
            found = self.book.find_known(secret) if limited else await self.book.find(secret)
            if found:
                return found, by_cookie
            await self.fail(address, "a token that is not valid")
        raise HttpProblem(
            401,
            "this needs a token" if not secret else "this token is not valid",
            "none was given" if not secret else "it is unknown, revoked or has expired",
            "`enisle token new`, or sign in with the address that `enisle up` prints",
            {"WWW-Authenticate": 'Bearer realm="enisle"'},
        )

    async def fail(self, address: str, what: str) -> None:
        """Count a failure, and tell the audit. Raises HttpProblem 429 when there were too many."""
        near = neighbourhood(address)
        if self.failures.too_many(near):
            wait = {"Retry-After": f"{self.failures.left_s(near):.0f}"}
            raise HttpProblem(429, "too many failures", f"{MAX_FAILURES} within a minute", "wait a minute", wait)
        count = self.failures.add(near)
        if count in (1, MAX_FAILURES) and self._told.add("") <= MAX_TOLD:
            with contextlib.suppress(EnisleError):  # the engine is away: that it was wrong does not depend on it
                await self.book.note("refused", "", "", what, failures=count)

    def _require_our_page(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if request.headers.get("x-enisle") != "1":
            raise HttpProblem(
                403, "this did not come from the console", "the header X-Enisle is missing", "use a token"
            )
        if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host', '')}":
            raise HttpProblem(403, "this did not come from the console", f"its origin is {origin[:80]}", "use a token")


def host_of(given: str) -> str:
    """Return the name in a Host header, without its port, lower case."""
    given = given.strip().lower()
    if given.startswith("["):
        return given[1:].partition("]")[0]
    return given.rpartition(":")[0] if given.count(":") == 1 else given


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
