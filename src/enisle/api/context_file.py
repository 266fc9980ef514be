"""The platforms a user knows: names for addresses and tokens, in a file that only its owner may read.

`~/.config/enisle/contexts.json` (XDG_CONFIG_HOME): {"current": NAME, "contexts": {NAME: {"url", "token", "ca"}}}.
Written whole and put in place by a rename. Offered at the room's door as `contexts`; imports nothing heavy.
"""

import fcntl
import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enisle.errors import HostError, InvalidRequest, NotFound
from enisle.records import Record

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class Context(Record):
    """A platform: where it is, what lets us in, and the certificate to trust (a file; empty: the system's)."""

    url: str
    token: str = ""
    ca: str = ""


class Contexts(Record):
    """All contexts, and the one that is meant when none is named."""

    current: str = ""
    contexts: dict[str, Context] = {}

    def get(self, name: str = "") -> Context:
        """Return a context, the current one when none is named. Raises NotFound."""
        wanted = name or self.current
        if wanted not in self.contexts:
            raise NotFound(f"there is no context {wanted or '(none is current)'}", "", "`enisle context ls`")
        return self.contexts[wanted]


def path() -> Path:
    """Return where the file is."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(base) / "enisle" / "contexts.json"


def load() -> Contexts:
    """Return what is known, nothing when there is no file. Raises HostError when it cannot be read."""
    try:
        told: dict[str, Any] = json.loads(path().read_text())
        entries: dict[str, dict[str, Any]] = told["contexts"]
        known = {name: Context(*(str(one.get(key) or "") for key in Context._fields)) for name, one in entries.items()}
        current = str(told.get("current") or "")
        return Contexts(current if current in known else "", known)
    except FileNotFoundError:
        return Contexts("", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{path()}: {type(error).__name__}"
        raise HostError("the contexts cannot be read", why, "repair the file, or remove it") from None


def save(contexts: Contexts) -> None:
    """Replace the file. Raises HostError."""
    target = path()
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    told = {
        "current": contexts.current,
        "contexts": {name: context._asdict() for name, context in contexts.contexts.items()},
    }
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(told, file, indent=1)
            file.write("\n")
        staged.replace(target)
    except OSError as error:
        raise HostError(f"cannot write {target}", error.strerror or "", "make room there, or own it") from None


def add(name: str, url: str, token: str = "", ca: str = "", use: bool = False) -> Contexts:
    """Make a context, or change it; the first is current at once. Raises InvalidRequest, HostError."""
    if not NAME.match(name):
        raise InvalidRequest(f"a context cannot be {name[:80]!r}", "letters, digits, . - and _", "choose another name")
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"{url[:80]!r} is not the address of a platform", "it begins with http:// or https://", "")
    with _changing():
        known = load()
        contexts = {**known.contexts, name: Context(url.rstrip("/"), token, ca)}
        changed = Contexts(name if use or not known.current else known.current, contexts)
        save(changed)
        return changed


def use(name: str) -> Contexts:
    """Make a context the current one. Raises NotFound, HostError."""
    with _changing():
        known = load()
        known.get(name)
        changed = Contexts(name, known.contexts)
        save(changed)
        return changed


def remove(name: str) -> Contexts:
    """Forget a context. Raises NotFound, HostError."""
    with _changing():
        known = load()
        known.get(name)
        rest = {other: context for other, context in known.contexts.items() if other != name}
        changed = Contexts(known.current if known.current != name else "", rest)
        save(changed)
        return changed


@contextmanager
def _changing() -> Generator[None, None, None]:
    """Keep others from changing the file meanwhile."""
    try:
        path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path().with_name(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot write in {path().parent}", error.strerror or "", "own that directory") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
