"""Requests read strictly: what the description does not name is refused, before anything is done.

Bodies are bounded while they are read; JSON has no NaN, no invalid UTF-8, no unbounded depth; unknown and repeated
parameters are errors. Everything that is wrong is an InvalidRequest, or an HttpProblem where HTTP has a status for it.
"""

import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from enisle.api.problems import HttpProblem, SchemaError
from enisle.errors import InvalidRequest

MAX_BODY = 1 << 20
MAX_DRAINED = 64 << 20
"""What is read and thrown away of a body too large, so that its sender sees the answer and not a broken connection."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
Read = TypeVar("Read")


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """Return the body. Raises HttpProblem 413 when it is larger than `limit`, 400 when its sender went away."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > MAX_DRAINED:
            break
    if size > limit:
        raise HttpProblem(413, "the body is too large", f"at most {limit} bytes", "send less, or in parts")
    return b"".join(parts)


async def read_json(request: Request, kind: type[Read]) -> Read:
    """Return the body as `kind`. Raises InvalidRequest, HttpProblem."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request)
    if media != "application/json" and (body or media):
        raise HttpProblem(
            415, "the body must be JSON", f"it says it is {media[:60] or 'nothing'}", "Content-Type: application/json"
        )
    return decode_json(body or b"{}", kind)


def decode_json(body: bytes, kind: type[Read]) -> Read:
    """Return JSON text as `kind`. Raises InvalidRequest (SchemaError when it is JSON, but not of that kind)."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise SchemaError("the body is not as described", str(error), "see /openapi.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("the body cannot be read", str(error)[:200], "send JSON in UTF-8") from None


def read_name(what: str, text: str) -> str:
    """Return a name from a path. Raises InvalidRequest."""
    if NAME.match(text):
        return text
    shown = repr(text) if len(text) <= 80 else repr(text[:80]) + "…"
    raise InvalidRequest(f"{what} cannot be {shown}", "it has 1 to 64 letters, digits, - and _", "see the list of them")


def read_query(request: Request, kind: type[Any], *further: type[msgspec.Struct]) -> dict[type[Any], Any]:
    """Return the query's parameters, by the structures that have them: `kind` all but what is of `further`.

    Raises InvalidRequest.
    """
    pairs = request.query_params.multi_items()
    given = dict(pairs)
    if len(given) < len(pairs):
        raise InvalidRequest("a parameter is given twice", "the query repeats a name", "give it once")
    found: dict[type[Any], Any] = {}
    for one in further:
        own = {name: given.pop(name) for name in one.__struct_fields__ if name in given}
        found[one] = convert(own, one, "the query")
    return found | {kind: convert(given, kind, "the query")}


def convert(given: dict[str, Any], kind: type[Read], what: str) -> Read:
    """Return texts as `kind`, numbers read from them. Raises SchemaError."""
    try:
        for text in (*given, *given.values()):
            if isinstance(text, str):
                text.encode()
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SchemaError(f"{what} is not as described", str(error), "see /openapi.json") from None
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} cannot be read", "it is not UTF-8", "encode it as UTF-8") from None
