"""What is known of machines on disk: one private directory per machine, below the user's state directory.

    NAME/  machine.json (its record)  lock (held by its guardian)  qemu.log  pen/ (all that QEMU itself sees)

Whether a machine lives is told by the lock, never by a number of a process. Promises: a name belongs to one machine
however many start at the same time; what a killed guardian left is swept when anybody looks.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enisle.errors import HostError, NotFound, StateError
from enisle.records import Record

LOCK, RECORD, PEN, LOG = "lock", "machine.json", "pen", "qemu.log"
FIRST_USER, USERS = 1_600_000_000, 60_000
"""Host users that nothing else belongs to: one for each machine that root runs."""


class MachineRecord(Record):
    """What a guardian wrote of its machine. `state` is "starting", "running" or "ended"."""

    name: str
    state: str
    detached: bool
    accelerator: str
    config: dict[str, Any]
    user: int
    """The host user QEMU runs as."""
    guardian: int = 0
    qemu: int = 0
    ram: int = -1
    """The guardian's descriptor of the guest's memory."""
    started: float = 0.0
    """Seconds since the epoch."""
    reason: str = ""
    """Why it ended."""
    jail: str = ""
    """What QEMU is confined by."""


def base_directory() -> Path:
    """Return where machines are kept. Raises HostError when it cannot be made."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    base = Path(home) / "enisle" / "vm"
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise HostError(
            f"cannot make {base}", error.strerror or "", "set XDG_STATE_HOME to a writable place"
        ) from error
    return base


@contextmanager
def registry() -> Generator[Path, None, None]:
    """Hold all names still for a moment."""
    base = base_directory()
    with open(base / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield base


def is_alive(directory: Path) -> bool:
    """Whether a guardian (or its starter) holds the machine."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def claim(record: MachineRecord) -> tuple[Path, int]:
    """Make the directory of a new machine; return it and the descriptor of its lock, held. Raises StateError."""
    name = record.name
    with registry() as base:
        sweep(base)
        directory = base / name
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            running = is_alive(directory)
            why = "a machine of that name is running" if running else "an ended machine still has that name"
            hint = f"enisle vm stop {name}" if running else f"enisle vm rm {name}"
            raise StateError(f"the name {name} is taken", why, hint) from None
        except OSError as error:
            raise HostError(f"cannot make {directory}", error.strerror or "", "make room") from error
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            (directory / PEN).mkdir(mode=0o700)
            write(directory, record._replace(user=free_user()))
        except OSError as error:
            os.close(lock)
            shutil.rmtree(directory, ignore_errors=True)
            raise HostError(f"cannot make {directory}", error.strerror or "", "make room on that disk") from error
    return directory, lock


def sweep(base: Path) -> None:
    """Tidy up after guardians that were killed. Requires: `registry` is held."""
    for directory in base.iterdir():
        if not directory.is_dir() or directory.is_symlink() or is_alive(directory):
            continue
        record = try_read(directory)
        if record is None or not record.detached or record.state == "starting":
            shutil.rmtree(directory, ignore_errors=True)
        elif record.state != "ended":
            close(directory, record, "its guardian was killed, or the host started anew")


def close(directory: Path, record: MachineRecord, reason: str) -> None:
    """Turn a machine into an ended one: what it said is kept, all else goes."""
    write(directory, record._replace(state="ended", reason=reason, guardian=0, qemu=0, ram=-1))
    for entry in (directory / PEN).iterdir():
        if not entry.name.startswith("console.log") and not entry.name.startswith("port-"):
            entry.unlink(missing_ok=True)


def write(directory: Path, record: MachineRecord) -> None:
    """Replace the record at once."""
    partial = directory / f".{RECORD}"
    partial.write_text(json.dumps(record._asdict()))
    os.replace(partial, directory / RECORD)


def try_read(directory: Path) -> MachineRecord | None:
    """Return the record of a machine, or None where there is none that can be read."""
    try:
        return MachineRecord(**json.loads((directory / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def find(name: str) -> tuple[Path, MachineRecord]:
    """Return directory and record of a machine. Raises NotFound."""
    with registry() as base:
        sweep(base)
        directory = base / name
        record = try_read(directory) if "/" not in name and name not in ("", ".", "..") else None
    if record is None:
        names = ", ".join(each.name for each in records()) or "there are none"
        raise NotFound(f"there is no machine {name!r}", f"machines: {names}", "enisle vm ps")
    return directory, record


def records() -> list[MachineRecord]:
    """Return the records of all machines by name."""
    with registry() as base:
        sweep(base)
        found = (try_read(directory) for directory in sorted(base.iterdir()) if directory.is_dir())
        return [record for record in found if record is not None]


def last_words(directory: Path) -> str:
    """Return what QEMU (or its guardian) wrote last before it ended."""
    try:
        lines = (directory / LOG).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:400] if lines else "it said nothing"


def remove(directory: Path) -> None:
    """Forget a machine that has ended. Raises StateError while it lives."""
    with registry():
        if is_alive(directory):
            why, hint = "only ended machines can be removed", f"enisle vm stop {directory.name}"
            raise StateError(f"the machine {directory.name} is running", why, hint)
        shutil.rmtree(directory, ignore_errors=True)


def free_user() -> int:
    """Return a host user for QEMU: the caller's own, or for root one that no machine has. Requires: `registry` held."""
    if os.geteuid() != 0:
        return os.geteuid()
    base = base_directory()
    taken = {record.user for directory in base.iterdir() if directory.is_dir() and (record := try_read(directory))}
    return next(user for user in range(FIRST_USER, FIRST_USER + USERS) if user not in taken)
