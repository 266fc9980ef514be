"""Handlers: tokens, signing in and out."""

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from enisle.api import forms
from enisle.api.auth import COOKIE
from enisle.api.codes import use_code
from enisle.api.problems import HttpProblem, encode
from enisle.api.services import Services
from enisle.api.table import Answer, Call
from enisle.api.tokens import SESSION_S


async def create(call: Call) -> Answer:
    asked: forms.TokenRequest = call.body
    book = call.services.book
    await book.sweep()
    record, secret = await book.create(
        asked.name, list(asked.scopes), asked.tenant, asked.expires_s, actor=call.principal.actor
    )
    return Answer({**record, "token": secret}, 201, {"Location": f"/v1/tokens/{record['id']}"})


async def index(call: Call) -> Answer:
    return Answer({"items": call.services.book.everything()})


async def revoke(call: Call) -> Answer:
    await call.services.book.revoke(call.path["token"], call.principal.actor)
    return Answer(None, 204)


async def sign_in(call: Call) -> Response:
    """Take a one-time code for a cookie."""
    cookie = await _session(call.request, call.services, call.body.code)
    answer = Response(encode({"actor": "session:console", "tenant": "default", "scopes": ["admin"]}), 201)
    answer.media_type = "application/json"
    answer.headers["content-type"] = "application/json"
    _set_cookie(call.request, answer, cookie)
    return answer


async def sign_in_by_address(request: Request, services: Services) -> Response:
    """Answer `GET /?code=…`: the address that `enisle up` prints. The code goes from the address at once."""
    cookie = await _session(request, services, request.query_params.get("code", ""))
    answer = RedirectResponse("/", 303, {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
    _set_cookie(request, answer, cookie)
    return answer


async def who(call: Call) -> Answer:
    principal = call.principal
    return Answer({"actor": principal.actor, "tenant": principal.tenant, "scopes": sorted(principal.scopes)})


async def sign_out(call: Call) -> Response:
    if call.principal.actor.startswith("session:"):
        await call.services.book.revoke(call.principal.token, call.principal.actor)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE)
    return answer


async def _session(request: Request, services: Services, code: str) -> str:
    """Return the secret of a new session. Raises HttpProblem 401, 429."""
    if not code or not await asyncio.to_thread(use_code, services.state, code):
        await services.guard.fail(request.client.host if request.client else "", "a sign-in code that is not valid")
        raise HttpProblem(
            401, "this code is not valid", "it was used, or is too old", "`enisle up` prints a new address"
        )
    await services.book.sweep()
    _record, secret = await services.book.create("console", ["admin"], "default", SESSION_S, "session")
    return secret


def _set_cookie(request: Request, answer: Response, secret: str) -> None:
    answer.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
