"""`enisle call`: a short program on whichever host of the platform is free; its output and its exit code are ours."""

import base64

from enisle.cli.carrying import say_json, tell
from enisle.cli.following import Patience, Screen, interruptible, pass_on
from enisle.cli.island import environment
from enisle.cli.island_exec import NOT_RUN, TIMED_OUT, read_stdin
from enisle.cli.output import tell_note
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door
from enisle.cli.task_drawing import Json
from enisle.errors import EnisleError, InvalidRequest

WAIT_S = 25.0
MAX_STDIN = 128 << 10
LONGEST_S = 60.0
FAREWELL = "left; the call ends by itself, within its time"


def call(options: PlatformOptions, door: Door) -> int:
    """Have a program run, print what it wrote, return its exit code."""
    body = asked(options)
    with interruptible(lambda: FAREWELL):
        patience = Patience(door, Screen(options.quiet or options.json))
        told = patience.post("/v1/calls", {"wait": WAIT_S}, body)
        while told["state"] == "waiting":
            told = patience.get(f"/v1/calls/{told['id']}", {"wait": WAIT_S})
    if options.json:
        say_json(told)
    if told["failure"]:
        failure: Json = told["failure"]
        tell(EnisleError(failure["message"], failure["why"], failure["hint"]))
        return NOT_RUN
    return _end(options, told["result"])


def asked(options: PlatformOptions) -> Json:
    """Return what the words ask for, as the API takes it. Raises InvalidRequest."""
    if not options.command:
        raise InvalidRequest("no program to run", "", "enisle call -- PROGRAM ARGUMENTS…")
    timeout = options.timeout or 0.0
    if not 0 <= timeout <= LONGEST_S:
        why = f"a call is short: at most {LONGEST_S:g}"
        raise InvalidRequest(f"a call cannot run for {timeout:g} seconds", why, "enisle island run -- PROGRAM …")
    body: Json = {
        "argv": options.command,
        "env": environment(options.variables),
        "cwd": options.cwd,
        "timeout_s": timeout,
        "memory": options.memory,
        "processors": options.processors,
        "network": options.network,
    }
    encoding = "text" if options.json else "base64"
    if not options.no_stdin and (stdin := read_stdin(MAX_STDIN, "enisle island run takes more")):
        body["stdin"] = base64.b64encode(stdin).decode()
        encoding = "base64"
    return {name: value for name, value in body.items() if value} | {"encoding": encoding}


def _end(options: PlatformOptions, result: Json) -> int:
    if not options.json:
        for stream in ("stdout", "stderr"):
            if content := base64.b64decode(result[stream]):
                pass_on(stream, content)
        if result["truncated"]:
            tell_note("not all of its output was kept: 64 KiB of each stream are")
    if result["timed_out"]:
        tell_note(f"killed after {options.timeout:g} seconds" if options.timeout else "killed: its time was over")
        return TIMED_OUT
    if reason := result["reason"]:
        tell(EnisleError(reason["message"], reason["why"], reason["hint"]))
    return int(result["exit_code"])
