"""Calls: short programs, each on an island of its own that holds no named resource, done by whichever host is free.

What may be asked for, checked at the platform's door and again by the host that does it, and the door itself. A call is
done at least once: one whose host dies is begun again elsewhere, and its outcome says how often it was begun.
"""

import base64
import binascii
from typing import Any

from enisle.control.specs import DEFAULT_TENANT, IslandSpec, check_command, check_environment, check_island
from enisle.control.wire import Json
from enisle.errors import InvalidRequest
from enisle.records import Record
from enisle.tasks import FastLane, LaneFigures, Outcome

ROUTINE = "code.run@1"
DEFAULT_TIMEOUT_S, LONGEST_TIMEOUT_S = 10.0, 60.0
MAX_STDIN = 128 << 10
TEXT, BASE64 = "text", "base64"
KINDS: dict[str, tuple[type, ...]] = {
    "argv": (list,),
    "env": (dict,),
    "timeout_s": (int, float),
    "processors": (int,),
    **dict.fromkeys(("cwd", "stdin", "encoding", "memory", "network"), (str,)),
}


class Asked(Record):
    """A call that can be: `spec` is its island; `encoding` of what it wrote."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    stdin: bytes
    encoding: str
    spec: IslandSpec
    timeout_s: float


def check_call(arguments: Json, tenant: str = DEFAULT_TENANT) -> Asked:
    """Return what a call asks for. Raises InvalidRequest for what no host can do, or this tenant may not ask for."""
    for word, value in arguments.items():
        if word not in KINDS:
            raise InvalidRequest(f"a call has no {word!r:.60}", f"it has {', '.join(KINDS)}", "")
        if not isinstance(value, KINDS[word]) or isinstance(value, bool):
            raise InvalidRequest(f"{word} of a call cannot be {value!r:.60}", f"it is a {KINDS[word][0].__name__}", "")
    told = arguments.get
    spec = IslandSpec(memory=told("memory", ""), processors=told("processors", 0), network=told("network", ""))
    if spec.processors < 0:
        raise InvalidRequest(f"a call cannot have {spec.processors} processors", "1, or more", "leave it out")
    check_island(spec, tenant)
    timeout_s, cwd = float(told("timeout_s", 0) or DEFAULT_TIMEOUT_S), str(told("cwd", ""))
    if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        why = f"a call is short: at most {LONGEST_TIMEOUT_S:g}"
        raise InvalidRequest(f"a call cannot have {timeout_s:g} seconds", why, "run it on an island of its own")
    if cwd and (not cwd.startswith("/") or "\0" in cwd):
        raise InvalidRequest(f"the working directory {cwd!r:.100} is not absolute", "it is a path of the island", "")
    encoding = str(told("encoding", TEXT) or TEXT)
    if encoding not in (TEXT, BASE64):
        raise InvalidRequest(f"there is no encoding {encoding!r:.40}", f"{TEXT} or {BASE64}", "")
    stdin = _read_stdin(str(told("stdin", "")), encoding)
    environment = check_environment(told("env", {}))
    return Asked(check_command(told("argv")), environment, cwd, stdin, encoding, spec, timeout_s)


def _read_stdin(text: str, encoding: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True) if encoding == BASE64 else text.encode()
    except (binascii.Error, ValueError) as error:  # UnicodeEncodeError is a ValueError
        why = "it is not base64" if encoding == BASE64 else str(error)[:100]
        raise InvalidRequest("the input of the call cannot be read", why, f"encoding says how: {encoding}") from None
    if len(content) > MAX_STDIN:
        why = f"{len(content)} bytes, at most {MAX_STDIN >> 10} KiB"
        raise InvalidRequest("the input of the call is too long", why, "write it to a file of an island")
    return content


class Calls:
    """The door of the platform for calls. `tenant` of `look`, `wait` may be EVERY."""

    def __init__(self, lane: FastLane) -> None:
        self._lane = lane

    async def run(
        self, arguments: dict[str, Any], tenant: str, key: str = "", wait_s: float = 0
    ) -> tuple[str, Outcome | None]:
        """Take a call, and wait; return its identity, and its outcome if that came in time.

        Raises InvalidRequest, KeyTaken, Overloaded when too many wait, Unavailable.
        """
        check_call(arguments, tenant)
        return await self._lane.run(ROUTINE, arguments, key, tenant, wait_s)

    async def wait(self, call: str, tenant: str, wait_s: float = 0) -> Outcome | None:
        """Return what became of a call, None when it did not end in time. Raises NotFound, Unavailable."""
        if not wait_s:
            return await self._lane.look(call, tenant)
        try:
            return await self._lane.wait(call, wait_s, tenant)
        except TimeoutError:
            return None

    async def figures(self) -> LaneFigures:
        return await self._lane.figures()
