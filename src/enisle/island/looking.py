"""Running islands seen from outside: which there are, and what they say of themselves through their hatches.

Runs in the command line and in programs, never in an island. What an island answers is taken as text and numbers only.
"""

import os
import socket
import struct
from typing import Any

from enisle import errors
from enisle.errors import GuestError, HostError, NotFound, StateError
from enisle.island.channel import Channel, Message
from enisle.island.child import rebuild
from enisle.island.registry import Entry, connect, entries, open_place, place, sweep
from enisle.records import Record

REPORT, PARTS = ("kind", "message"), ("why", "hint", "exit_code")
PATIENCE = 6.0
"""Seconds an island has to answer: more than it gives a slow client before us."""


class Sighting(Record):
    """One running island: what its place says, and what it said of itself (nothing: why not)."""

    entry: Entry
    about: Message
    trouble: str


def islands(timeout: float = PATIENCE) -> list[Sighting]:
    """Return the running islands of this user, by name; sweep what dead ones left."""
    try:
        directory = open_place(place(), make=False)
    except FileNotFoundError:
        return []
    try:
        for name in os.listdir(directory):
            sweep(directory, name)
        return [_look(directory, entry, timeout) for entry in entries(directory)]
    finally:
        os.close(directory)


def _look(directory: int, entry: Entry, timeout: float) -> Sighting:
    try:
        return Sighting(entry, _ask(directory, entry, {"call": "about"}, timeout), "")
    except NotFound:
        return Sighting(entry, {}, "it has just ended")
    except Exception as error:
        return Sighting(entry, {}, str(error).splitlines()[0])


def find(wanted: str) -> Entry:
    """Return the running island of that name, id, beginning of an id, or process. Raises NotFound, StateError."""
    try:
        directory = open_place(place(), make=False)
    except FileNotFoundError:
        raise _unknown(wanted, []) from None
    try:
        for name in os.listdir(directory):
            sweep(directory, name)
        known = entries(directory)
    finally:
        os.close(directory)
    for exact in (
        [entry for entry in known if entry.name == wanted],
        [entry for entry in known if wanted in (entry.id, str(entry.pid))],
        [entry for entry in known if wanted and entry.id.startswith(wanted)],
    ):
        if len(exact) == 1:
            return exact[0]
        if exact:
            names = ", ".join(entry.name for entry in exact)
            raise StateError(f"{wanted!r} means several islands", names, "give more of the id")
    raise _unknown(wanted, known)


def _unknown(wanted: str, known: list[Entry]) -> NotFound:
    why = f"there are {', '.join(entry.name for entry in known[:8])}" if known else "no island of yours is running"
    return NotFound(f"there is no island {wanted!r}", why, "enisle ps")


def the_only_one() -> Entry:
    """Return the one running island. Raises NotFound, StateError when there are several."""
    running = islands()
    if not running:
        raise NotFound("no island is running", "of yours, on this computer", "enisle run --name web -- PROGRAM")
    if len(running) > 1:
        names = ", ".join(sighting.entry.name for sighting in running[:8])
        raise StateError("which island?", f"there are {names}", "name one of them")
    return running[0].entry


def ask(entry: Entry, request: Message, timeout: float = PATIENCE) -> Any:
    """Return what an island answers. Raises what it raised, NotFound when it ended, StateError when it is silent."""
    directory = open_place(place(), make=False)
    try:
        return _ask(directory, entry, request, timeout)
    finally:
        os.close(directory)


def _ask(directory: int, entry: Entry, request: Message, timeout: float) -> Any:
    silent = StateError(
        f"the island {entry.name!r} does not answer", f"its process {entry.pid} is stopped or busy", "try again"
    )
    try:
        connection = connect(directory, entry, timeout)
    except OSError as error:
        raise silent from error
    if connection is None:
        raise NotFound(f"the island {entry.name!r} has ended", f"its process was {entry.pid}", "enisle ps")
    with socket.socket(fileno=connection.detach()) as peer:
        peer.settimeout(timeout)
        _check_owner(peer, entry)
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)  # shows that we are no guest
        try:
            channel = Channel(peer)
            channel.send(request, (namespace,))
            received = channel.receive()
        except OSError as error:
            raise silent from error
        except (ValueError, AssertionError) as error:
            raise _nonsense(entry) from error
        finally:
            os.close(namespace)
    if received is None:
        raise silent
    return _read(entry, received[0])


def _read(entry: Entry, answer: Any) -> Any:
    """Return what was answered. Raises the error it tells of, GuestError for what no island of ours says."""
    try:
        if "ok" in answer:
            return answer["ok"]
        error = answer["error"]
        if error["kind"] not in (*errors.__all__, "bug"):
            raise _nonsense(entry)
        rebuilt = rebuild(
            {name: error[name] for name in (*REPORT, *(PARTS if error["kind"] != "bug" else ("report",)))}
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise _nonsense(entry) from error
    raise rebuilt


def _nonsense(entry: Entry) -> GuestError:
    why = "what it answers is nothing an island says: it may be of another version, or have been taken over"
    return GuestError(f"the island {entry.name!r} answers nonsense", why, f"end it: kill {entry.pid}")


def _check_owner(peer: socket.socket, entry: Entry) -> None:
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.geteuid():
        raise HostError(f"{entry.name!r} is no island of yours", f"user {uid} answers", f"rm -r {place()}/{entry.name}")
