"""What an island answers through its hatch; kept in memory and imported when the first question comes.

A request is `{"call": …}`, an answer `{"ok": …}` or `{"error": {…}}`, framed as on a `Channel`. Everything in a request
is checked: it may come from anybody who runs as our user. Owned by the hatch's thread.
"""

import os
import stat
import struct
import sys
import time
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SO_PEERCRED, SOL_SOCKET
from _socket import socket as Socket
from collections.abc import Callable
from fcntl import ioctl
from typing import TYPE_CHECKING, Any, cast

from enisle.abi.host import CLONE_NEWNS
from enisle.abi.types import Gpa
from enisle.errors import EnisleError, InvalidRequest, StateError
from enisle.island.tracebacks import report
from enisle.kernel import address_spaces
from enisle.machine import node_mask
from enisle.records import Record

if "_json" not in sys.builtin_module_names:
    sys.modules.setdefault("_json", None)  # type: ignore[arg-type]  # a library that cannot be loaded any more
import json

if TYPE_CHECKING:
    from enisle.island.hatch import Hatch
    from enisle.island.process import IslandProcess

PATIENCE, SENDING = 1.0, 5.0
"""Seconds a client has to ask, and to take the answer."""
LONGEST_REQUEST = 4096
LARGEST_ANSWER = 32 << 20
PAGE, MOST_MEMORY = 1 << 12, 1 << 20
"""Bytes of a page, and of guest memory in one answer."""
FEW_PAGES, MOST_PAGES = 1 << 10, 1 << 14
"""Of page tables in one answer, copies included."""
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)

Request = dict[str, Any]


def answer(island: "IslandProcess", hatch: "Hatch", peer: Socket) -> None:
    """Serve one connection. Raises OSError when the client is too slow or gone."""
    descriptors: list[int] = []
    try:
        try:
            request = _receive(peer, descriptors)
            _admit(peer, descriptors, hatch.published.namespaces)
            content = json.dumps({"ok": _call(request)(island, hatch, request)}, separators=(",", ":")).encode()
            if len(content) > LARGEST_ANSWER:
                raise InvalidRequest("the answer would be too large", f"{len(content) >> 20} MiB", "ask for less")
        except OSError:
            raise
        except Exception as error:
            content = json.dumps({"error": describe(error)}).encode()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    peer.settimeout(SENDING)
    peer.sendall(len(content).to_bytes(4, "little") + content)


def describe(error: Exception) -> dict[str, Any]:
    """Return the record that `child.rebuild` reads."""
    if isinstance(error, EnisleError):
        parts = {"message": error.message, "why": error.why, "hint": error.hint, "exit_code": error.exit_code}
        return {"kind": type(error).__name__, **parts}
    return {"kind": "bug", "message": f"{type(error).__name__}: {error}", "report": report(error)}


# ---- the client ------------------------------------------------------------------------------------------------------


