"""What is done to a machine, or seen in it, in a process of its own: `python -m enisle.control vm ACTION`.

It may take seconds of pure computing or hang with QEMU, and the agent must go on renewing its lease. Reads its request
as JSON from standard input, answers {"ok"} or {"error"} on standard output.
"""

import json
import sys
from typing import Any

from enisle.control.wire import Json, described
from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.linuxvm import VirtualMachine, VmConfig, parse_disk

MAX_ROWS = 20_000
KERNEL = "kernel"
"""Whose mappings a guest's are, as in `enisle introspect`."""


def main() -> int:
    request: Json = json.loads(sys.stdin.read())
    actions = {
        "run": run,
        "stop": stop,
        "pause": pause,
        "resume": resume,
        "remove": remove,
        "status": status,
        "look": look,
    }
    try:
        answer: Json = {"ok": actions[request["action"]](request)}
    except Exception as error:  # told to the agent: its task fails with it
        answer = {"error": described(error)}
    sys.stdout.write(json.dumps(answer))
    return 0


def run(request: Json) -> Json:
    """Start a machine, unless it runs; one that ended is replaced."""
    from enisle.island import parse_size

    name, told = str(request["name"]), dict(request["configuration"])
    try:
        there = VirtualMachine.find(name)
    except NotFound:
        there = None
    if there is not None and there.is_alive:
        return _status(there)
    if there is not None:
        there.remove()
    disks = tuple(parse_disk(text) for text in told.pop("disks", ()))
    if "memory" in told:
        told["memory"] = parse_size(told["memory"])
    try:
        config = VmConfig(name=name, disks=disks, **told)
    except TypeError as error:
        raise InvalidRequest("the machine cannot be made like that", str(error), "") from None
    machine = VirtualMachine.start(config, detached=True)
    return _status(machine) | {"notes": list(machine.notes)}


def _status(machine: VirtualMachine) -> Json:
    told = machine.status()
    fields = ("state", "accelerator", "memory", "processors", "kernel", "seconds", "reason")
    return {name: getattr(told, name) for name in fields}


def stop(request: Json) -> Json:
    machine = VirtualMachine.find(request["name"])
    if machine.is_alive:
        try:
            timeout_s = float(request.get("timeout_s", 10.0))
            return {"state": "ended", "reason": machine.stop(timeout_s, force=not timeout_s)}
        except StateError:
            pass  # just now
    return {"state": "ended", "reason": machine.reason()}


def pause(request: Json) -> Json:
    machine = VirtualMachine.find(request["name"])
    machine.pause()
    return _status(machine)


def resume(request: Json) -> Json:
    machine = VirtualMachine.find(request["name"])
    machine.resume()
    return _status(machine)


def remove(request: Json) -> Json:
    """Forget a machine; one that runs only by force."""
    try:
        machine = VirtualMachine.find(request["name"])
    except NotFound:
        return {}
    if machine.is_alive:
        if not request.get("force"):
            raise StateError(f"the machine {machine.name} is running", "", "stop it first")
        stop({**request, "timeout_s": 0.0})
    machine.remove()
    return {}


def status(request: Json) -> Json:
    """Return how machines are, by name; None for one there is not."""
    found: Json = {}
    for name in request["names"]:
        try:
            found[name] = _status(VirtualMachine.find(name))
        except NotFound:
            found[name] = None
    return found


# ---- looking ---------------------------------------------------------------------------------------------------------


def look(request: Json) -> Json:
    """Return the rows of one view of a machine's kernel, how long it stood still, and what should be known of them."""
    from enisle.introspect import Introspection, LiveGuest, cache_directory

    machine = VirtualMachine.find(request["name"])
    machine.require_alive()
    session = Introspection.attach(LiveGuest(machine), keep=cache_directory())
    rows, incomplete = _rows(session, str(request["view"]))
    return {
        "view": request["view"],
        "rows": [_plain(row) for row in rows[:MAX_ROWS]],
        "incomplete": incomplete,
        "notes": session.notes,
        "paused_seconds": sum(pause.seconds for pause in session.pauses),
    }


def _rows(session: Any, view: str) -> tuple[list[Any], list[str]]:
    match view:
        case "ps" | "creds":
            listed = session.processes()
            return list(listed.processes), list(listed.incomplete)
        case "lsmod":
            modules = session.modules()
            return list(modules.modules), [modules.incomplete] if modules.incomplete else []
        case "facts":
            return sorted(session.kernel.facts, key=lambda fact: (fact.kind, fact.name)), []
        case "syscalls":
            return list(session.syscalls()), []
        case "idt":
            return list(session.gates()), []
        case "msr":
            return list(session.msrs()), []
        case "locks":
            return list(session.locks()), []
        case "maps" | "wx":
            seen = session.maps()
            runs = [run for run in seen.runs if view == "maps" or (run.writable and run.executable)]
            return [{"process": KERNEL} | run._asdict() for run in runs], [
                "more page tables than are read"
            ] * seen.truncated
        case "hashes":
            return [{"process": KERNEL} | code._asdict() for code in session.hashes()], []
        case "check":
            report = session.check(None)
            return [report], []
        case _:
            raise InvalidRequest(f"there is no view {view!r}")


def _plain(record: Any) -> Any:
    """Return what JSON can hold of a record."""
    if hasattr(record, "_asdict"):
        return {name: _plain(value) for name, value in record._asdict().items()}
    if isinstance(record, dict):
        return record  # pyright: ignore[reportUnknownVariableType]
    if isinstance(record, (tuple, list)):
        return [_plain(value) for value in record]  # pyright: ignore[reportUnknownVariableType]
    return record if isinstance(record, (str, int, float, bool, type(None))) else str(record)
