"""`enisle watch`: tasks and what they hold, drawn as they change; piped, a line for each event.

One thread reads events into a picture, under its lock; the main thread draws it, ten times a second at most.
"""

import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from enisle.cli.carrying import say_json
from enisle.cli.following import LOOK_S, PATIENCE_S, interruptible
from enisle.cli.output import plain, say
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.ps import age
from enisle.cli.reach import Door, Unreachable
from enisle.cli.task_drawing import ENDED, Json, about, fit, holder_id, how_far, lasted, short, spent, title, waits_for

Event = tuple[str, str, Any]
CLEAR = "\x1b[H\x1b[J"
DRAWN_EVERY_S, AGES_EVERY_S = 0.1, 1.0
SHOWN_S = 30.0
"""A task that ended is shown so long."""
MOST_ENDED = 8


class Picture:
    """What the events told so far."""

    def __init__(self) -> None:
        self.tasks: dict[str, Json] = {}
        self.locks: dict[str, Json] = {}
        self.islands: dict[str, Json] = {}
        self.hosts: dict[str, Json] = {}
        self.current = False

    def learn(self, event: Event) -> None:
        """Take one event in."""
        name, identity, value = event
        if name == "reset":
            self.__init__()
        elif name == "current":
            self.current = True
        elif name == "progress":
            if identity in self.tasks:
                self.tasks[identity]["progress"] = value
        elif name in ("task", "lock", "island", "host"):
            rows: dict[str, Json] = getattr(self, f"{name}s")
            if value is None:
                rows.pop(identity, None)
            else:
                rows[identity] = value

    def page(self, now: float, columns: int, lines: int) -> str:
        """Return what is going on, in as many lines as there are."""
        going = sorted(
            (task for task in self.tasks.values() if task["state"] not in ENDED), key=lambda task: task["submitted"]
        )
        ended = sorted(
            (task for task in self.tasks.values() if task["state"] in ENDED and now - task["finished"] < SHOWN_S),
            key=lambda task: -task["finished"],
        )[:MOST_ENDED]
        rows = [self._head(going), ""]
        rows += [self._going(task, now) for task in going] or ["no task is going on"]
        rows += ["", *(_past(task, now) for task in ended)] if ended else []
        held = [row for row in (self._held(key) for key in sorted(self.locks)) if row]
        rows += ["", *held] if held else []
        if len(rows) > lines - 1:
            rows = [*rows[: lines - 2], f"… {len(rows) - lines + 2} lines more"]
        return "".join(fit(row, columns) + "\n" for row in rows)

    def _head(self, going: list[Json]) -> str:
        live = sum(host.get("state") == "live" for host in self.hosts.values())
        running = sum(island.get("state") == "running" for island in self.islands.values())
        counts = (
            _count(live, "host"),
            _count(running, "running island"),
            _count(sum(task["state"] == "running" for task in going), "running task"),
            f"{sum(task['state'] != 'running' for task in going)} waiting",
        )
        return ", ".join(counts)

    def _going(self, task: Json, now: float) -> str:
        holder = self.tasks.get(holder_id(task))
        progress: Json | None = (holder or task).get("progress")
        parts = (short(task["id"]), f"{age(max(0.0, now - task['submitted'])):>6}", title(task))
        return "  ".join(filter(None, (*parts, waits_for(task, holder), how_far(progress))))

    def _held(self, key: str) -> str:
        lock = self.locks[key]
        kind, _, identity = key.partition(".")
        holders = ", ".join(map(short, lock["holders"][:4])) or "another tenant"
        waiting = f"; {len(lock['waiting'])} waiting" if lock["waiting"] else ""
        return f"{plain(kind)}/{plain(identity)}  {plain(lock['mode'])} by {holders}{waiting}"


def _past(task: Json, now: float) -> str:
    told = f"{plain(task['state'])} in {lasted(spent(task))}"
    failed = f": {about(task)}" if task["state"] == "failed" else ""
    return f"{short(task['id'])}  {age(max(0.0, now - task['finished'])):>6}  {title(task)}  {told}{failed}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def watch(options: PlatformOptions, door: Door) -> int:
    """Show events until interrupted."""
    with interruptible(lambda: "left; everything goes on"):
        if options.json or options.quiet or not sys.stdout.isatty():
            return _print(options, door)
        return _draw(options, door)


def _print(options: PlatformOptions, door: Door) -> int:
    """Print a line for each event: of what is so, only what goes on; then everything that changes."""
    current = False
    for event in persistent(door):
        name, identity, value = event
        if name == "current":
            current = True
            if options.once:
                return 0
        if options.json:
            say_json({"event": name, "id": identity, "value": value})
        elif options.quiet:
            if name == "task":
                say(f"{plain(identity)}\n")
        elif current or name == "lock" or (name == "task" and value and value["state"] not in ENDED):
            say(_told(name, identity, value))
    return 0


def _told(name: str, identity: str, value: Any) -> str:
    """Return an event in words: time, what, which, how it is now."""
    text = ""
    if value is None:
        text = "" if name in ("current", "reset") else "gone"
    elif name == "task":
        text = "\t".join((value["state"], title(value), about(value)))
    elif name == "progress":
        text = f"{value['fraction']:.0%}\t{plain(value['phase'])}"
    elif name == "lock":
        text = "\t".join((plain(value["mode"]), ",".join(value["holders"]), ",".join(value["waiting"])))
    elif "state" in value:
        text = plain(value["state"])
    return f"{time.strftime('%H:%M:%S')}\t{plain(name)}\t{plain(identity)}\t{text}".rstrip("\t") + "\n"


def persistent(door: Door) -> Iterator[Event]:
    """Yield events, from the start again when the platform was lost. Raises Unreachable when it stays away."""
    lost = 0.0
    while True:
        try:
            for event in door.events():
                lost = 0.0
                yield event
        except Unreachable:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > PATIENCE_S:
                raise
        time.sleep(LOOK_S)
        yield "reset", "", None


def _draw(options: PlatformOptions, door: Door) -> int:
    picture, lock = Picture(), threading.Lock()
    changed, failed = threading.Event(), queue.Queue[BaseException]()

    def read() -> None:
        try:
            for event in persistent(door):
                with lock:
                    picture.learn(event)
                changed.set()
        except BaseException as error:
            failed.put(error)
            changed.set()

    threading.Thread(target=read, daemon=True).start()
    while True:
        changed.wait(AGES_EVERY_S)
        changed.clear()
        if not failed.empty():
            raise failed.get()
        with lock:
            size = shutil.get_terminal_size()
            page, current = picture.page(time.time(), size.columns, size.lines), picture.current
        if current:
            say(page if options.once else CLEAR + page)
            if options.once:
                return 0
        time.sleep(DRAWN_EVERY_S)
