"""Measuring in a process of its own, so that nothing of it stays in ours.

A guest that has run leaves threads behind: KVM's own worker (since Linux 6.12 a thread of the process), Unicorn's for
a moment. An island's process must have one thread when it enters its jail. The main thread calls, before the jail.
"""

import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

from enisle.errors import EnisleError, HostError

FAILED = 1


def apart(measure: Callable[[], Any]) -> Any:
    """Return what `measure` returns (lists, dictionaries, numbers, strings), run in a child process.

    In a process that has several threads already it is run here: forking such a process is not safe, and no jail
    awaits it. Raises HostError as `measure` does.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        return json.loads(json.dumps(measure()))
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _measure_and_leave(measure, theirs)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise HostError("the processor could not be measured", f"the measuring process ended with status {status:#x}")
    found = json.loads(answer)
    if "error" in found:
        raise HostError(*found["error"])
    return found["ok"]


def _measure_and_leave(measure: Callable[[], Any], pipe: int) -> NoReturn:
    try:
        try:
            answer = {"ok": measure()}
        except EnisleError as error:
            answer = {"error": [error.message, error.why, error.hint]}
        with open(pipe, "wb") as file:
            file.write(json.dumps(answer).encode())
        os._exit(0)
    finally:  # whatever happened: this is no second island
        os._exit(FAILED)
