"""`enisle status`: how a platform is, as it says itself."""

import os
import time
from typing import Any

from enisle.cli.carrying import say_json
from enisle.cli.http_door import HttpDoor
from enisle.cli.output import plain, say
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.ps import age
from enisle.cli.reach import Door, Unreachable, reach
from enisle.cli.task_drawing import Json
from enisle.cli.up import context_name, places_of, read_token, running
from enisle.control import Places, PlatformInfo, platform_info
from enisle.errors import EnisleError, HostError


def status(options: PlatformOptions) -> int:
    """Say how a platform is: the one that was named, else that of this machine, else the current context's."""
    named = bool(options.context or options.url)
    local = None if named else running(places_of(options))
    if local is None and (options.state or not (named or elsewhere())):
        platform_info(places_of(options))  # says why there is none
    told: Json = {}
    if local is not None and local.joined:
        told = joined(local)
    elif local is not None:
        places = places_of(options)
        told |= {"pid": local.pid, "state": local.directory, "up": time.time() - local.started, "parts": local.parts}
        told |= {"controller": local.controller}
        with HttpDoor(local.url, read_token(places), local_ca(places, local)) as door:
            told = look(door) | told
    else:
        with reach(options) as door:
            told = look(door)
    if options.json:
        say_json(told)
    elif options.quiet:
        say(f"{told['url']}\n")
    else:
        say("".join(f"{name:<10}{text}\n" for name, text in lines(told)))
    return 0 if told["ok"] else 5


def joined(local: PlatformInfo) -> Json:
    """Return how a host of another platform is; what is known here needs no token."""
    told: Json = {"url": local.url, "host": local.host, "pid": local.pid, "state": local.directory}
    told |= {"up": time.time() - local.started, "parts": local.parts}
    ok, log = "agent" in local.parts, Places(local.directory).log
    return told | {"ok": ok, "reasons": [] if ok else [f"its agent died, and is being started again: see {log}"]}


def local_ca(places: Places, info: PlatformInfo) -> str:
    """Return whom to trust for a platform of this machine."""
    from enisle.api import load_contexts

    known: Json = load_contexts()["contexts"].get(context_name(places), {})
    return str(known["ca"]) if known.get("url") == info.url else ""


def elsewhere() -> bool:
    """Whether another platform than this machine's is the one that verbs speak to."""
    from enisle.api import load_contexts

    current: str = load_contexts()["current"]
    return bool(os.environ.get("ENISLE_URL")) or bool(current and not current.startswith("local"))


def look(door: Door) -> Json:
    """Return what a platform says of itself."""
    told: Json = {"url": door.url}
    try:
        health = door.ask("GET", "/healthz")
    except Unreachable as error:
        return told | {"ok": False, "reasons": [f"{error.message}: {error.why}"]}
    except HostError as error:  # it answers that it is not well
        health = {"ok": False, "reasons": [error.why]}
    told |= {"ok": health["ok"], "reasons": health["reasons"]}
    for noun in ("hosts", "islands"):
        try:
            told[noun] = _states(door.ask("GET", f"/v1/{noun}")["items"])
        except EnisleError as error:
            told["reasons"] = [*told["reasons"], f"{noun}: {error.message}"]
    return told


def _states(items: list[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in items:
        found[one["state"]] = found.get(one["state"], 0) + 1
    return found


def lines(told: Json) -> list[tuple[str, str]]:
    """Return a status in words."""
    rows = [("platform", plain(told["url"]))]
    if "host" in told:
        rows.append(("host", f"{plain(told['host'])} of it; nothing else of it is here"))
    if "pid" in told:
        rows.append(("process", f"{told['pid']}, up for {age(told['up'])}, state in {plain(told['state'])}"))
        if told.get("controller", "host") != "host":
            rows.append(
                ("layout", f"the controller is on {'an island' if told['controller'] == 'island' else 'two islands'}")
            )
        rows.append(("parts", ", ".join(f"{plain(name)} {pid}" for name, pid in told["parts"].items())))
    rows.append(("health", "ok" if told["ok"] else "; ".join(map(plain, told["reasons"])) or "not ok"))
    for noun in ("hosts", "islands"):
        if noun in told:
            counts = ", ".join(f"{number} {plain(state)}" for state, number in sorted(told[noun].items()))
            rows.append((noun, counts or "none"))
    return rows
