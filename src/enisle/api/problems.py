"""Errors as answers: problem documents (RFC 9457) with the three parts every error of ours has.

Every failure leaves by `answer`: what others raised (the tree of `errors`), what HTTP knows (`HttpProblem`), and our
own bugs, which are logged with their traceback and told without it.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from enisle.errors import EnisleError, GuestError, HostError, InvalidRequest, NotFound, StateError
from enisle.tasks import KeyTaken, Overloaded, Unavailable

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("enisle.api")


class HttpProblem(EnisleError):
    """A failure that HTTP has a status for and the tree of `errors` has not."""

    def __init__(
        self, status: int, message: str, why: str = "", hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, why, hint)
        self.status, self.headers = status, dict(headers or {})


class SchemaError(InvalidRequest):
    """The request was read, but is not what the description of the API asks for."""


class Blocked(StateError):
    """What is asked for is held by a task, and the caller would not wait."""

    def __init__(self, message: str, why: str, hint: str, **extras: Any) -> None:
        super().__init__(message, why, hint)
        self.extras = extras


KINDS: tuple[tuple[type[EnisleError], int, str], ...] = (
    (SchemaError, 422, "invalid-request"),
    (InvalidRequest, 400, "invalid-request"),
    (NotFound, 404, "not-found"),
    (StateError, 409, "state-error"),
    (HostError, 503, "host-error"),
    (GuestError, 500, "guest-error"),
    (EnisleError, 500, "error"),
)
HTTP_KINDS = {
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "timeout",
    413: "too-large",
    415: "unsupported-media-type",
    429: "too-many",
    503: "host-error",
}
TITLES = {
    "invalid-request": "The request cannot work",
    "not-found": "There is no such thing",
    "state-error": "Not in this state",
    "host-error": "The platform cannot do this now",
    "guest-error": "The island failed",
    "error": "It failed",
    "internal": "A defect of Enisle",
}


def status_and_kind(error: EnisleError) -> tuple[int, str]:
    """Return the status an error is answered with, and the word that names it to programs."""
    if isinstance(error, HttpProblem):
        return error.status, HTTP_KINDS.get(error.status, "invalid-request")
    if isinstance(error, KeyTaken):
        return 422, "key-taken"
    if isinstance(error, Overloaded):
        return 429, "too-many"
    for kind, status, word in KINDS:
        if isinstance(error, kind):
            return status, word
    raise AssertionError(error)


def document(error: EnisleError) -> dict[str, Any]:
    """Return the problem document of an error."""
    status, kind = status_and_kind(error)
    return {
        **getattr(error, "extras", {}),
        "type": f"urn:enisle:problem:{kind}",
        "title": TITLES.get(kind, kind.replace("-", " ").capitalize()),
        "status": status,
        "detail": error.message,
        "why": error.why,
        "hint": error.hint,
        "kind": kind,
    }


def answer(error: Exception) -> Response:
    """Return the answer for whatever went wrong; what is none of `errors` is our own bug."""
    if not isinstance(error, EnisleError):
        log.error("a request met a defect of ours", exc_info=error)
        told = document(HostError("this request met a defect of Enisle", type(error).__name__, "its log has the trace"))
        told |= {"type": "urn:enisle:problem:internal", "title": TITLES["internal"], "status": 500, "kind": "internal"}
        return Response(encode(told), 500, media_type=MEDIA_TYPE)
    told = document(error)
    headers = error.headers if isinstance(error, HttpProblem) else {}
    if told["status"] == 503 and isinstance(error, Unavailable):
        headers = {"Retry-After": "1"}  # it passes by itself: the engine is starting, or elects a leader
    if told["status"] == 429:
        headers = {"Retry-After": "5", **headers}
    return Response(encode(told), told["status"], headers, MEDIA_TYPE)


def encode(value: Any) -> bytes:
    """Return JSON; characters that no text may hold (lone surrogates of file names) are shown, not refused."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(value).encode()
