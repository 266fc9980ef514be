"""One-time sign-in codes: what stands in the address that `enisle up` prints.

A code is a file of the state directory, named by its hash; whoever may write there is the owner of the platform. It is
used up by being removed, which works once, and is worth nothing after `LASTS_S`.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path

from enisle.errors import HostError

LASTS_S = 120.0


def sign_in_code(state: Path) -> str:
    """Return a new code for the platform whose state directory is named. Raises HostError."""
    code = secrets.token_urlsafe(24)
    try:
        (state / "codes").mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(_path(state, code), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise HostError(f"cannot write in {state}", error.strerror or "", "sign in as the platform's owner") from None
    return code


def use_code(state: Path, code: str) -> bool:
    """Use a code up; return whether it was good."""
    path = _path(state, code)
    try:
        age = time.time() - path.stat().st_mtime
        path.unlink()
    except OSError:
        return False
    return -5.0 <= age <= LASTS_S


def _path(state: Path, code: str) -> Path:
    return state / "codes" / hashlib.sha256(code.encode(errors="replace")).hexdigest()
