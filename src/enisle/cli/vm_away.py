"""`enisle vm` at a platform: machines of its hosts; every change a task, as with islands."""

import sys

from enisle.cli.carrying import Ending, Wish, carry_out, names, one_word, say_list, say_one, segment
from enisle.cli.output import plain, size
from enisle.cli.ps import age
from enisle.cli.reach import Door
from enisle.cli.task_drawing import Json, short
from enisle.cli.vm_options import VmOptions
from enisle.errors import InvalidRequest

HEAD = ("NAME", "STATE", "HOST", "AGE", "MEMORY", "PROCESSORS", "TASK", "KERNEL")
ENDINGS = {"stop": "stopped", "pause": "paused", "resume": "resumed", "rm": "removed"}


def vm_away(options: VmOptions, door: Door) -> int:
    """Run one of its verbs at a platform; return the exit code."""
    match options.verb:
        case "vm run":
            return run(options, door)
        case "vm ls" | "vm ps":
            items = door.ask("GET", "/v1/vms")["items"]
            whole = not sys.stdout.isatty()
            return say_list(options, HEAD, items, lambda one: row(one, whole), "there are no machines")
        case "vm show":
            name = segment(one_word(options, "machine"), "a machine")
            return say_one(options, name, door.ask("GET", f"/v1/vms/{name}"))
        case _:
            return change(options, door)


def run(options: VmOptions, door: Door) -> int:
    """Boot a machine on a host of the platform."""
    for flag, given in (("--gdb", options.gdb), ("--cpu", options.cpu), ("--port", options.ports)):
        if given:
            why = "it is only for machines of this computer"
            raise InvalidRequest(f"no platform has {flag}", why, f"leave {flag} out")
    body: Json = {
        "kernel": options.kernel,
        "initrd": options.initrd,
        "append": options.append,
        "memory": options.memory,
        "processors": options.processors,
        "disks": options.disks,
        "accelerator": "" if options.accelerator == "auto" else options.accelerator,
        "name": segment(options.name, "a machine") if options.name else "",
        "host": segment(options.host, "a host") if options.host else "",
    }
    body = {name: value for name, value in body.items() if value}
    return carry_out(options, door, [Wish("POST", "/v1/vms", made, lambda task: f"started {made(task)}", body)])


def made(task: Json) -> str:
    """Return the name of the machine that a task runs."""
    return next((plain(one["id"]) for one in task["resources"] if one["kind"] == "vm"), "?")


def row(found: Json, whole: bool) -> tuple[str, ...]:
    """Return a machine's line in a table."""
    holder = found.get("holder")
    return (
        plain(found["name"]),
        plain(found["state"]),
        plain(found.get("host") or "-"),
        age(max(0.0, found["age"])) if found.get("age") is not None else "-",
        size(found.get("memory") or 0),
        plain(f"{found.get('processors') or '-'} {found.get('accelerator') or ''}".strip()),
        (plain(holder) if whole else short(holder)) if holder else "-",
        plain(found.get("kernel") or "-"),
    )


def change(options: VmOptions, door: Door) -> int:
    """Do the same to all machines that were named."""
    verb = options.verb.partition(" ")[2]
    named = names(options, "machine")
    if verb == "rm":
        query = {"force": "true"} if options.force else {}
        wishes = [Wish("DELETE", f"/v1/vms/{name}", name, _ending(verb, name), query=query) for name in named]
    else:
        body = {"timeout_s": 0.0 if options.force else options.timeout} if verb == "stop" else {}
        wishes = [Wish("POST", f"/v1/vms/{name}/{verb}", name, _ending(verb, name), body) for name in named]
    return carry_out(options, door, wishes)


def _ending(verb: str, name: str) -> Ending:
    return lambda task: f"{ENDINGS[verb]} {name}"
