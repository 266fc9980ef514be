"""Where the next page begins, as a word that only we read: opaque, bound to its filters, checked when it comes back."""

import base64
import binascii
import hashlib

from enisle.errors import InvalidRequest


def write_cursor(filters: str, submitted: float, task: str) -> str:
    """Return the cursor that follows a task in the list of `filters`."""
    text = f"{submitted!r} {task}"
    return base64.urlsafe_b64encode(f"{_seal(filters, text)} {text}".encode()).decode().rstrip("=")


def read_cursor(filters: str, cursor: str) -> tuple[float, str]:
    """Return where a page begins. Raises InvalidRequest for what is not a cursor of this list."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        seal, _, rest = text.partition(" ")
        submitted, _, task = rest.partition(" ")
        if seal == _seal(filters, rest) and write_cursor(filters, float(submitted), task) == cursor:
            return float(submitted), task
    except (ValueError, binascii.Error):
        pass
    raise InvalidRequest("this cursor leads nowhere", "it is not of this list", "begin without a cursor")


def _seal(filters: str, text: str) -> str:
    return hashlib.sha256(f"{filters}\0{text}".encode()).hexdigest()[:12]
