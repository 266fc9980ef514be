"""What one line of the API's table is, and what its handler gets and gives back.

The router, the checks before a handler runs, and `/openapi.json` are all made from these lines: there is no second
place where a path, a structure or a scope is said.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from enisle.api import forms, schemas
from enisle.api.follow import Follower
from enisle.api.paths import TENANTS
from enisle.api.problems import encode
from enisle.api.services import Services
from enisle.api.tokens import Principal

OPEN = ""
"""The scope of what everybody may ask."""


@dataclass(slots=True)
class Call:
    """One request, checked: `path`, `query` and `body` are as the table says.

    The tenant of its `principal` is the one that is acted in, which an administrator may have named; `wait` how long
    the answer may wait for the end of the task it tells of.
    """

    request: Request
    services: Services
    follower: Follower
    principal: Principal
    path: dict[str, str]
    query: Any
    body: Any
    wait: float = 0.0

    @property
    def sees_all(self) -> bool:
        """Whether who asks may know of other tenants."""
        return "admin" in self.principal.scopes

    @property
    def key(self) -> str:
        return self.request.headers.get("idempotency-key", "")

    def tasks(self) -> Any:
        return self.services.tasks(self.principal.tenant, self.principal.actor)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers with when it is not a Response of its own making."""

    value: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        if self.value is None:
            return Response(status_code=self.status, headers=self.headers)
        return Response(encode(self.value), self.status, self.headers, "application/json")


Handler = Callable[[Call], Awaitable["Answer | ASGIApp"]]


@dataclass(frozen=True, slots=True)
class Line:
    """One operation. `body` a structure, bytes (read by the handler), or None; `also`: further media types it gives."""

    method: str
    path: str
    handler: Handler
    summary: str
    scope: str
    answer: Any = None
    status: int = 200
    query: type[forms.Asked] = forms.NoQuery
    body: type[forms.Asked] | type[bytes] | None = None
    keyed: bool = False
    """Whether it takes an Idempotency-Key."""
    also: tuple[str, ...] = ()
    tag: str = "platform"
    problems: tuple[int, ...] = ()
    anywhere: bool = False
    """Whether it may be done to what is any tenant's without naming whose it is, as all looks may."""
    later: bool = False
    """Whether it may be answered with 202 as well: accepted, and not over."""

    @property
    def changes(self) -> bool:
        return self.method != "GET"

    @property
    def further(self) -> tuple[type[forms.Asked], ...]:
        """The parameters that many lines have."""
        within = forms.InTenants if self.anywhere or not self.changes else forms.InTenant
        tenants = (within,) if self.path.startswith(TENANTS) else ()
        return (*tenants, forms.Waiting) if self.answer is schemas.Task and self.changes else tenants
