"""What the controller asks of the supervisor, which owns the engine: files of a directory, in every layout alike.

A part writes ID.ask and waits for ID.answer; a host's process id or signal would not reach beyond an island. Who asks
may be in strangers' hands: no link is followed, nothing large is read, and each directory has its own few acts.
Asking belongs to an event loop, answering to the supervisor's thread.
"""

import asyncio
import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from enisle.control.platform import describe, rebuild
from enisle.errors import EnisleError, HostError, InvalidRequest

PATIENCE_S = 20.0
LOOK_S = 0.02
LARGEST = 64 << 10
AT_ONCE = 64
"""More entries are not looked at in one round: the supervisor has other things to do."""
ASK, ANSWER, NEW = ".ask", ".answer", ".new"

Json = dict[str, Any]
Acts = Mapping[str, Callable[[Json], Json]]


class Asks:
    """`await Asks(directory).ask("admit", host=…, key=…)`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def ask(self, act: str, **words: Any) -> Json:
        """Return what the supervisor answers. Raises what it raised, HostError when it says nothing."""
        name = secrets.token_hex(8)
        asked, answered = self._directory / (name + ASK), self._directory / (name + ANSWER)
        try:
            _put(asked, {"act": act, **words})
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                if (answer := _read(answered)) is not None:
                    if "error" in answer:
                        raise rebuild(answer["error"])
                    return answer["ok"]
                await asyncio.sleep(LOOK_S)
        except OSError as error:
            raise HostError("the supervisor cannot be asked", f"{error.filename}: {error.strerror}", "") from error
        finally:
            for path in (asked, answered):
                with contextlib.suppress(OSError):
                    path.unlink()
        raise HostError("the supervisor does not answer", f"not within {PATIENCE_S:g} s", "see supervisor.log")


def answer_all(directory: Path, acts: Acts) -> int:
    """Do what is asked in a directory, and say how it went; return how much that was."""
    done = 0
    for name in _names(directory)[:AT_ONCE]:
        stem = name.removesuffix(ASK)
        if stem == name or not (stem.isascii() and stem.isalnum()):
            continue
        asked = _read(directory / name)
        with contextlib.suppress(OSError):
            (directory / name).unlink()
            if asked is not None:
                _put(directory / (stem + ANSWER), _do(asked, acts))
                done += 1
    return done


def make_ready(directory: Path) -> None:
    """Make a directory for asking, without what an earlier life left in it. Raises HostError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _names(directory):
            if name.endswith((ASK, ANSWER, NEW)):
                with contextlib.suppress(OSError):  # a directory: it is never read
                    (directory / name).unlink()
    except OSError as error:
        raise HostError(f"cannot use {directory}", error.strerror or "", "is its disk full?") from error


def _do(asked: Json, acts: Acts) -> Json:
    try:
        act = acts.get(str(asked.pop("act", "")))
        if act is None:
            raise InvalidRequest("the supervisor does not do that", "it is not asked for here", "")
        return {"ok": act(asked)}
    except (EnisleError, OSError, ValueError, KeyError, TypeError) as error:
        return {"error": describe(error)}


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _put(path: Path, value: Json) -> None:
    """Write a file that nobody sees half written, and never through a link."""
    beside = path.with_name(path.name + NEW)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o600), "w") as file:
        file.write(json.dumps(value))
    beside.rename(path)


def _read(path: Path) -> Json | None:
    """Return what a small file of our own says; None when it is not there, or anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        told = os.read(descriptor, LARGEST + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        told = b""
    finally:
        os.close(descriptor)
    try:
        value: Any = json.loads(told) if len(told) <= LARGEST else None
    except (ValueError, RecursionError):
        return None
    return cast(Json, value) if isinstance(value, dict) else None
