"""What every verb that changes something does: submit, follow, tell the end, exit with its code."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from enisle.cli.following import Screen, detached, follow, interruptible
from enisle.cli.output import mutter, plain, say, table
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import NO_QUERY, Door, Query
from enisle.cli.task_drawing import Json, lasted, spent, title
from enisle.errors import EnisleError, InvalidRequest, NotFound, StateError

CANCELLED = 130
WHOLE_ID = 24
WHY: tuple[tuple[type[EnisleError], str], ...] = (
    (InvalidRequest, "as it was put, it cannot work"),
    (NotFound, "nothing of that name is there, or it is not yours"),
    (StateError, "it cannot be done as things are now"),
    (EnisleError, "no reason was told"),
)
"""What is said of an error that says nothing itself."""
Ending = Callable[[Json], str]
"""A task that is done → its past-tense line, without how long it took."""


class Wish:
    """Something to be asked for: where, with what, the name that -q prints, and how its success is told."""

    def __init__(
        self, method: str, path: str, name: str | Ending, ending: Ending, body: Any = None, query: Query = NO_QUERY
    ) -> None:
        self.method, self.path, self.body, self.query = method, path, body, query
        self.name, self.ending = name, ending
        self.key = os.urandom(16).hex()

    def submit(self, door: Door) -> Json:
        return door.ask(self.method, self.path, self.query, self.body, self.key)

    def name_of(self, task: Json) -> str:
        return self.name if isinstance(self.name, str) else self.name(task)


def carry_out(options: PlatformOptions, door: Door, wishes: Sequence[Wish]) -> int:
    """Submit all wishes, then follow each to its end; return the exit code of the last that did not end well."""
    code = 0
    tasks: list[Json] = []
    current: list[Json | None] = [None]
    with interruptible(lambda: detached(current[0])):
        for wish in wishes:
            current[0] = task = wish.submit(door)
            tasks.append(task)
        if options.no_wait:
            return tell_submitted(options, tasks)
        for wish, task in zip(wishes, tasks, strict=True):
            current[0] = task
            ended = follow(door, task, Screen(options.quiet or options.json))
            code = conclude(options, ended, wish.name_of(ended), wish.ending, last=task is tasks[-1]) or code
    return code


def tell_submitted(options: PlatformOptions, tasks: Sequence[Json]) -> int:
    """Tell what was submitted and is not waited for."""
    for task in tasks:
        if options.json:
            say_json(task)
        elif options.quiet:
            say(f"{plain(task['id'])}\n")
        else:
            say(f"submitted {title(task)} as task {plain(task['id'])}\n")
    return 0


def conclude(options: PlatformOptions, task: Json, name: str, ending: Ending, last: bool = True) -> int:
    """Tell how a task ended; return the exit code. Raises EnisleError for one that failed, if it is the last."""
    if options.json:
        say_json(task)
    if task["state"] == "failed":
        failure = failure_of(task)
        if last:
            raise failure
        tell(failure)
        return failure.exit_code
    if task["state"] == "cancelled":
        mutter(f"enisle: task {plain(task['id'])} was cancelled: {plain(task['cancel']) or 'no reason was given'}\n")
        return CANCELLED
    if not options.json:
        say(f"{name}\n" if options.quiet else f"{ending(task)} in {lasted(spent(task))}\n")
    return 0


def failure_of(task: Json) -> EnisleError:
    """Return what a failed task tells, as an error."""
    told: Json = task.get("failure") or {}
    message = told.get("message") or f"task {task['id']} failed"
    why = told.get("why") or f"{title(task)}, attempt {task['attempt']} of {task['attempts']}"
    return EnisleError(message, why, told.get("hint") or f"enisle task show {task['id']}")


def complete(error: EnisleError, verb: str) -> None:
    """Give an error its three lines, each of them one that no terminal takes for a command."""
    error.message = plain(error.message)
    error.why = plain(error.why) or next(why for kind, why in WHY if isinstance(error, kind))
    hint = plain(error.hint) or f"enisle {verb} --help"
    # A command alone is what to type; only among other words it is set off.
    error.hint = hint.strip("`") if hint.count("`") == 2 and hint[0] == hint[-1] == "`" else hint


def tell(error: EnisleError) -> None:
    """Print an error that is not the end of the command."""
    complete(error, "task")
    mutter(f"enisle: {error}\n")


def find_task(door: Door, word: str) -> Json:
    """Return a task by its id or the beginning of it. Raises NotFound, InvalidRequest when several begin so."""
    if len(word) < WHOLE_ID and word.isalnum():
        found = [task for task in door.ask("GET", "/v1/tasks", {"limit": 500})["items"] if task["id"].startswith(word)]
        if len(found) > 1:
            why = ", ".join(task["id"] for task in found[:4])
            raise InvalidRequest(f"several tasks begin with {word}", why, "type more of the id")
        if not found:
            raise NotFound(f"there is no task {word}", "none of the last 500 begins so", "enisle task ls")
        return found[0]
    return door.ask("GET", f"/v1/tasks/{segment(word, 'a task')}")


def segment(word: str, what: str) -> str:
    """Return a name that may be a part of a path. Raises InvalidRequest for what no name of the platform looks like."""
    if word and len(word) <= 64 and word.isascii() and word.replace("-", "").replace("_", "").isalnum():
        return word
    shown = plain(word) if len(word) <= 80 else plain(word[:80]) + "…"
    raise InvalidRequest(
        f"{what} cannot be named {shown!r}", "it has 1 to 64 letters, digits, - and _", "check the name"
    )


def say_json(value: object) -> None:
    """Print one line of JSON."""
    import json

    say(json.dumps(value) + "\n")


def say_list(
    options: PlatformOptions,
    head: Sequence[str],
    items: Sequence[Json],
    row: Callable[[Json], Sequence[str]],
    nothing: str,
    name: str = "name",
) -> int:
    """Print items as was asked for: JSON, a name a line (-q), or a table; to a reader also that there are none."""
    terminal = sys.stdout.isatty()
    rows = [row(item) for item in items] if not (options.json or options.quiet) else []
    if options.tenant == "*" and "TENANT" not in head and all("tenant" in item for item in items):
        head = (head[0], "TENANT", *head[1:])
        rows = [(one[0], plain(item["tenant"]), *one[1:]) for one, item in zip(rows, items, strict=False)]
    if options.json:
        say_json(items)
    elif options.quiet:
        say("".join(f"{plain(item[name])}\n" for item in items))
    elif items or not terminal:
        say(table(head, rows, terminal))
    else:
        say(f"{nothing}\n")
    return 0


def say_one(options: PlatformOptions, name: str, found: Mapping[str, Any]) -> int:
    """Print all about one thing: as JSON, its name alone (-q), or a line for each field."""
    if options.json:
        say_json(found)
    elif options.quiet:
        say(f"{plain(name)}\n")
    else:
        say_about(found)
    return 0


def say_about(value: Mapping[str, Any]) -> None:
    """Print a record, a line for each field: aligned for a reader, else with tabs."""
    empty: tuple[object, ...] = (None, "", [], {})
    rows = [(plain(name), _shown(field)) for name, field in value.items() if field not in empty]
    if sys.stdout.isatty():
        width = max((len(name) for name, _ in rows), default=0)
        say("".join(f"{name.ljust(width)}  {shown}\n" for name, shown in rows))
    else:
        say("".join(f"{name}\t{shown}\n" for name, shown in rows))


def _shown(field: Any) -> str:
    if isinstance(field, dict | list):
        import json

        return plain(json.dumps(field, ensure_ascii=False))
    return plain(field)


def one_word(options: PlatformOptions, what: str) -> str:
    """Return the one word that a verb needs."""
    if not options.words:
        raise InvalidRequest(f"no {what} was named", "", f"enisle {options.verb} {what.upper()}")
    return options.words[0]


def names(options: PlatformOptions, what: str) -> list[str]:
    """Return the names that a verb needs, checked."""
    one_word(options, what)
    return [segment(word, f"an {what}" if what[0] in "aeiou" else f"a {what}") for word in options.words]
