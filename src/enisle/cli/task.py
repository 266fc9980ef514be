"""`enisle task`: the platform's tasks, listed, followed, ended, done again."""

import json
import sys
import time
from typing import Any

from enisle.cli.carrying import (
    Wish,
    carry_out,
    conclude,
    find_task,
    one_word,
    say_about,
    say_json,
    say_list,
    segment,
)
from enisle.cli.following import Screen, detached, follow, interruptible
from enisle.cli.output import plain, say, table
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door
from enisle.cli.streaming import stream_output
from enisle.cli.task_drawing import ENDED, HEAD, Json, lasted, row, title
from enisle.errors import InvalidRequest


def task(options: PlatformOptions, door: Door) -> int:
    """Run one of its verbs; return the exit code."""
    match options.verb:
        case "task ls":
            return ls(options, door)
        case "task show":
            return show(options, door)
        case "task wait":
            return wait(options, door)
        case "task cancel":
            return cancel(options, door)
        case "task retry":
            return retry(options, door)
        case "task output":
            return output(options, door)
        case "task attach":
            from enisle.cli.island_exec import attach_again

            return attach_again(options, door)
        case "task submit":
            return submit(options, door)
        case "task routines":
            return routines(options, door)
        case "task unlock":
            return unlock(options, door)
        case verb:
            raise AssertionError(f"{verb=}")


def ls(options: PlatformOptions, door: Door) -> int:
    """Print a line for each task, newest first."""
    asked = {"state": options.state, "resource": options.resource, "routine": options.routine}
    query: dict[str, str | int] = {name: value for name, value in asked.items() if value}
    if options.limit < 1:
        raise InvalidRequest("that many tasks cannot be listed", f"not {options.limit}", "--limit 50")
    items: list[Json] = []
    more: str | None = ""
    while more is not None and len(items) < options.limit:
        left = min(500, options.limit - len(items))
        page = door.ask("GET", "/v1/tasks", {**query, "limit": left} | ({"cursor": more} if more else {}))
        items, more = items + page["items"], page["next"]
    now, whole = time.time(), not sys.stdout.isatty()
    nothing = "there is no such task" if query else "there are no tasks yet"
    return say_list(options, HEAD, items, lambda one: row(one, now, whole), nothing, "id")


def show(options: PlatformOptions, door: Door) -> int:
    """Print all about a task."""
    found = find_task(door, one_word(options, "task"))
    if options.json:
        say_json(found)
    elif options.quiet:
        say(f"{plain(found['id'])}\n")
    else:
        say_about(_readable(found))
    return 0


def _readable(found: Json) -> Json:
    """Return a task with times as people write them and its parts in words."""
    told: Json = dict(found)
    for name in ("submitted", "started", "finished", "deadline"):
        if told[name]:
            told[name] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told[name]))
    told["resources"] = ", ".join(f"{one['kind']}/{one['id']} ({one['mode']})" for one in found["resources"])
    if found["progress"]:
        told["progress"] = f"{found['progress']['fraction']:.0%} {found['progress']['phase']}".strip()
    if found["failure"]:
        told["failure"] = "; ".join(filter(None, found["failure"].values()))
    if found["blocked"]:
        told["blocked"] = f"by {found['blocked']['by'] or 'nobody'}, on {found['blocked']['resource']}"
    return told


def was_done(task: Json) -> str:
    """Return how the success of any task is told."""
    return f"{title(task)} was done"


def wait(options: PlatformOptions, door: Door) -> int:
    """Follow tasks to their ends; return the exit code of the last that did not end well."""
    one_word(options, "task")
    code = 0
    current: list[Json | None] = [None]
    with interruptible(lambda: detached(current[0])):
        found = [find_task(door, word) for word in options.words]
        for one in found:
            current[0] = one
            ended = follow(door, one, Screen(options.quiet or options.json))
            code = conclude(options, ended, ended["id"], was_done, one is found[-1]) or code
    return code


