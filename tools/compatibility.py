"""Writes COMPATIBILITY.md from the system-call table: `python tools/compatibility.py > COMPATIBILITY.md`."""

from enisle.kernel import TABLE, Support, load_handlers

HEAD = """# Compatibility

Which system calls of Linux (x86-64) an island answers, and how far. Generated from the table that serves them
(`python tools/compatibility.py > COMPATIBILITY.md`); a test compares. A number that is not listed
answers ENOSYS and is counted in the statistics.

- **full**: behaves as Linux's does, as far as a program on an island can tell.
- **partial**: behaves as Linux's does but for what the note says.
- **absent**: answered with the error a program gets on a Linux that lacks or forbids it.
"""


def render() -> str:
    """Return the whole document."""
    load_handlers()
    entries = [entry for entry in TABLE if entry]
    counts = {level: sum(entry.support is level for entry in entries) for level in Support}
    total = ", ".join(f"{count} {level.value}" for level, count in counts.items())
    lines = [HEAD, f"{len(entries)} calls: {total}.\n", "| number | call | support | note |", "|---:|---|---|---|"]
    for entry in entries:
        note = entry.note.replace("|", "\\|")
        lines.append(f"| {entry.number} | `{entry.name}` | {entry.support.value} | {note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
