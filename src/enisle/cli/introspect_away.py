"""`enisle introspect` at a platform: a look is a task on the machine's host, its rows are that task's result."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from enisle.cli.carrying import CANCELLED, Wish, complete, failure_of, say_json, segment
from enisle.cli.following import Screen, detached, follow, interruptible
from enisle.cli.grammar import Options
from enisle.cli.introspect_rows import HEADS, ROWS, report_lines, status_line
from enisle.cli.output import mutter, plain, say, table
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door, reach
from enisle.cli.task_drawing import Json, spent
from enisle.cli.vm import only_here
from enisle.errors import EnisleError
from enisle.introspect import Fact, Mapped

FOUND = 1
PAIRED = ("maps", "wx", "hashes")
"""Views whose rows say whose each is."""
KINDS: dict[str, Callable[..., Any]] = {"facts": Fact, "maps": Mapped, "wx": Mapped}
"""Records that tell more than their fields."""


def look_away(target: str, view: str, options: Options) -> int:
    """Show one view of a platform's machine; return 1 when a check found something."""
    verb = f"introspect {segment(target, 'a machine')} {view}"
    if view == "watch":
        raise only_here(verb, "it stops the guest wherever it goes, by a debugger's socket")
    given = {
        "--watch": options.watch,
        "--live": options.live,
        "--baseline": options.baseline,
        "--without-exports": options.without_exports,
    }
    if said := next((flag for flag, value in given.items() if value), ""):
        raise only_here(f"{verb} {said}", "a platform looks once, at a guest that stands still")
    typed = PlatformOptions(options)
    typed.verb = "introspect"
    try:
        with reach(typed) as door:
            return _look(door, target, view, options.json)
    except EnisleError as error:
        complete(error, typed.verb)
        raise


def _look(door: Door, name: str, view: str, json: bool) -> int:
    current: list[Json | None] = [None]
    with interruptible(lambda: detached(current[0])):
        wish = Wish("POST", f"/v1/vms/{name}/introspect", name, lambda _: "", {"view": view})
        current[0] = task = wish.submit(door)
        task = follow(door, task, Screen(json))
    if task["state"] == "failed":
        raise failure_of(task)
    if task["state"] == "cancelled":
        mutter(f"enisle: task {plain(task['id'])} was cancelled: {plain(task['cancel']) or 'no reason was given'}\n")
        return CANCELLED
    found: Json = door.ask("GET", f"/v1/tasks/{task['id']}/result")["result"]
    for note in found["notes"]:
        mutter(f"enisle: note: {plain(note)}\n")
    return _show_check(found, json) if view == "check" else _show_rows(found, view, json, spent(task))


def _show_rows(found: Json, view: str, json: bool, seconds: float) -> int:
    if json:
        say_json({name: found[name] for name in ("view", "rows", "incomplete", "paused_seconds")})
        return 0
    aligned = sys.stdout.isatty()
    rows = [[plain(cell) for cell in ROWS[view](_row(view, row))] for row in found["rows"]]
    say(table(HEADS[view], rows, aligned))
    for trouble in found["incomplete"]:
        mutter(f"enisle: incomplete: {plain(trouble)}\n")
    if aligned:
        mutter(status_line(len(rows), seconds, found["paused_seconds"]))
    return 0


def _row(view: str, told: Json) -> Any:
    """Return a row as the views of this computer have it."""
    fields = {name: _record(value) for name, value in told.items()}
    whose = fields.pop("process", None) if view in PAIRED else None
    record = KINDS.get(view, SimpleNamespace)(**fields)
    return (whose, record) if view in PAIRED else record


def _show_check(found: Json, json: bool) -> int:
    report = found["rows"][0]
    if json:
        say_json(report | {"clean": not report["findings"]})
    else:
        say("".join(f"{plain(line)}\n" for line in report_lines(_record(report))))
    return FOUND if report["findings"] else 0


def _record(told: Any) -> Any:
    """Return what JSON told, to be read by names as the records that it was made of."""
    if isinstance(told, dict):
        return SimpleNamespace(**{str(name): _record(value) for name, value in told.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [_record(value) for value in told] if isinstance(told, list) else told  # pyright: ignore[reportUnknownVariableType]
