"""What this host can do for islands, found out by doing it: each check runs in a child process and leaves nothing.

`Machine` says itself what is wrong with /dev/kvm; everything here is about name spaces, mounts and confinement.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from enisle.errors import EnisleError
from enisle.island import jail
from enisle.island.configuration import Configuration, validate
from enisle.island.namespaces import enter_namespaces
from enisle.island.registry import open_place, place
from enisle.machine import probe
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.machine import Findings

OLDEST_KERNEL = (5, 12)
"""mount_setattr(2); overlays in user name spaces came with 5.11."""
SMALL = 64 << 20


class Check(Record):
    """One finding. `remedy` is what to type, and "" when all is well."""

    name: str
    good: bool
    finding: str
    remedy: str
    milliseconds: float


def run_checks() -> Iterator[Check]:
    """Yield findings, the ones others rest on first."""
    yield _timed("kernel", _kernel)
    yield _timed("kvm", _kvm)
    yield _timed("emulated", _emulated)
    yield _timed("memory", _memory)
    yield _timed("hatch", _hatch)
    for name, check in (("namespaces", _namespaces), ("network", _network), ("root", _root), ("confinement", _confine)):
        yield _timed(name, lambda check=check: in_child(check))


def _hatch() -> str:
    path = place()
    os.close(open_place(path, make=True))
    return f"running islands are listed in {path}"


def _timed(name: str, check: Callable[[], str]) -> Check:
    begin = time.perf_counter()
    try:
        good, finding, remedy = True, check(), ""
    except EnisleError as error:
        good, finding, remedy = False, f"{error.message}: {error.why}" if error.why else error.message, error.hint
    except Exception as error:  # a finding too: the other checks still tell something
        good, finding, remedy = False, f"{type(error).__name__}: {error}", ""
    return Check(name, good, finding, remedy, round((time.perf_counter() - begin) * 1000, 2))


def in_child(check: Callable[[], str]) -> str:
    """Return what `check` returns in a child process, which may change itself as it likes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = {"finding": check()}
        except EnisleError as error:
            answer = {"message": error.message, "why": error.why, "hint": error.hint}
        except BaseException as error:
            answer = {"message": type(error).__name__, "why": str(error), "hint": ""}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    if not text:
        raise EnisleError("the check died", "its process ended without an answer")
    answer = json.loads(text)
    if "finding" not in answer:
        raise EnisleError(answer["message"], answer["why"], answer["hint"])
    return answer["finding"]


def _kernel() -> str:
    release = os.uname().release
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if numbers < OLDEST_KERNEL:
        raise EnisleError(f"Linux {release}", "is older than 5.12", "upgrade the host's kernel")
    return f"Linux {release}"


def _kvm() -> str:
    found = _findings()
    if not found.kvm:
        raise EnisleError(found.kvm_problem, "", found.kvm_hint)
    parts = [f"an exit takes {found.exit_us:.1f} µs, a page fault {found.page_fault_us:.1f} µs"]
    if found.syscall_ring is not None:
        parts.append(f"system calls enter ring {found.syscall_ring}")
    parts.append(f"up to {found.max_processors} processors")
    return "; ".join(parts)


def _emulated() -> str:
    found = _findings()
    if not found.emulated:
        raise EnisleError("no emulated processors", found.emulated_problem, "pip install unicorn")
    return "Unicorn emulates processors"


@cache
def _findings() -> "Findings":
    return probe()


def _memory() -> str:
    with open("/proc/meminfo") as file:
        sizes = dict(line.split(":") for line in file)
    available = int(sizes["MemAvailable"].split()[0]) >> 10
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        choice = file.read().split("[")[1].split("]")[0]
    if choice == "never":
        hint = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        raise EnisleError(f"{available} MiB available, huge pages: never", "first touch of memory is slower", hint)
    return f"{available} MiB available, huge pages: {choice}"


def _namespaces() -> str:
    enter_namespaces(private_network=False)
    return "as root" if os.geteuid() == 0 else f"in a user name space of user {os.geteuid()}"


def _network() -> str:
    enter_namespaces(private_network=True)
    return "a private network with its loopback up"


def _root() -> str:
    place = jail.enter(validate(Configuration(memory=SMALL)))
    own = [note for note in place.notes if "read-only" in note]
    return "; ".join(own) if own else "overlays of the host's system directories"


def _confine() -> str:
    place = jail.enter(validate(Configuration(memory=SMALL)))
    jail.close_door(place)
    try:
        os.chroot("/")
    except PermissionError:
        return "capabilities dropped, system calls filtered"
    raise EnisleError("the filter does not hold", "chroot was allowed", "report this")
