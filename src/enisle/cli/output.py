"""What the command line prints: results on standard output, which must arrive; words on standard error, if they can."""

import os
import sys

from enisle.errors import HostError


def say(text: str) -> None:
    """Print a result at once. Raises BrokenPipeError for a reader that has left, HostError for what else goes wrong."""
    try:
        sys.stdout.write(text)
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


def mutter(text: str) -> None:
    """Print on standard error, if anybody listens."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
