"""Run a probe inside a jail, in a child process, as root or as an ordinary user."""

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from enisle.abi import host
from enisle.errors import EnisleError
from enisle.island import jail
from enisle.island.configuration import Configuration, validate

ORDINARY = 12345
"""A user id nothing on the host belongs to."""
PR_SET_DUMPABLE = 4


def become(uid: int, home: str) -> None:
    """Turn this process into one of an ordinary user."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    host.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as execve would: /proc/self belongs to the user again
    os.environ["HOME"] = home


def in_child(body: Callable[[], Any]) -> Any:
    """Return what `body` returns (as JSON) in a child process; raise EnisleError when it does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = {"value": body()}
        except EnisleError as error:
            answer = {"error": [type(error).__name__, error.message, error.why, error.hint]}
        except BaseException:
            answer = {"trace": traceback.format_exc()}
        with open(writer, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    status = os.waitpid(child, 0)[1]
    if not text:
        pytest.fail(f"the child died with wait status {status:#x}")
    answer = json.loads(text)
    if "trace" in answer:
        pytest.fail(answer["trace"], pytrace=False)
    if "error" in answer:
        kind, message, why, hint = answer["error"]
        import enisle.errors as errors

        raise getattr(errors, kind)(message, why, hint)
    return answer["value"]


def jailed(
    probe: Callable[[jail.Jail], Any],
    configuration: Configuration = Configuration(memory=256 << 20),  # noqa: B008 - frozen
    *,
    user: bool = False,
    cwd: str = "/",
    confined: bool = False,
) -> Any:
    """Return what `probe` finds inside a jail."""

    def body() -> Any:
        os.chdir(cwd)
        if user:
            become(ORDINARY, "/nonexistent")
        place = jail.enter(validate(configuration))
        if confined:
            jail.close_door(place)
        return probe(place)

    return in_child(body)
