"""What an agent and a keeper say to each other: a header of JSON and bytes beside it, over a stream socket.

A message is two 4-byte lengths, little-endian, the JSON and the bytes. Both are bounded: who says more is cut off.
Stands in keepers, which are many: imports next to nothing.
"""

import json
import os
from typing import Any

from enisle import errors
from enisle.errors import EnisleError, HostError

HEAD = 8
MAX_JSON, MAX_BYTES = 1 << 20, 17 << 20
Json = dict[str, Any]


class StaleToken(EnisleError):
    """Somebody with a newer right has been here: what is asked for is void."""

    exit_code = 4


def encode(message: Json, payload: bytes = b"") -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "little") + len(payload).to_bytes(4, "little") + body + payload


def lengths(head: bytes) -> tuple[int, int]:
    """Return the sizes of the JSON and of the bytes. Raises ConnectionError when they are beyond the bounds."""
    body, payload = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
    if body > MAX_JSON or payload > MAX_BYTES:
        raise ConnectionError(f"a message of {body} and {payload} bytes is none of ours")
    return body, payload


def described(error: BaseException) -> Json:
    """Return an error as a record; `raised` makes it one again."""
    if isinstance(error, StaleToken):
        return {"kind": "StaleToken", "message": error.message, "why": error.why, "hint": error.hint}
    if isinstance(error, EnisleError):
        kind = next(one.__name__ for one in type(error).__mro__ if hasattr(errors, one.__name__))
        return {"kind": kind, "message": error.message, "why": error.why, "hint": error.hint}
    if isinstance(error, OSError):
        return {"kind": "OSError", "errno": error.errno or 5, "filename": str(error.filename or "")}
    return {"kind": "HostError", "message": f"{type(error).__name__}: {error}"[:500], "why": "", "hint": ""}


def raised(told: Json) -> Exception:
    """Return the error that was described."""
    kind = str(told.get("kind"))
    if kind == "OSError":
        number = int(told["errno"])
        return OSError(number, os.strerror(number), told.get("filename") or None)
    words = (str(told.get("message", "")), str(told.get("why", "")), str(told.get("hint", "")))
    if kind == "StaleToken":
        return StaleToken(*words)
    found = getattr(errors, kind, HostError)
    return found(*words) if isinstance(found, type) and issubclass(found, EnisleError) else HostError(*words)
