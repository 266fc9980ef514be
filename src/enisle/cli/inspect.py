"""`enisle inspect page-tables`: the page tables of a running island, in words, as a picture or as JSON."""

import os
import sys
from typing import Any

from enisle.cli.drawing import MOST_SPACES, draw
from enisle.cli.grammar import Options
from enisle.cli.output import plain, say, size, table
from enisle.cli.tree_rows import LEVEL_NAMES, Row, rows, span_shift
from enisle.errors import GuestError, HostError, InvalidRequest, NotFound
from enisle.island import Entry, ask, find, the_only_one

SUBJECTS = ("page-tables",)
MOST_ROWS, MOST_PAGES = 200, 1 << 13
HEAD = ("TABLE", "ADDRESS", "SPANS", "LINKED", "LEAVES", "COPIES")


def inspect(options: Options) -> int:
    """Ask the island and show the answer."""
    if not options.words or options.words[0] not in SUBJECTS:
        what = f"there is no {options.words[0]!r} to inspect" if options.words else "inspect what?"
        raise InvalidRequest(what, f"known: {', '.join(SUBJECTS)}", "enisle inspect page-tables ISLAND")
    if options.process < 0:
        raise InvalidRequest(f"there is no process {options.process}", "a process id is 1 or more", "--process 2")
    entry = find(options.words[1]) if len(options.words) > 1 else the_only_one()
    spaces = ask(entry, {"call": "page-tables", "limit": MOST_PAGES, "pid": options.process})
    if options.process and not spaces:
        why = f"the island {entry.name!r} has none of that number"
        raise NotFound(f"there is no process {options.process}", why, f"enisle top {entry.name}")
    if options.json:
        import json

        say(json.dumps({**entry._asdict(), "spaces": spaces}) + "\n")
        return 0
    try:
        return _show(entry, spaces, options.svg)
    except (ValueError, KeyError, TypeError) as error:
        why = f"it answers what no island does: {plain(error)}"
        raise GuestError(f"the island {entry.name!r} cannot be understood", why, "--json shows the answer") from error


def _show(entry: Entry, spaces: list[dict[str, Any]], file: str | None) -> int:
    if file is None:
        say("\n".join(_words(space) for space in spaces) or "no process has page tables\n")
    elif file == "-":
        say(draw(entry.name, spaces))
    else:
        _write(file, draw(entry.name, spaces))
        drawn = sum(int(space["tree"]["total"]) for space in spaces[:MOST_SPACES])
        some = f" ({MOST_SPACES} of {len(spaces)} address spaces)" if len(spaces) > MOST_SPACES else ""
        say(f"drew {drawn} page tables into {file}{some}\n")
    return 0


def _write(file: str, text: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        why = error.strerror or str(error)
        raise HostError(f"cannot write {file}", why, "--svg FILE in a directory of yours, or --svg -") from error


def _words(space: dict[str, Any]) -> str:
    tree = space["tree"]
    pids = ", ".join(str(pid) for pid in space["pids"])
    pages = int(tree["pages"])
    text = f"process {pids} ({plain(space['name'])}), threads: {int(space['threads'])}; tables: {int(tree['total'])}, "
    text += f"pages with copies: {pages} ({size(pages * 4096)})\n"
    lines = table(HEAD, [_row(row) for row in rows(tree, MOST_ROWS)], sys.stdout.isatty())
    omitted = int(tree["total"]) - len(tree["tables"])
    return text + lines + (f"… and {omitted} more tables\n" if omitted else "")


def _row(row: Row) -> tuple[str, ...]:
    name = "  " * row.depth + (LEVEL_NAMES[row.level] if row.tables == 1 else f"… {row.tables} tables")
    cells = list(row.cells.items())
    first = cells[0][1] if cells else None
    copies = " ".join(f"{node}" if cell.lies_on in (node, -1) else f"{node}@{cell.lies_on}" for node, cell in cells)
    counts = (str(first.entries - first.leaves), str(first.leaves)) if first else ("-", "-")
    return (name, f"{row.address:#x}", size(1 << span_shift(row.level)).replace(".0", ""), *counts, copies)
