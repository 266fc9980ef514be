"""The app: a router made from the table, and what happens around every request.

Around: the name it was sent to, who asks, safe mode, reading, the handler, and whatever goes wrong made a problem
document. One event loop owns it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from enisle.api import forms
from enisle.api.decode import read_json, read_name, read_query
from enisle.api.follow import Follower
from enisle.api.lines import LINES
from enisle.api.on_tokens import sign_in_by_address
from enisle.api.openapi import description
from enisle.api.problems import HttpProblem, SchemaError, answer, encode
from enisle.api.services import Services
from enisle.api.static import SECURITY, Static
from enisle.api.table import OPEN, Answer, Call, Line
from enisle.api.tokens import Principal
from enisle.errors import HostError, NotFound
from enisle.tasks import ADDRESS, EVERY

NOBODY = Principal("", "default", frozenset())
MAX_KEY = 200


class Operations:
    """The operations of one path, by method."""

    def __init__(self, services: Services, follower: Follower, lines: list[Line]) -> None:
        self._services, self._follower = services, follower
        self._lines = {line.method: line for line in lines}
        self._path = lines[0].path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        ADDRESS.set(request.client.host if request.client else "")
        status: list[int] = []
        began = time.perf_counter()
        response = await self._answer(request)
        try:
            await response(scope, receive, _noting(send, status))
        finally:
            if status and "text/event-stream" not in request.headers.get("accept", ""):
                known = request.method if request.method in self._lines else "other"
                self._services.measures.add(known, self._path, status[0], time.perf_counter() - began)

    async def _answer(self, request: Request) -> ASGIApp:
        try:
            line = self._lines.get(request.method)
            if line is None:
                raise not_allowed(self._lines)
            self._services.guard.require_our_name(request)
            call = await self._check(request, line)
            given = await line.handler(call)
            return given.response() if isinstance(given, Answer) else given
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            return answer(error)

    async def _check(self, request: Request, line: Line) -> Call:
        """Return the request as its handler may take it. Raises what is wrong with it."""
        services = self._services
        principal = NOBODY if line.scope == OPEN else await services.guard.require(request, line.scope)
        if line.scope != OPEN and (trouble := services.safe_mode()):
            raise HostError(
                "the platform is in safe mode", trouble, "`enisle down; enisle up --accept-store`, if it may go on"
            )
        path = {name: read_name(f"the {name}", value) for name, value in request.path_params.items()}
        if forms.InTenant in line.further and request.query_params.get("tenant") == EVERY:
            raise SchemaError("this needs one tenant", "* is every one", "name it: --tenant NAME, ?tenant=NAME")
        query = read_query(request, line.query, *line.further)
        for within in (forms.InTenant, forms.InTenants):
            if within in query:
                principal = acting_in(query[within].tenant, principal)
        if len(request.headers.get("idempotency-key", "")) > MAX_KEY:
            raise HttpProblem(400, "the idempotency key is too long", f"at most {MAX_KEY} characters", "")
        body: Any = None
        if line.body is not None and issubclass(line.body, forms.Asked):
            body = await read_json(request, line.body)
        wait = query[forms.Waiting].wait if forms.Waiting in query else 0.0
        return Call(request, services, self._follower, principal, path, query[line.query], body, wait)


def acting_in(tenant: str, principal: Principal) -> Principal:
    """Return who asks, in the tenant that was named. Raises HttpProblem 403 for who may not act there."""
    if tenant in ("", principal.tenant):
        return principal
    if "admin" not in principal.scopes:
        why = f"{principal.actor} is of the tenant {principal.tenant}"
        raise HttpProblem(403, "another tenant needs the scope admin", why, "leave the tenant out")
    return msgspec.structs.replace(principal, tenant=tenant)


def make_app(services: Services) -> Starlette:
    """Return the app that stands on `services`. Its lifespan runs what follows the store."""
    follower = Follower(services.view)
    by_path: dict[str, list[Line]] = {}
    for line in LINES:
        by_path.setdefault(line.path, []).append(line)
    routes = [Route(path, Operations(services, follower, lines)) for path, lines in by_path.items()]
    routes += _pages(services)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        parts = (follower.run(), services.book.run(), services.book.keep_used())
        running = [asyncio.create_task(part) for part in parts]
        for one in running:
            services.depend_on(one)
        try:
            yield
        finally:
            for one in running:
                one.cancel()
            await asyncio.wait(running)

    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _not_ours})
    app.router.redirect_slashes = False
    return app


def _pages(services: Services) -> list[Route]:
    static = Static(services.console)
    text = encode(description())

    def page(find: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                services.guard.require_our_name(request)
                found = find(request)
                return found if isinstance(found, Response) else await found
            except Exception as error:
                return answer(error)

        return endpoint

    def index(request: Request) -> Any:
        if "code" in request.query_params:
            return sign_in_by_address(request, services)
        return static.answer(request, "index.html")

    return [
        Route("/", page(index)),
        Route("/index.html", page(lambda request: static.answer(request, "index.html"))),
        Route("/console/{file:path}", page(lambda request: static.answer(request, request.path_params["file"]))),
        Route("/openapi.json", page(lambda _: Response(text, headers=SECURITY, media_type="application/json"))),
        Route("/favicon.ico", page(lambda request: static.answer(request, "icon.svg"))),
    ]


def not_allowed(methods: dict[str, Any]) -> HttpProblem:
    allowed = ", ".join(sorted(methods))
    return HttpProblem(405, "this cannot be done here", f"the methods are {allowed}", "", {"Allow": allowed})


async def _not_ours(_: Request, error: Exception) -> Response:
    """Answer what the router itself refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return answer(not_allowed(dict.fromkeys((error.headers or {}).get("Allow", "GET").split(", "))))
    if error.status_code == 404:
        return answer(NotFound("there is nothing at this address", "", "see /openapi.json"))
    return answer(HttpProblem(error.status_code, str(error.detail)[:200]))


def _noting(send: Send, status: list[int]) -> Send:
    async def noting(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])
        await send(message)

    return noting
