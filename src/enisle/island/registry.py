"""Which islands run here: a directory for each, in a private directory of their user, with the socket of its hatch.

    PLACE/NAME/PID.ID      PLACE is $XDG_RUNTIME_DIR/enisle, /run/enisle for root, else /tmp/enisle-UID

Promises: PLACE is its owner's alone or is not used; a name belongs to one running island; what a dead island left is
swept by whoever comes by, and nothing of a living one is. No locks: a directory appears whole by rename(2), which
replaces an empty one and no other, and a socket whose island is dead refuses connections.
"""

import os
import time
from _socket import AF_UNIX, SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket
from errno import EEXIST, ENOENT, ENOTDIR, ENOTEMPTY
from struct import pack

from enisle.errors import HostError, InvalidRequest, StateError
from enisle.records import Record

LONGEST_NAME = 64
BACKLOG = 8
SWEPT_AT_START = 16
"""How many neighbours a new island looks at: enough to keep pace with those that left."""
STAGED = "."
"""What the name of a directory begins with before it is published."""
STALE_STAGE = 60.0
"""Seconds after which an unpublished directory is nobody's any more."""
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(Record):
    """One published island: its name (its id, when it was given none), and its process on the host."""

    name: str
    id: str
    pid: int

    @property
    def socket(self) -> str:
        return f"{self.name}/{self.pid}.{self.id}"


class Published(Record):
    """A new island's place: `path` is its directory, `listener` the socket in it, `namespaces` the device of nsfs."""

    entry: Entry
    path: str
    listener: Socket
    namespaces: int


def validate_name(name: str) -> str:
    """Return the name. Raises InvalidRequest for one that is no file name, or looks like a hidden one."""
    plain = name.isascii() and name.replace("-", "a").replace("_", "a").replace(".", "a").isalnum()
    if not plain or not name[0].isalnum() or len(name) > LONGEST_NAME:
        why = f"a name has letters, digits, '-', '_' and '.', begins with one of the first two, at most {LONGEST_NAME}"
        raise InvalidRequest(f"{name!r} cannot name an island", why, "--name build-7")
    return name


def place() -> str:
    """Return the path of the directory of this user's islands."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime}/enisle"
    return "/run/enisle" if os.geteuid() == 0 else f"/tmp/enisle-{os.geteuid()}"


def open_place(path: str, make: bool) -> int:
    """Return a descriptor of the directory. Raises HostError when it is not ours alone, FileNotFoundError."""
    try:
        if make:
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass
        descriptor = os.open(path, OPEN)
    except FileNotFoundError:
        if make:
            hint = f"mkdir -p {os.path.dirname(path)}, or unset XDG_RUNTIME_DIR"
            raise HostError(f"cannot make {path}", "the directory it lies in does not exist", hint) from None
        raise
    except OSError as error:
        hint = "unset XDG_RUNTIME_DIR, or let it name a directory of yours"
        raise HostError(f"cannot use {path}", error.strerror or "", hint) from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(descriptor)
        why = "others own it or may enter it"
        raise HostError(f"{path} is not private", why, f"rm -r {path}, or chown and chmod 700 it")
    return descriptor


def entries(directory: int) -> list[Entry]:
    """Return what is published, living or not, in the order of names."""
    found: list[Entry] = []
    for name in sorted(os.listdir(directory)):
        if not name.startswith(STAGED):
            found.extend(_entries_of(directory, name))
    return found


def _entries_of(directory: int, name: str) -> list[Entry]:
    found: list[Entry] = []
    for file in _names_in(directory, name):
        pid, _, identity = file.partition(".")
        if pid.isdecimal() and identity:
            found.append(Entry(name, identity, int(pid)))
    return found


def _names_in(directory: int, name: str) -> list[str]:
    try:
        descriptor = os.open(name, OPEN, dir_fd=directory)
    except OSError:
        return []  # it went, or is no directory and not ours
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def connect(directory: int, entry: Entry, timeout: float) -> Socket | None:
    """Return a connection to an island's hatch, None when the island is dead. Raises OSError when it is too busy."""
    peer = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    if timeout:
        # A connect(2) that may not block fails at once while the backlog is full; this one waits as long as a send.
        peer.setsockopt(SOL_SOCKET, SO_SNDTIMEO, pack("qq", int(timeout), int(timeout % 1 * 1e6)))
    else:
        peer.setblocking(False)
    try:
        peer.connect(_address(directory, entry.socket))
    except (ConnectionRefusedError, FileNotFoundError):
        peer.close()
        return None
    except BaseException:
        peer.close()
        raise
    return peer


