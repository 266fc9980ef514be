"""`enisle host`: the platform's hosts."""

import time
from typing import Any

from enisle.cli.carrying import names, one_word, say_about, say_json, say_list, segment
from enisle.cli.output import plain, say, size
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.ps import age
from enisle.cli.reach import Door
from enisle.cli.task_drawing import Json
from enisle.errors import InvalidRequest

HEAD = ("NAME", "STATE", "PROCESSORS", "MEMORY", "ISLANDS", "VMS", "TASKS", "SINCE", "VERSION")


def host(options: PlatformOptions, door: Door) -> int:
    """Run one of its verbs; return the exit code."""
    match options.verb:
        case "host ls":
            return ls(options, door)
        case "host show":
            found = door.ask("GET", f"/v1/hosts/{segment(one_word(options, 'host'), 'a host')}")
            say_json(found) if options.json else say_about(found)
            return 0
        case "host declare-dead":
            return declare_dead(options, door)
        case "host drain" | "host undrain":
            verb = options.verb.partition(" ")[2]
            for name in names(options, "host"):
                reason = options.reason or f"`enisle {options.verb}`"
                tell_done(
                    options, door.ask("POST", f"/v1/hosts/{name}/{verb}", {}, {"reason": reason}), f"{verb}ed {name}"
                )
            return 0
        case "host rm":
            for name in names(options, "host"):
                door.ask("DELETE", f"/v1/hosts/{name}")
                tell_done(options, {"name": name, "state": "removed"}, f"forgot {name}, and took its key away")
            return 0
        case verb:
            raise AssertionError(f"{verb=}")


def ls(options: PlatformOptions, door: Door) -> int:
    """Print a line for each host."""
    items = door.ask("GET", "/v1/hosts")["items"]
    now = time.time()
    return say_list(options, HEAD, items, lambda one: row(one, now), "no host has joined")


def row(found: Json, now: float) -> tuple[str, ...]:
    """Return a host's line in a table."""

    def shown(name: str) -> str:
        return plain(found[name]) if found.get(name) is not None else "-"

    memory = size(found["memory"]) if found.get("memory") else "-"
    since = age(max(0.0, now - found["since"])) if found.get("since") else "-"
    rest = (shown("islands"), shown("vms"), shown("tasks"), since, shown("version"))
    return (shown("name"), shown("state"), shown("processors"), memory, *rest)


def declare_dead(options: PlatformOptions, door: Door) -> int:
    """Say that a host will not come back."""
    name = segment(one_word(options, "host"), "a host")
    if not options.reason:
        raise InvalidRequest("no reason was given", "whoever reads the audit wants to know", "--reason 'it burnt'")
    told = door.ask("POST", f"/v1/hosts/{name}/declare-dead", {}, {"reason": options.reason})
    tell_done(options, told, f"declared {name} dead")
    return 0


def permissions(options: PlatformOptions) -> int:
    """Print the accounts of a cluster that is not ours; asks no platform. Raises InvalidRequest."""
    from enisle.tasks import cluster_accounts, require_public

    hosts: dict[str, str] = {}
    for word in options.words:
        name, sign, key = word.partition("=")
        if not sign:
            raise InvalidRequest(f"{plain(word)!r} names no host and its key", "they belong together", "NAME=KEY")
        hosts[segment(name, "a host")] = require_public(key)
    say(cluster_accounts(hosts))
    return 0


def tell_done(options: PlatformOptions, record: Any, words: str) -> None:
    """Tell what was done at once, without a task."""
    if options.json:
        say_json(record)
    elif options.quiet:
        say(f"{plain(record.get('name') or record.get('id'))}\n")
    else:
        say(f"{words}\n")
