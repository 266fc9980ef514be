"""Where the controller runs: on the host, on one island, or dispatcher and API on an island each.

Pure but for `prepare`: decides command lines and what of the state directory an island sees of it. Never the engine's
data, the keepers or hosts' seeds. The supervisor's thread calls it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from enisle.control.asks import make_ready
from enisle.control.parts import Part, python
from enisle.control.places import Places, make_token

MEMORY = "1G"
DISPATCHER, API = "dispatcher", "api"


def prepare(places: Places) -> None:
    """Make what the controller's parts find there. Raises HostError."""
    for part in (DISPATCHER, API):
        make_ready(places.asks(part))
    for directory in (places.controller, places.codes, places.mark):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_odd(directory)
    places.adopt_former()
    make_token(places.token)


def remove_odd(directory: Path) -> None:
    """Remove links, pipes and the like: an island in strangers' hands may have left them for a life on the host."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)


def controller_parts(
    layout: str, places: Places, dispatcher: Sequence[str], once: Sequence[str], api: Sequence[str], tls: Sequence[str]
) -> list[Part]:
    """Return the parts of a layout: `dispatcher`, `api` (empty: none) are their words, `tls` files the API reads."""
    state = str(places.directory)
    decide, serve = ("enisle.control", "dispatcher", state, *dispatcher), ("enisle.api", state, *api)
    if layout == "host":
        parts = [Part(DISPATCHER, python(*decide), once)]
        return [*parts, Part(API, python(*serve))] if api else parts
    if layout == "island" and api:
        together = python("enisle.control", "controller", *serve[1:], "--", *decide[2:])
        shown = mounts(places, (DISPATCHER, API), tls)
        return [Part("controller", on_island("controller", shown, together), once, island=True)]
    parts = [Part(DISPATCHER, on_island("dispatcher", mounts(places, (DISPATCHER,)), python(*decide)), once, True)]
    if api:
        parts.append(Part(API, on_island("api", mounts(places, (API,), tls), python(*serve)), island=True))
    return parts


def mounts(places: Places, parts: Sequence[str], tls: Sequence[str] = ()) -> dict[str, bool]:
    """Return the paths of the state directory that parts see, and whether they write there."""
    shown = {str(places.engine_url): False, str(places.mark): DISPATCHER in parts, str(places.controller): True}
    for part in parts:
        shown[str(places.asks(part))] = True
    optional = [places.engine / "ca.pem"]
    if DISPATCHER in parts:
        optional.append(places.engine / "engine.json")
    if API in parts:
        shown |= {str(places.token): False, str(places.codes): True}
    return shown | {str(path): False for path in optional if path.exists()} | {path: False for path in tls if path}


def on_island(name: str, shown: dict[str, bool], argv: Sequence[str]) -> list[str]:
    """Return the command line of a program of ours on an island that sees our code, `shown`, and the host's network."""
    code = [path for path in dict.fromkeys(map(os.path.abspath, filter(None, sys.path))) if _has_code(path)]
    options = ["--name", f"{name}-{os.getpid()}", "--network", "host", "--memory", MEMORY, "--cwd", "/"]
    options += ["--env", f"PYTHONPATH={':'.join(code)}"]
    for path, writable in ({path: False for path in code if not _is_prefix(path)} | shown).items():
        options += ["--mount", f"{path}:{path}:{'rw' if writable else 'ro'}"]
    return [*python("enisle", "run", *options), "--", *argv]


def _has_code(path: str) -> bool:
    """Whether our package or what it needs is in a directory; the working directory of whoever starts us is not."""
    found = path.endswith("-packages") or os.path.isdir(f"{path}/enisle/control")
    return path != "/" and found and os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK)


def _is_prefix(path: str) -> bool:
    """Whether an island sees a path anyway: the running Python's, and the system's."""
    seen = ("/usr", "/opt", os.path.abspath(sys.prefix), os.path.abspath(sys.base_prefix))
    return any(path == one or path.startswith(one + "/") for one in seen)
