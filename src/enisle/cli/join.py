"""`enisle join`: this machine becomes a host of a platform somewhere.

Its key is made here; the platform is told the public half. What was agreed is kept beside the host's state, so that the
agent can be started again without a token. A supervisor watches over it, as over a platform's own.
"""

import json
import os
import socket
import time
from pathlib import Path

from enisle.cli.carrying import say_json, segment
from enisle.cli.context import read_secret
from enisle.cli.http_door import HttpDoor
from enisle.cli.output import mutter, plain, say, tell_note
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.task_drawing import Json
from enisle.cli.up import places_of, running, working
from enisle.control import Places, start_platform
from enisle.errors import HostError, InvalidRequest, StateError
from enisle.tasks import Identity, identity_of, new_identity


def join(options: PlatformOptions) -> int:
    """Join a platform unless this host has, and run the agent."""
    if not options.words and not options.nats:
        raise InvalidRequest("which platform?", "no URL was named", "enisle join https://10.0.0.1:4600 --token -")
    places, name = places_of(options), segment(options.name or own_name(), "a host")
    places.prepare()
    require_free(places, name)
    agreed = places.host(name) / "joined.json"
    known = kept(agreed)
    if options.nats:
        keep(agreed, agree_with_cluster(options, name, known))
    elif (token := read_secret(options)) or not known.get("engine_url"):
        keep(agreed, agree(options, name, token, identity(agreed, known)))
    return detached(options, places, name, agreed) if options.detach else stay(options, places, name, agreed)


def own_name() -> str:
    """Return this computer's name, as a name of a platform."""
    name = socket.gethostname().partition(".")[0]
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in name)[:64] or "host"


def kept(agreed: Path) -> Json:
    """Return what was agreed before, nothing when there was nothing. Raises HostError."""
    try:
        return json.loads(agreed.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostError(f"cannot read {agreed}", str(error)[:200], "remove it, and join anew") from None


def identity(agreed: Path, known: Json) -> Identity:
    """Return this host's key: once made it is kept, whatever becomes of the joining."""
    if known.get("seed"):
        return identity_of(str(known["seed"]))
    made = new_identity()
    keep(agreed, {"url": "", "engine_url": "", "ca": "", "seed": made.seed})
    return made


def agree(options: PlatformOptions, name: str, token: str, own: Identity) -> Json:
    """Tell the platform this host's public key; return what the agent needs."""
    if not token:
        raise InvalidRequest("no token to join was given", "joining needs one", "--token TOKEN, or ENISLE_TOKEN")
    with working("joining", options.json), HttpDoor(options.words[0], token, options.ca) as door:
        told = door.ask("POST", "/v1/hosts", {}, {"name": name, "public_key": own.public})
    return {"url": options.words[0], "engine_url": told["engine_url"], "ca": told["ca"], "seed": own.seed}


def agree_with_cluster(options: PlatformOptions, name: str, known: Json) -> Json:
    """Return what the agent needs for an engine whose operator lets hosts in; tell the key to let in."""
    try:
        ca = Path(options.ca).read_text() if options.ca else ""
    except OSError as error:
        raise HostError(
            f"cannot read {plain(options.ca)}", os.strerror(error.errno or 0), "name a file in PEM"
        ) from None
    own = identity_of(str(known["seed"])) if known.get("seed") else new_identity()
    tell_note(f"the cluster must know it: enisle host permissions {name}={own.public}")
    url = options.words[0] if options.words else options.nats
    return {"url": url, "engine_url": options.nats, "ca": ca, "seed": own.seed}


def keep(agreed: Path, told: Json) -> None:
    """Write what was agreed, for the owner's eyes only. Raises HostError."""
    staged = agreed.with_suffix(".new")
    try:
        agreed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(json.dumps(told))
        staged.replace(agreed)
    except OSError as error:
        raise HostError(f"cannot write {agreed}", error.strerror or "", "make room, or name a --state") from None


def stay(options: PlatformOptions, places: Places, name: str, agreed: Path) -> int:
    """Be the supervisor of the agent until a signal ends it."""
    mutter(f"enisle: host {name} of {plain(kept(agreed)['url'])}; Ctrl-C ends its agent, islands go on\n")
    start_platform(places, foreground=True, **wanted(name, agreed))
    return 0


def detached(options: PlatformOptions, places: Places, name: str, agreed: Path) -> int:
    """Leave the agent and its supervisor running; return when it has reached the engine."""
    begin = time.monotonic()
    with working(f"starting the agent of {name}", options.json):
        info = start_platform(places, **wanted(name, agreed))
    if options.json:
        say_json({"host": name, "pid": info.pid, "log": str(places.log), "parts": info.parts})
    else:
        how = f"agent: process {info.parts.get('agent', 0)}, watched by {info.pid}, log {places.log}"
        say(f"joined as host {name} in {time.monotonic() - begin:.1f} s ({how})\n")
    return 0


def wanted(name: str, agreed: Path) -> Json:
    return {"host": name, "joined": str(agreed), "api": False}


def require_free(places: Places, name: str) -> None:
    """Raises StateError when a platform, or the agent of a host, runs over this state directory."""
    there = running(places)
    if there is None:
        return
    if there.joined:
        why, hint = f"process {there.pid} watches over host {there.host} of {there.url}", "`enisle down` ends it"
    else:
        why, hint = f"the platform {there.url} runs on {places.directory}", "name a directory of its own with --state"
    raise StateError(f"cannot join as {name} here", why, hint)
