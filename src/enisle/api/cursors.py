"""Where the next page begins, as a word that only we read: opaque, bound to its filters, checked when it comes back."""

import base64
import binascii
import hashlib

from enisle.api.services import Json
from enisle.errors import InvalidRequest


def write_cursor(filters: str, when: float, name: str) -> str:
    """Return the cursor that follows something (of a time, of a name) in the list of `filters`."""
    text = f"{when!r} {name}"
    return base64.urlsafe_b64encode(f"{_seal(filters, text)} {text}".encode()).decode().rstrip("=")


def read_cursor(filters: str, cursor: str) -> tuple[float, str]:
    """Return where a page begins. Raises InvalidRequest for what is not a cursor of this list."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seal, _, rest = text.partition(" ")
        when, _, name = rest.partition(" ")
        if seal == _seal(filters, rest) and write_cursor(filters, float(when), name) == cursor:
            return float(when), name
    except (ValueError, binascii.Error):
        pass
    raise InvalidRequest("this cursor leads nowhere", "it is not of this list", "begin without a cursor")


def page_of(things: list[Json], filters: str, limit: int, cursor: str) -> Json:
    """Return a page of things in the order of their names, and the cursor of the next; `limit` 0: all of them."""
    after = read_cursor(filters, cursor)[1] if cursor else ""
    left = [one for one in things if one["name"] > after]
    page = left[:limit] if limit else left
    return {"items": page, "next": write_cursor(filters, 0.0, page[-1]["name"]) if len(left) > len(page) else None}


def _seal(filters: str, text: str) -> str:
    return hashlib.sha256(f"{filters}\0{text}".encode()).hexdigest()[:12]
