"""`enisle token`: who may use the platform, and for what."""

import re
import time

from enisle.cli.carrying import names, one_word, say_json, say_list
from enisle.cli.host import tell_done
from enisle.cli.output import mutter, plain, say
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door
from enisle.cli.task_drawing import Json
from enisle.errors import InvalidRequest

HEAD = ("ID", "NAME", "SCOPES", "TENANT", "MADE", "USED", "EXPIRES")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SCOPES = ("read", "write", "admin", "join")


def token(options: PlatformOptions, door: Door) -> int:
    """Run one of its verbs; return the exit code."""
    match options.verb:
        case "token new":
            return new(options, door)
        case "token ls":
            return ls(options, door)
        case "token revoke":
            for identity in names(options, "token"):
                door.ask("DELETE", f"/v1/tokens/{identity}")
                tell_done(options, {"id": identity, "revoked": True}, f"revoked {identity}")
            return 0
        case verb:
            raise AssertionError(f"{verb=}")


def new(options: PlatformOptions, door: Door) -> int:
    """Make a token; its secret is data, so it alone is on standard output."""
    name = one_word(options, "name")
    scopes = list(dict.fromkeys(options.scopes)) or ["read"]
    for scope in scopes:
        if scope not in SCOPES:
            raise InvalidRequest(
                f"there is no scope {plain(scope)!r}", "there are " + ", ".join(SCOPES), "--scope read"
            )
    body = {
        "name": name,
        "scopes": scopes,
        "tenant": options.tenant or "default",
        "expires_s": seconds(options.expires),
    }
    made = door.ask("POST", "/v1/tokens", {}, body)
    if options.json:
        say_json(made)
        return 0
    say(f"{plain(made['token'])}\n")
    if not options.quiet:
        until = f" until {_day(made['expires'])}" if made["expires"] else ""
        may = ", ".join(scopes)
        mutter(f"enisle: made token {plain(made['id'])} ({plain(name)}: {may}){until}; it is not shown again\n")
    return 0


def seconds(word: str, example: str = "--expires 30d") -> float:
    """Return what 90s, 15m, 12h or 30d says; nothing is 0, for ever. Raises InvalidRequest."""
    if not word:
        return 0.0
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", word)
    if not found or not int(found[1]):
        raise InvalidRequest(f"{plain(word)!r} is no time", "it has a number and one of s, m, h, d", example)
    return float(found[1]) * UNITS[found[2]]


def ls(options: PlatformOptions, door: Door) -> int:
    """Print a line for each token."""
    items = door.ask("GET", "/v1/tokens")["items"]
    return say_list(options, HEAD, items, _row, "there are no tokens", "id")


def _row(found: Json) -> tuple[str, ...]:
    expires = _day(found["expires"]) if found["expires"] else "never"
    scopes = ",".join(map(plain, found["scopes"]))
    made = _day(found["created"])
    used = _day(found["used"]) if found.get("used") else "-"
    return (plain(found["id"]), plain(found["name"]), scopes, plain(found["tenant"]), made, used, expires)


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
