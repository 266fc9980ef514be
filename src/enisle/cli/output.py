"""What the command line prints: results on standard output, which must arrive; words on standard error, if they can."""

import os
import sys
from collections.abc import Sequence

from enisle.errors import EnisleError, HostError


def say(text: str) -> None:
    """Print a result at once. Raises BrokenPipeError for a reader that has left, HostError for what else goes wrong."""
    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:  # nothing was written: a terminal of LC_ALL=C gets ? for what it cannot show
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        why = f"standard output: {os.strerror(error.errno or 0)}"
        raise HostError("cannot write the result", why, "make room, or send the output elsewhere") from error


def forget_stdout() -> None:
    """Keep Python from flushing into standard output again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], aligned: bool) -> str:
    """Return lines in columns for a reader, or separated by tabs, without the head, for a program."""
    if not aligned:
        return "".join("\t".join(row) + "\n" for row in rows)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "".join(line.rstrip() + "\n" for line in lines)


def plain(text: object) -> str:
    """Return one line that no terminal takes for a command: what an island tells may be anything."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def size(count: float) -> str:
    """Return bytes as 17.3M; exact when small."""
    for unit in ("", "K", "M", "G"):
        if count < 1024:
            return f"{count:.1f}{unit}" if unit and count < 100 else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}T"


def mutter(text: str) -> None:
    """Print on standard error, if anybody listens."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def tell(error: EnisleError) -> None:
    """Print an error as three lines on stderr."""
    mutter(f"enisle: {error}\n")


def tell_note(text: str) -> None:
    """Print one line on stderr that the user should know and need not act on."""
    mutter(f"enisle: note: {text}\n")
