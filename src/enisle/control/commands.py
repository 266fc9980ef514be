"""The commands of one island, by the task that asked for them: asked twice, started once.

What they wrote and how they ended is on disk beside each other, for whoever comes after this keeper. Each command has a
thread that reads its output; any thread may ask. Guarded by the condition `changed`.
"""

import base64
import os
import threading
import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from enisle.control.command import Command, read_json, write_json
from enisle.control.typed import Typed
from enisle.control.wire import Json, StaleToken, described, raised
from enisle.errors import EnisleError, GuestError, InvalidRequest, NotFound, StateError

if TYPE_CHECKING:
    from enisle.island import Island

MAX_RUNNING = 256
KEPT = 200
"""Commands that ended and are still known."""
KEPT_BYTES = 256 << 20
"""What they wrote, together."""
BEGINNING_S = 2.0
CANNOT_RUN = (126, 127)
"""What every shell exits with for what cannot be run, and for what is not there."""
PIPE = -1
"""subprocess.PIPE, whose import costs."""
PROGRAM = "log"
"""What the island's own program is called among its commands."""


class Commands:
    """All commands of an island."""

    def __init__(self, island: "Island", directory: str) -> None:
        self._island, self._directory = island, directory
        self.changed = threading.Condition()
        self.changes = 0
        self._known: dict[str, Command] = {}
        self._threads: set[threading.Thread] = set()
        self._sweep()

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    def find(self, task: str) -> Command:
        """Raises NotFound."""
        with self.changed:
            found = self._known.get(task)
        if found is None:
            raise NotFound(f"no command of task {task} runs on the island", "", "")
        return found

    def running(self) -> int:
        with self.changed:
            return sum(command.end is None for command in self._known.values())

    def start(self, task: str, token: int, asked: Json, stdin: bytes) -> Json:
        """Start a task's command, or join it when it was started before. Raises what starting it raised."""
        directory = self._place(task)
        with self.changed:
            known = self._known.get(task)
            if known is not None:
                if token < known.token:
                    why = f"its token is {token}, and {known.token} has been here"
                    raise StaleToken("the command takes no orders from a task that was replaced", why, "")
                known.token = token
                return self._told(known.status())
            if (kept := read_json(f"{directory}/command.json")) is not None:
                # Of a keeper before us: it ended, or it ended with that keeper.
                return self._told(kept if kept.get("ended") else kept | _lost())
            if sum(command.end is None for command in self._known.values()) >= MAX_RUNNING:
                raise StateError("the island runs too many commands", f"{MAX_RUNNING} at once", "wait for some to end")
            command = self._known[task] = Command(directory, task, token, list(asked["argv"]))
            command.typed = Typed() if asked.get("input") else None
        self._begin(command, asked, stdin)
        return self._told(command.status())

    def _place(self, task: str) -> str:
        if not task.replace("-", "").replace("_", "").isalnum() or not task.isascii():
            raise InvalidRequest(f"{task!r:.80} is no task")
        return PROGRAM if task == PROGRAM else f"{self._directory}/{task}"

    def _told(self, status: Json) -> Json:
        if status.get("error"):
            raise raised(status["error"])
        return status

    def _begin(self, command: Command, asked: Json, stdin: bytes) -> None:
        write_json(f"{command.directory}/command.json", command.status())
        terminal: Json = {"terminal": tuple(asked["terminal"])} if asked.get("terminal") else {}
        given = PIPE if command.typed else stdin or None
        try:
            command.running = self._island.start(
                command.argv, env=asked.get("env") or None, cwd=asked.get("cwd") or None, stdin=given, **terminal
            )
        except Exception as error:
            # What there is no program for, or cannot be run, ends as it does in a shell: an outcome, not a failure.
            code = error.exit_code if isinstance(error, EnisleError) and error.exit_code in CANNOT_RUN else None
            with self.changed:
                command.end = command.finish(code, None if code else described(error), described(error))
            self.touch()
            return
        if asked.get("timeout_s"):
            command.limit(float(asked["timeout_s"]))
        thread = threading.Thread(target=self._follow, args=(command,), name=f"command {command.task}", daemon=True)
        with self.changed:
            self._threads.add(thread)
        thread.start()
        self.touch()

    def _follow(self, command: Command) -> None:
        """Take its output to its end."""
        code: int | None = None
        error: Json | None = None
        assert command.running is not None
        try:
            with command.running as running:
                try:
                    for stream, content in running:
                        command.take(stream, content)
                        with self.changed:
                            self.changed.notify_all()
                    code = running.wait()
                finally:
                    if command.typed:
                        command.typed.close()
        except Exception as trouble:  # the island died, or our own defect: told with the command
            error = described(trouble)
        end = command.finish(code, error)
        with self.changed:
            command.end = end
            command.running = None
        self.touch()
        self._forget_old()
        with self.changed:
            self._threads.discard(threading.current_thread())

    def _forget_old(self) -> None:
        """Drop the oldest commands that ended, when they are many or wrote much."""
        with self.changed:
            ended = [one for one in self._known.values() if one.end is not None and one.task != PROGRAM]
            newest = sorted(ended, key=lambda one: one.started, reverse=True)
            written = list(accumulate(one.written for one in newest))
            old = [one for place, one in enumerate(newest) if place >= KEPT or (place and written[place] > KEPT_BYTES)]
            for command in old:
                del self._known[command.task]
        for command in old:
            _remove(command.directory)

    def _sweep(self) -> None:
        """Drop what keepers before us kept of commands, but for the last ones."""
        try:
            paths = [entry.path for entry in sorted(os.scandir(self._directory), key=lambda one: one.stat().st_mtime)]
        except OSError:
            return
        for path in paths[:-KEPT]:
            _remove(path)

    # ---- input -----------------------------------------------------------------------------------------------------

    def input(self, asked: Json, content: bytes) -> Json:
        """Give a running command what was typed, the end of it, or its terminal a size. Raises NotFound, StateError."""
        command = self.find(str(asked["task"]))
        with self.changed:
            self.changed.wait_for(lambda: command.running or command.end, BEGINNING_S)
            running = command.running
        if running is None:
            raise StateError("the command takes no input", "it has ended" if command.end else "it has not begun", "")
        typed = command.typed
        if asked.get("resize"):
            (typed or Typed()).resize(running, *asked["resize"])
            return {}
        if typed is None:
            raise StateError("the command takes no input", "it was started with all it was to read", "start it with -i")
        return typed.take(running, str(asked["writer"]), int(asked["offset"]), content, bool(asked.get("end")))

    # ---- waiting ---------------------------------------------------------------------------------------------------

    def wait_for_end(self, task: str, seconds: float) -> Json:
        """Return a command's status once it has ended, or after some seconds. Raises what ended it."""
        command = self.find(task)
        with self.changed:
            self.changed.wait_for(lambda: command.end is not None, seconds)
        return self._told(command.status())

    def wait_for_output(self, task: str, after: int, seconds: float) -> Json:
        """Return how much a command has written once it is more than `after` pieces, or it ended, or it took long."""
        command = self.find(task)
        with self.changed:
            self.changed.wait_for(lambda: command.end is not None or command.output.number > after, seconds)
        return {"next": command.output.number, "ended": command.end is not None}

    def wait_for_change(self, seen: int, seconds: float) -> int:
        with self.changed:
            self.changed.wait_for(lambda: self.changes > seen, seconds)
            return self.changes

    def join(self, seconds: float) -> None:
        """Wait until all have ended and said so, now that their island has."""
        deadline = time.monotonic() + seconds
        with self.changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _remove(directory: str) -> None:
    """Drop what a command wrote: a directory of files."""
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        pass  # what stays is swept by the next keeper


def _lost() -> Json:
    error = described(GuestError("the command ended with its island", "the island was stopped, or died", ""))
    return {"ended": time.time(), "exit_code": None, "error": error}


def result_of(status: Json) -> dict[str, Any]:
    """Return what a task's result tells of a command: its end and the beginning of its output."""
    stdout, stderr = (base64.b64decode(status.get(name) or "") for name in ("stdout", "stderr"))
    longer = status.get("stdout_bytes", 0) > len(stdout) or status.get("stderr_bytes", 0) > len(stderr)
    return {
        "exit_code": status.get("exit_code"),
        "timed_out": bool(status.get("timed_out")),
        "seconds": status.get("seconds", 0.0),
        "stdout": stdout.decode(errors="replace"),
        "stderr": stderr.decode(errors="replace"),
        "truncated": bool(longer or status.get("truncated")),
        "reason": status.get("reason"),
    }
