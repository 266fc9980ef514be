"""`enisle island`: islands of the platform, made, used, ended."""

import sys
from typing import Any

from enisle.cli.carrying import Wish, carry_out, names, one_word, say_list, say_one, segment
from enisle.cli.following import Screen, follow, interruptible
from enisle.cli.island_exec import execute, run
from enisle.cli.island_files import files
from enisle.cli.output import plain, size
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.ps import LONGEST_PROGRAM, age
from enisle.cli.reach import Door
from enisle.cli.streaming import show_log
from enisle.cli.task_drawing import Json, short
from enisle.errors import InvalidRequest

HEAD = ("NAME", "STATE", "HOST", "AGE", "MEMORY", "PROCESSES", "TASK", "PROGRAM")
PROCESSES = ("PID", "PPID", "STATE", "THREADS", "NAME")


def island(options: PlatformOptions, door: Door) -> int:
    """Run one of its verbs; return the exit code."""
    match options.verb:
        case "island create":
            return create(options, door)
        case "island run":
            return run(options, door, wanted(options))
        case "island exec":
            return execute(options, door)
        case "island ls":
            return ls(options, door)
        case "island show":
            return show(options, door)
        case "island ps":
            return ps(options, door)
        case "island stats":
            return show(options, door, "/statistics")
        case "island logs":
            return logs(options, door)
        case "island start":
            return change(options, door, "POST", "start", "started", {})
        case "island stop":
            return change(options, door, "POST", "stop", "stopped", {})
        case "island rm":
            return change(options, door, "DELETE", "", "removed", None)
        case "island files":
            return files(options, door)
        case verb:
            raise AssertionError(f"{verb=}")


def wanted(options: PlatformOptions) -> Json:
    """Return the island that the words ask for, as the API takes it; what was not said is left to the platform."""
    asked: Json = {
        "memory": options.memory,
        "processors": options.processors,
        "network": options.network,
        "env": environment(options.variables),
        "mounts": options.mounts,
        "nodes": options.nodes,
        "cpu": options.cpus,
        "host": segment(options.host, "a host") if options.host else "",
    }
    return {name: value for name, value in asked.items() if value}


def environment(words: list[str]) -> dict[str, str]:
    """Return K=V words as a dictionary. Raises InvalidRequest."""
    for word in words:
        if "=" not in word or word.startswith("="):
            raise InvalidRequest(f"{plain(word)!r} sets no variable", "it has no name and value", "--env NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


def create(options: PlatformOptions, door: Door) -> int:
    """Make an island."""
    body = wanted(options)
    if options.words:
        body["name"] = segment(options.words[0], "an island")
    if options.command:
        body["program"] = options.command
    return carry_out(options, door, [Wish("POST", "/v1/islands", made, lambda task: f"created {made(task)}", body)])


def made(task: Json) -> str:
    """Return the name of the island that a task makes."""
    return next((plain(one["id"]) for one in task["resources"] if one["kind"] == "island"), "?")


def change(options: PlatformOptions, door: Door, method: str, verb: str, done: str, body: Any) -> int:
    """Do the same to all islands that were named."""
    query = {"force": "true"} if options.verb == "island rm" and options.force else {}
    wishes = [
        Wish(
            method,
            f"/v1/islands/{name}/{verb}".rstrip("/"),
            name,
            lambda task, name=name: f"{done} {name}",
            body,
            query,
        )
        for name in names(options, "island")
    ]
    return carry_out(options, door, wishes)


def ls(options: PlatformOptions, door: Door) -> int:
    """Print a line for each island."""
    items = door.ask("GET", "/v1/islands")["items"]
    whole = not sys.stdout.isatty()
    return say_list(options, HEAD, items, lambda one: row(one, whole), "there are no islands")


def row(found: Json, whole: bool) -> tuple[str, ...]:
    """Return an island's line in a table."""
    used, limit = found.get("memory_used"), found.get("memory_limit")
    memory = f"{'-' if used is None else size(used)}/{'-' if limit is None else size(limit)}"
    program = plain(" ".join(map(str, found.get("program") or ())))
    state = plain(found["state"])
    if found.get("exit_code") is not None and found["state"] == "exited":
        state += f" ({found['exit_code']})"
    return (
        plain(found["name"]),
        state,
        plain(found.get("host") or "-"),
        age(max(0.0, found["age"])) if found.get("age") is not None else "-",
        memory,
        "-" if found.get("processes") is None else str(found["processes"]),
        (plain(found["holder"]) if whole else short(found["holder"])) if found.get("holder") else "-",
        (program if whole or len(program) <= LONGEST_PROGRAM else program[: LONGEST_PROGRAM - 1] + "…") or "-",
    )


def ps(options: PlatformOptions, door: Door) -> int:
    """Print a line for each process of an island."""
    items = door.ask("GET", f"/v1/islands/{_named(options)}/processes")["items"]
    return say_list(options, PROCESSES, items, _process, "nothing runs on it", "pid")


def _process(one: Json) -> tuple[str, ...]:
    return tuple(plain(one.get(name, "-")) for name in ("pid", "ppid", "state", "threads", "name"))


def _named(options: PlatformOptions) -> str:
    return segment(one_word(options, "island"), "an island")


def show(options: PlatformOptions, door: Door, what: str = "") -> int:
    """Print all about an island, or what it has counted."""
    name = _named(options)
    return say_one(options, name, door.ask("GET", f"/v1/islands/{name}{what}"))


def logs(options: PlatformOptions, door: Door) -> int:
    """Print what an island's own program wrote."""
    name = _named(options)
    with interruptible(lambda: f"left the log of {name}"):
        show_log(door, f"/v1/islands/{name}/logs", options.tail, options.follow)
    return 0


def remove_quietly(door: Door, name: str) -> None:
    """Take an island away, whatever runs on it."""
    wish = Wish("DELETE", f"/v1/islands/{name}", name, lambda _: "", query={"force": "true"})
    follow(door, wish.submit(door), Screen(quiet=True))
