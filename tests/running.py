"""An island in the background, for tests that look at it from outside."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from commandline import ENISLE
from enisle.errors import NotFound
from enisle.island import Entry, find

SLEEPING = ("/bin/sleep", "60")


@contextmanager
def running(*words: str, name: str = "web", program: tuple[str, ...] = SLEEPING) -> "Iterator[Running]":
    """Run `enisle run --name NAME WORDS -- PROGRAM` until the block ends."""
    command = [ENISLE, "run", "--name", name, *words, "--", *program]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Running(process, wait_for(name, process))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(name: str, process: "subprocess.Popen[str]") -> Entry:
    """Return the island's entry once it is there and its program runs."""
    from enisle.island import ask

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            entry = find(name)
            if ask(entry, {"call": "processes"}):
                return entry
        except NotFound:
            pass
        time.sleep(0.02)
    raise AssertionError(f"no island {name!r} after 30 seconds")


class Running:
    """A running `enisle run` and the place of its island."""

    def __init__(self, process: "subprocess.Popen[str]", entry: Entry) -> None:
        self.process, self.entry = process, entry

    def say(self, line: str) -> str:
        """Send the program a line; return the line it answers."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def kill(self, signo: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, signo)
        self.process.wait(10)
