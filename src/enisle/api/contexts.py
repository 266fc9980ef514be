"""Platforms by their names, with what is needed to speak to them: one file of the user's, for nobody else's eyes.

`$XDG_CONFIG_HOME/enisle/contexts.json` (else `~/.config`) says for each its address, its token and whom to trust.
A change replaces the file as a whole, under a lock; whoever reads sees the old or the new one.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from enisle.errors import HostError, InvalidRequest, NotFound

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
Known = dict[str, Any]
"""{"current": name or "", "contexts": {name: {"url": …, "token": …, "ca": file or ""}}}"""


def contexts_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home) / "enisle" / "contexts.json"


def load_contexts() -> Known:
    """Return what is known, nothing when there is no file. Raises HostError when it cannot be read."""
    path = contexts_file()
    try:
        told: Any = json.loads(path.read_bytes())
        contexts = {
            str(name): {key: str(one.get(key) or "") for key in ("url", "token", "ca")}
            for name, one in told["contexts"].items()
        }
        return {"current": str(told.get("current") or ""), "contexts": contexts}
    except FileNotFoundError:
        return {"current": "", "contexts": {}}
    except OSError as error:
        raise HostError(f"cannot read {path}", error.strerror or "", "is it yours?") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        why = f"{type(error).__name__}: {str(error)[:100]}"
        raise HostError(f"cannot make sense of {path}", why, "remove it, then `enisle context add NAME URL`") from None


def save_contexts(known: Known) -> None:
    """Replace the file. Raises HostError."""
    path = contexts_file()
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(json.dumps(known, indent=1) + "\n")
        staged.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise HostError(f"cannot write {path}", error.strerror or "", "make room, or set XDG_CONFIG_HOME") from None


@contextlib.contextmanager
def changed_contexts() -> Generator[Known]:
    """Let the block change what is known; it is saved when the block ends well. Raises HostError."""
    path = contexts_file().with_name(".contexts.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot write {path}", error.strerror or "", "make room, or set XDG_CONFIG_HOME") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = load_contexts()
        yield known
        save_contexts(known)
    finally:
        os.close(lock)


def find_context(name: str = "") -> dict[str, str]:
    """Return a context: the one named, else the current one. Raises NotFound when there is none."""
    known = load_contexts()
    wanted = name or known["current"]
    if wanted in known["contexts"]:
        return known["contexts"][wanted]
    if wanted:
        there = ", ".join(sorted(known["contexts"])) or "none"
        raise NotFound(f"there is no context {wanted[:64]}", f"there is {there}", "enisle context add NAME URL")
    raise NotFound("no platform is known here", "there is no context", "enisle up, or enisle context add NAME URL")


def use_context(name: str) -> None:
    """Make a context the current one. Raises NotFound."""
    find_context(name)
    with changed_contexts() as known:
        known["current"] = name


def require_context_name(name: str) -> str:
    """Return a name that a context may have. Raises InvalidRequest."""
    if NAME.match(name):
        return name
    raise InvalidRequest(
        f"a context cannot be named {name[:64]!r}", "it has 1 to 64 letters, digits, -, _ and .", "choose another"
    )
