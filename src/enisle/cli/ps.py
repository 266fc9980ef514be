"""`enisle ps`: the running islands of this user."""

import shlex
import sys
from collections.abc import Sequence

from enisle.cli.grammar import Options
from enisle.cli.output import plain, say, size, table
from enisle.island import Sighting, islands

HEAD = ("NAME", "ID", "PID", "AGE", "MEMORY", "PROCESSORS", "PROCESSES", "PROGRAM")
LONGEST_PROGRAM = 60
PATIENCE = 2.5
"""Seconds for each island: a stopped one is listed all the same."""


def ps(options: Options) -> int:
    """Print one line for each island, in words or as JSON."""
    running = islands(PATIENCE)
    if options.json:
        import json

        say(json.dumps([_record(sighting) for sighting in running]) + "\n")
    elif options.quiet:
        say("".join(f"{sighting.entry.name}\n" for sighting in running))
    elif running or not sys.stdout.isatty():
        aligned = sys.stdout.isatty()
        say(table(HEAD, [_row(sighting) for sighting in running], aligned))
    else:
        say("no island of yours is running\n")
    return 0


def _record(sighting: Sighting) -> dict[str, object]:
    entry = sighting.entry._asdict()
    return {**entry, **sighting.about, "trouble": sighting.trouble} if sighting.trouble else {**entry, **sighting.about}


def _row(sighting: Sighting) -> Sequence[str]:
    entry, about = sighting.entry, sighting.about
    head = (plain(entry.name), plain(entry.id), str(entry.pid))
    if not about:
        return (*head, "-", "-", "-", "-", f"({plain(sighting.trouble)})")
    memory = f"{size(about['memory_used'])}/{size(about['memory_limit'])}"
    processors = f"{about['processors']} {plain(about['backend'])}"
    program = plain(shlex.join(map(str, about["program"])))
    short = program if len(program) <= LONGEST_PROGRAM else program[: LONGEST_PROGRAM - 1] + "…"
    return (*head, age(about["age"]), memory, processors, str(about["processes"]), short)


def age(seconds: float) -> str:
    """Return a time as people say it: 7s, 3m12s, 2h05m, 4d03h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
