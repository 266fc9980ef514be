"""`enisle replicate`: change how a running island keeps copies of its page tables, or tell how it does."""

from typing import Any

from enisle.cli.grammar import Options
from enisle.cli.output import plain, say
from enisle.errors import InvalidRequest
from enisle.island import ask, find

MODES = ("off", "eager", "lazy", "auto", "migrate")
PATIENCE = 60.0
"""Seconds: growing whole trees for a large program takes a while."""


def replicate(options: Options) -> int:
    """Ask for the mode, if one is named, and say what is so now."""
    if not options.words:
        raise InvalidRequest("replicate the page tables of which island?", hint="enisle replicate ISLAND eager")
    request: dict[str, Any] = {"call": "replication"}
    if len(options.words) > 1:
        request["mode"] = options.words[1]
        if options.words[1] not in MODES:
            raise InvalidRequest(f"no such mode: {options.words[1]!r}", "only these are known", ", ".join(MODES))
    if options.on is not None:
        if "mode" not in request:
            hint = "enisle replicate ISLAND eager --on 0-1"
            raise InvalidRequest("--on needs a mode", "it says which nodes get copies", hint)
        request["nodes"] = options.on
    entry = find(options.words[0])
    now = ask(entry, request, PATIENCE)
    if options.json:
        import json

        say(json.dumps({**entry._asdict(), **now}) + "\n")
        return 0
    changed = f"changed in {now['seconds'] * 1e3:.0f} ms; " if "mode" in request else ""
    nodes = ",".join(str(int(node)) for node in now["mask"])
    counts = f"{int(now['tables'])} tables, {int(now['replicas'])} copies"
    say(f"{entry.name}: {changed}mode {plain(now['mode'])}, nodes {nodes}, {counts}\n")
    return 0