def _address(directory: int, name: str) -> str:
    # unix(7) has 108 bytes for a path; a directory may have a longer one.
    return f"/proc/self/fd/{directory}/{name}"


def is_dead(directory: int, entry: Entry) -> bool:
    """Return whether nobody listens any more. Not by its pid: that may be another name space's, or another's now."""
    try:
        peer = connect(directory, entry, 0)
    except OSError:
        return False  # a full backlog: busy, so alive
    if peer is None:
        return True
    peer.close()
    return False


def sweep(directory: int, name: str) -> None:
    """Remove what dead islands left under a name. Requires: nothing of the kind; whoever lives keeps everything."""
    if name.startswith(STAGED):
        return _sweep_stage(directory, name)
    if _remove_directory(directory, name):
        return None
    for entry in _entries_of(directory, name):
        if is_dead(directory, entry):
            _unlink(directory, entry.socket)
    _remove_directory(directory, name)
    return None


def _sweep_stage(directory: int, name: str) -> None:
    try:
        age = time.time() - os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    except OSError:
        return
    if age > STALE_STAGE:
        for file in _names_in(directory, name):
            _unlink(directory, f"{name}/{file}")
        _remove_directory(directory, name)


def _remove_directory(directory: int, name: str) -> bool:
    """Remove an empty directory; return whether it is gone."""
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        return error.errno == ENOENT
    return True


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        pass  # another sweeper was faster


def publish(name: str) -> Published:
    """Make a listening socket and publish it as `name`, "" for the island's id.

    Raises StateError when a running island has the name, HostError when there is no private place for it.
    """
    path = place()
    directory = open_place(path, make=True)
    try:
        names = os.listdir(directory)
        for other in names if len(names) <= SWEPT_AT_START else _some_of(names):
            sweep(directory, other)
        identity = os.urandom(4).hex()
        entry = Entry(name or identity, identity, os.getpid())
        listener = _stage(directory, entry)
        try:
            _rename(directory, entry)
        except BaseException:
            listener.close()
            _unlink(directory, f"{STAGED}{entry.pid}.{identity}/{entry.pid}.{identity}")
            _remove_directory(directory, f"{STAGED}{entry.pid}.{identity}")
            raise
    except OSError as error:
        hint = "let XDG_RUNTIME_DIR name a directory of yours"
        raise HostError(f"cannot write to {path}", error.strerror or str(error), hint) from error
    finally:
        os.close(directory)
    return Published(entry, f"{path}/{entry.name}", listener, os.stat("/proc/self/ns/mnt").st_dev)


def _some_of(names: list[str]) -> list[str]:
    start = int.from_bytes(os.urandom(2), "little") % len(names)
    return (names + names)[start : start + SWEPT_AT_START]


def _stage(directory: int, entry: Entry) -> Socket:
    """Make the directory under a hidden name, with the socket listening: nobody may take it for a dead one's."""
    stage = f"{STAGED}{entry.pid}.{entry.id}"
    os.mkdir(stage, 0o700, dir_fd=directory)
    listener = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    listener.bind(_address(directory, f"{stage}/{entry.pid}.{entry.id}"))
    listener.listen(BACKLOG)
    return listener


def _rename(directory: int, entry: Entry) -> None:
    stage = f"{STAGED}{entry.pid}.{entry.id}"
    for _ in range(3):
        try:
            os.rename(stage, entry.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            if error.errno not in (ENOTEMPTY, EEXIST, ENOTDIR):
                raise
        else:
            return
        sweep(directory, entry.name)
    others = _entries_of(directory, entry.name)
    why = f"its process is {others[0].pid}" if others else f"{place()}/{entry.name} is in the way"
    raise StateError(
        f"an island named {entry.name!r} runs already", why, "choose another --name; `enisle ps` lists them"
    )
