"""`enisle audit`: who did what, the latest first."""

import sys
import time
from typing import Any

from enisle.cli.carrying import say_list
from enisle.cli.output import plain
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door
from enisle.cli.task_drawing import Json, short
from enisle.cli.token import seconds
from enisle.errors import InvalidRequest

HEAD = ("TIME", "ACTION", "ACTOR", "TENANT", "FROM", "ABOUT", "REASON")
PAGE = 500
FIRST = ("routine", "resources", "resource", "host", "name")
"""Of what an act is about: what is told without its name, and first."""
UNSAID = ("digest", "public_key")


def audit(options: PlatformOptions, door: Door) -> int:
    """Print a line for each act."""
    if options.limit < 1:
        raise InvalidRequest("that many acts cannot be listed", f"not {options.limit}", "--limit 50")
    asked: dict[str, Any] = {"actor": options.actor, "action": options.action}
    if options.since:
        asked["since"] = time.time() - seconds(options.since, "--since 12h")
    query = {name: value for name, value in asked.items() if value}
    items: list[Json] = []
    more: str | None = ""
    while more is not None and len(items) < options.limit:
        left = min(PAGE, options.limit - len(items))
        page = door.ask("GET", "/v1/audit", {**query, "limit": left} | ({"cursor": more} if more else {}))
        items, more = items + page["items"], page["next"]
    return say_list(options, HEAD, items, _row, "nobody did anything of that kind", "id")


def _row(act: Json) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(act["time"]))
    told = (act["action"], act["actor"], act["tenant"], act["address"], about(act["about"]), act["reason"])
    return (when, *(plain(word) or "-" for word in told))


def about(told: Json) -> str:
    """Return what an act is about: `island.exec island/web task=3f2a…`."""
    words = [_said(told[name]).partition("@")[0] for name in FIRST if told.get(name)]
    rest = [name for name, value in told.items() if name not in (*FIRST, *UNSAID) and value]
    return " ".join((*words, *(f"{name}={_said(told[name])}" for name in rest)))


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_said(one) for one in value)  # pyright: ignore[reportUnknownVariableType]
    whole = not sys.stdout.isatty() or not isinstance(value, str) or not value.isalnum()
    return str(value) if whole else short(value)
