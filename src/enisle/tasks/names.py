"""Names that become keys of the engine: what they may look like, told before anything is stored.

A whole token between dots is the engine's unit of permission and of filters, so none of its special characters
(`.`, `*`, `>`, white space) may stand in one.
"""

import hashlib
import re

from enisle.errors import InvalidRequest

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
ROUTINE = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31})*@[0-9]{1,4}\Z")
SHOWN = 80


def require_token(what: str, name: object) -> str:
    """Return a name that may be one token of a key. Raises InvalidRequest."""
    if isinstance(name, str) and TOKEN.match(name):
        return name
    raise InvalidRequest(
        f"{what} cannot be {_shown(name)}", "it has 1 to 64 letters, digits, - and _", "choose another"
    )


def require_routine(name: object) -> str:
    """Return the name of a routine with its version. Raises InvalidRequest."""
    if isinstance(name, str) and ROUTINE.match(name):
        return name
    raise InvalidRequest(
        f"no routine is named {_shown(name)}", "a routine is named like island.create@1", "`enisle task routines`"
    )


def task_id(tenant: str, key: str) -> str:
    """Return the identity of the task that a tenant's idempotency key stands for."""
    return hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()[:24]


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
