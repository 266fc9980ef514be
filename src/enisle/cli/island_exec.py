"""`enisle island exec` and `run`: a program on an island, its output live, its exit code ours."""

import base64
import os
import select
import stat
from typing import Any

from enisle.cli.carrying import (
    CANCELLED,
    Wish,
    conclude,
    failure_of,
    find_task,
    one_word,
    say_json,
    segment,
    tell,
    tell_submitted,
)
from enisle.cli.following import Screen, detached, follow, interruptible
from enisle.cli.output import mutter, tell_note
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door
from enisle.cli.streaming import stream_output
from enisle.cli.task_drawing import ENDED, Json
from enisle.errors import EnisleError, InvalidRequest

MAX_STDIN = 512 << 10
"""Bytes of standard input: it travels in the request."""
STDIN_PATIENCE_S = 2.0
NOT_RUN, TIMED_OUT = 125, 124


def execute(options: PlatformOptions, door: Door) -> int:
    """Run a program on an island that is there."""
    name = segment(one_word(options, "island"), "an island")
    body = _command(options)
    current: list[Json | None] = [None]
    with interruptible(lambda: _farewell(options, current[0])):
        wish = Wish("POST", f"/v1/islands/{name}/exec", name, lambda _: "", body)
        current[0] = task = wish.submit(door)
        if options.no_wait:
            return tell_submitted(options, [task])
        return _attend(options, door, task)


def _command(options: PlatformOptions) -> Json:
    from enisle.cli.island import environment

    if not options.command:
        raise InvalidRequest("no program to run", "", f"enisle {options.verb} … -- PROGRAM ARGUMENTS…")
    timeout = options.timeout or 0.0
    if not 0 <= timeout < 30 * 86400:
        raise InvalidRequest(f"a program cannot run for {timeout:g} seconds", "", "--timeout 60")
    variables = environment(options.variables) if options.verb == "island exec" else {}
    asked: Json = {
        "argv": options.command,
        "env": variables,
        "cwd": options.cwd,
        "timeout_s": timeout,
        "if_blocked": "fail" if options.fail else "",
    }
    if options.interactive or options.tty:
        asked |= _talking(options, variables)
    elif not options.no_stdin:
        asked["stdin"] = base64.b64encode(read_stdin()).decode()
    return {name: value for name, value in asked.items() if value}


def _talking(options: PlatformOptions, variables: Json) -> Json:
    """Return what is asked for a command that is used from here. Raises InvalidRequest."""
    for name in ("json", "no_stdin", "detach"):
        if vars(options).get(name):
            flag = f"--{name.replace('_', '-')}"
            raise InvalidRequest(f"-i and -t cannot be had with {flag}", "they use your terminal", f"leave out {flag}")
    from enisle.cli.attached import interactive

    term = {"TERM": os.environ.get("TERM") or "xterm"} if options.tty and "TERM" not in variables else {}
    return interactive(options) | {"env": variables | term}


def _farewell(options: PlatformOptions, task: Json | None) -> str:
    return detached(task, "attach" if options.interactive or options.verb == "task attach" else "output")


def read_stdin(most: int = MAX_STDIN, hint: str = "-i sends any amount") -> bytes:
    """Return what is piped in; nothing from a terminal. Raises InvalidRequest when that is too much."""
    try:
        kind = os.fstat(0).st_mode
    except OSError:
        return b""
    if os.isatty(0) or not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)):
        return b""
    found, told = bytearray(), False
    while True:
        if not told and not select.select([0], [], [], STDIN_PATIENCE_S)[0]:
            told = True
            tell_note("waits for the end of standard input, which goes to the program (--no-stdin: none)")
        part = os.read(0, 64 << 10)
        if not part:
            return bytes(found)
        found += part
        if len(found) > most:
            raise InvalidRequest("standard input is too long", f"it may have {most >> 10} KiB", hint)


def _attend(options: PlatformOptions, door: Door, task: Json) -> int:
    """Show the output of a task's program until its end; return the exit code."""
    screen = Screen(options.quiet or options.json)
    if not options.json:
        task = follow(door, task, screen, lambda now: now["state"] == "running")
        talking = options.interactive or options.tty
        if talking and task["state"] == "running":
            from enisle.cli.attached import attach

            attach(options, door, task)
        elif task["state"] == "running" or task["result"]:
            stream_output(door, f"/v1/tasks/{task['id']}", to_the_end=True)
    return _end(options, follow(door, task, screen))


def attach_again(options: PlatformOptions, door: Door) -> int:
    """Come back to a command; return the exit code."""
    from enisle.cli.attached import again

    found = find_task(door, one_word(options, "task"))
    with interruptible(lambda: _farewell(options, found)):
        if found["state"] in ENDED:
            stream_output(door, f"/v1/tasks/{found['id']}", to_the_end=True)
        else:
            again(options, door, found)
        return _end(options, follow(door, found, Screen(options.quiet or options.json)))


def _end(options: PlatformOptions, task: Json) -> int:
    if options.json:
        say_json(task)
    if task["state"] == "failed":
        tell(failure_of(task))
        return NOT_RUN
    if task["state"] == "cancelled":
        return CANCELLED if options.json else conclude(options, task, "", lambda _: "")
    result: dict[str, Any] = task["result"]
    if result["timed_out"]:
        timeout = vars(options).get("timeout")
        tell_note(f"killed after {timeout:g} seconds" if timeout else "killed: its time was over")
        return TIMED_OUT
    if told := result.get("reason"):
        tell(EnisleError(told["message"], told["why"], told["hint"]))
    return int(result["exit_code"])


def run(options: PlatformOptions, door: Door, wanted: Json) -> int:
    """Run a program on a new island, and take that away again unless it shall be kept."""
    if options.name:
        wanted["name"] = segment(options.name, "an island")
    command = _command(options)
    if options.detach:
        return _run_detached(options, door, {**wanted, "program": options.command})
    from enisle.cli.island import made, remove_quietly

    current: list[Json | None] = [None]
    with interruptible(lambda: _farewell(options, current[0])):
        quiet = Screen(options.quiet or options.json)
        current[0] = task = Wish("POST", "/v1/islands", "", lambda _: "", wanted).submit(door)
        name = made(task)
        ended = follow(door, task, quiet)
        if ended["state"] != "done":
            return NOT_RUN if conclude(options, ended, name, lambda _: "") != CANCELLED else CANCELLED
        current[0] = task = Wish("POST", f"/v1/islands/{name}/exec", name, lambda _: "", command).submit(door)
        try:
            code = _attend(options, door, task)
        except KeyboardInterrupt:
            mutter(f"\nenisle: note: the island {name} stays until `enisle island rm {name}`\n")
            raise
        if options.keep:
            tell_note(f"the island {name} stays until `enisle island rm {name}`")
        else:
            remove_quietly(door, name)
    return code


def _run_detached(options: PlatformOptions, door: Door, wanted: Json) -> int:
    from enisle.cli.island import made

    with interruptible(lambda: detached(None)):
        task = Wish("POST", "/v1/islands", "", lambda _: "", wanted).submit(door)
        ended = follow(door, task, Screen(options.quiet or options.json))
    return conclude(options, ended, made(ended), lambda done: f"started {made(done)}")