def _receive(peer: Socket, descriptors: list[int]) -> Request:
    deadline = time.monotonic() + PATIENCE
    peer.settimeout(PATIENCE)
    head, rights, _, _ = peer.recvmsg(4, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
    for level, kind, content in rights:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors.extend(struct.unpack(f"{len(content) // 4}i", content[: len(content) & ~3]))
    size = int.from_bytes(head, "little")
    if len(head) < 4 or not 0 < size <= LONGEST_REQUEST:
        raise InvalidRequest("this is no request", f"a length of {size} bytes", f"1 to {LONGEST_REQUEST} bytes of JSON")
    body = b""
    while len(body) < size:
        peer.settimeout(max(0.001, deadline - time.monotonic()))
        part = peer.recv(size - len(body))
        if not part:
            raise InvalidRequest("this is no request", f"it ends after {len(body)} of {size} bytes", "send all of it")
        body += part
    try:
        request: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("this is no request", f"not JSON: {error}", '{"call": "statistics"}') from None
    if not isinstance(request, dict) or type(cast("Request", request).get("call")) is not str:
        raise InvalidRequest("this is no request", "it names no call", '{"call": "statistics"}')
    return cast("Request", request)


def _admit(peer: Socket, descriptors: list[int], namespaces: int) -> None:
    """Refuse whoever is not our user, is this process itself, or cannot show a mount name space."""
    pid, uid, _ = struct.unpack("3i", peer.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
    if uid != os.geteuid() or pid == os.getpid():
        raise InvalidRequest("you may not ask this island", f"it belongs to user {os.geteuid()}", "ask as its owner")
    if len(descriptors) == 1:
        status = os.fstat(descriptors[0])
        if status.st_dev == namespaces and stat.S_ISREG(status.st_mode):
            try:
                if ioctl(descriptors[0], NS_GET_NSTYPE) == CLONE_NEWNS:
                    return
            except OSError:
                pass  # no name space of any kind
    raise InvalidRequest("you may not ask this island", "no mount name space was shown", "use the enisle command")


# ---- the calls -------------------------------------------------------------------------------------------------------


def _about(island: "IslandProcess", hatch: "Hatch", request: Request) -> Request:
    entry = hatch.published.entry
    machine = island.machine.statistics()
    return {
        "name": entry.name,
        "id": entry.id,
        "pid": entry.pid,
        "program": list(island.program),
        "age": time.monotonic() - hatch.began,
        "backend": machine.backend,
        "processors": island.configuration.processors,
        "memory_used": machine.memory_used,
        "memory_limit": machine.memory_limit,
        "processes": len(island.kernel.processes()),
    }


def _statistics(island: "IslandProcess", hatch: "Hatch", request: Request) -> Request:
    return island.statistics()


def _processes(island: "IslandProcess", hatch: "Hatch", request: Request) -> list[Request]:
    return [record._asdict() for record in island.kernel.processes()]


def _page_tables(island: "IslandProcess", hatch: "Hatch", request: Request) -> list[Request]:
    limit = _number(request, "limit", FEW_PAGES, MOST_PAGES)
    pid = _number(request, "pid", 0, 1 << 22)
    return [_unfolded(space) for space in address_spaces(island.kernel, pid, limit)]


def _memory(island: "IslandProcess", hatch: "Hatch", request: Request) -> Request:
    """Return guest-physical memory as it is; pages that nothing stands behind are zeros, and told."""
    memory = island.machine.memory
    at = _number(request, "at", 0, memory.size - 1) & -PAGE
    # Within a block of that size, so never partly in the window of files, where memory is read in another way.
    size = min(_number(request, "size", PAGE, MOST_MEMORY), MOST_MEMORY - at % MOST_MEMORY, memory.size - at)
    try:
        return {"content": memory.read(Gpa(at), size).hex(), "missing": []}
    except OSError:
        pass  # a mapped file was cut short somewhere: page by page
    parts: list[bytes] = []
    missing: list[int] = []
    for gpa in range(at, at + size, PAGE):
        try:
            parts.append(memory.read(Gpa(gpa), min(PAGE, at + size - gpa)))
        except OSError:
            parts.append(bytes(min(PAGE, at + size - gpa)))
            missing.append(gpa)
    return {"content": b"".join(parts).hex(), "missing": missing}


def _replication(island: "IslandProcess", hatch: "Hatch", request: Request) -> Request:
    """Change how page tables are replicated, or only tell; return what is so now, and what it took."""
    replication = island.machine.replication
    if replication is None:
        why = "it was made with one node, where there is nothing to keep a copy for"
        raise StateError("this island has no copies of page tables", why, "enisle run --nodes 2 -- PROGRAM")
    began = time.monotonic()
    if "mode" in request:
        nodes = request.get("nodes")
        mask = 0 if nodes is None else node_mask(str(nodes), replication.nodes)
        replication.set_mode(str(request["mode"])[:40], mask)
    spent = time.monotonic() - began
    return {**replication.statistics()._asdict(), "mask": list(replication.mask), "seconds": spent}


def _unfolded(record: Any) -> Any:
    """Return a record, and the records in it, as dictionaries."""
    if isinstance(record, Record):
        return {name: _unfolded(value) for name, value in record._asdict().items()}
    if isinstance(record, tuple | list):
        return [_unfolded(value) for value in cast("list[Any]", record)]
    return record


Call = Callable[["IslandProcess", "Hatch", Request], Any]
CALLS: dict[str, Call] = {
    "about": _about,
    "statistics": _statistics,
    "processes": _processes,
    "page-tables": _page_tables,
    "memory": _memory,
    "replication": _replication,
}


def _call(request: Request) -> Call:
    call = CALLS.get(request["call"])
    if call is None:
        raise InvalidRequest(f"there is no call {request['call'][:40]!r}", f"known: {', '.join(CALLS)}", "statistics")
    return call


def _number(request: Request, name: str, default: int, most: int) -> int:
    """Return a number of a request. Raises InvalidRequest."""
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InvalidRequest(f"{name} is {str(value)[:40]!r}", "it must be a number", f"0 to {most}")
    return value