def cancel(options: PlatformOptions, door: Door) -> int:
    """Ask for the end of tasks, and wait for it: one that got done all the same is told."""
    one_word(options, "task")
    why, begin = options.why or "from the command line", time.monotonic()
    current: list[Json | None] = [None]
    with interruptible(lambda: detached(current[0])):
        found = [find_task(door, word) for word in options.words]
        wished = [door.ask("POST", f"/v1/tasks/{one['id']}/cancel", {}, {"why": why}) for one in found]
        for one in wished:
            current[0] = one
            ended = one if options.no_wait else follow(door, one, Screen(options.quiet or options.json))
            if options.json:
                say_json(ended)
            elif options.quiet:
                say(f"{ended['id']}\n")
            elif ended["state"] == "cancelled":
                say(f"cancelled {title(ended)} in {lasted(time.monotonic() - begin)}\n")
            elif ended["state"] in ENDED:
                say(f"{title(ended)} was {ended['state']} before it could be cancelled\n")
            else:
                say(f"asked {title(ended)} to end\n")
    return 0


def retry(options: PlatformOptions, door: Door) -> int:
    """Have a task done again, as a new one."""
    again = find_task(door, one_word(options, "task"))
    wish = Wish("POST", f"/v1/tasks/{again['id']}/retry", lambda task: plain(task["id"]), was_done, {})
    return carry_out(options, door, [wish])


def output(options: PlatformOptions, door: Door) -> int:
    """Print what the program of a task wrote, on the streams it wrote to."""
    found = find_task(door, one_word(options, "task"))
    with interruptible(lambda: detached(found, "output")):
        stream_output(door, f"/v1/tasks/{found['id']}", options.follow)
    return 0


def submit(options: PlatformOptions, door: Door) -> int:
    """Submit a task of any routine."""
    routine = one_word(options, "routine")
    body = {
        "routine": routine,
        "arguments": dict(_argument(word) for word in options.words[1:]),
        "resources": [parse_resource(word) for word in options.resources],
        "host": options.host,
        "attempts": options.attempts,
        "deadline_s": options.deadline,
        "if_blocked": "fail" if options.fail else "wait",
    }
    return carry_out(options, door, [Wish("POST", "/v1/tasks", lambda task: plain(task["id"]), was_done, body)])


def _argument(word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not equals:
        raise InvalidRequest(f"{plain(word)!r} is no argument", "an argument has a name and a value", "seconds=10.0")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def parse_resource(word: str) -> Json:
    """Return what KIND/NAME[:shared] says. Raises InvalidRequest."""
    kind, slash, rest = word.partition("/")
    identity, _, mode = rest.partition(":")
    if not slash or mode not in ("", "shared", "exclusive"):
        raise InvalidRequest(f"{plain(word)!r} is no resource", "a resource has a kind and a name", "island/web:shared")
    kind, identity = segment(kind, "a kind of resource"), segment(identity, "a resource")
    return {"kind": kind, "id": identity, "mode": mode or "exclusive"}


def routines(options: PlatformOptions, door: Door) -> int:
    """Print what can be run."""
    items = door.ask("GET", "/v1/routines")["items"]
    if options.json:
        say_json(items)
    elif options.quiet:
        say("".join(f"{plain(one['name'])}\n" for one in items))
    else:
        rows = [(plain(one["name"]), plain(one["usage"])) for one in items]
        say(table(("ROUTINE", "TAKES"), rows, sys.stdout.isatty()))
    return 0


def unlock(options: PlatformOptions, door: Door) -> int:
    """Take a resource from whoever holds it."""
    wanted = parse_resource(one_word(options, "kind/name"))
    if not options.reason:
        raise InvalidRequest(
            "no reason was given", "whoever reads the audit wants to know", "--reason 'its host burnt'"
        )
    path = f"/v1/resources/{wanted['kind']}/{wanted['id']}/unlock"
    freed = door.ask("POST", path, {}, {"reason": options.reason})
    if options.json:
        say_json(freed)
    else:
        who = ", ".join(plain(one) for one in freed.get("freed") or freed.get("holders") or ())
        say(f"unlocked {wanted['kind']}/{wanted['id']}" + (f", which {who} held\n" if who else "\n"))
    return 0
