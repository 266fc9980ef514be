"""Which hosts the engine lets in, kept in the state directory; any process of the same user may change it.

The files are written whole and put in place by a rename; a running engine is told by SIGHUP and waited for. What
`engine.json` remembers is read here as well: port, passwords, how it listens. Any thread; changes hold a file lock.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from enisle.errors import HostError, NotFound, StateError
from enisle.records import Record
from enisle.tasks.connection import AUTHORITY, own_url
from enisle.tasks.identity import accounts, require_public
from enisle.tasks.names import require_token

RELOAD_S = 5.0
CONFIGURATION, ACCOUNTS, LOG, PID = "nats.conf", "accounts.conf", "nats.log", "nats.pid"


class EngineAddress(Record):
    """Where an engine of ours is: for us (`url`), and for hosts (`hosts_url`, with their own seed and `ca`)."""

    url: str
    hosts_url: str
    ca: Path | None
    port: int
    password: str
    system: str
    """The password of the engine's system user."""
    contact: str
    """The address this computer itself reaches it by."""


def engine_address(directory: Path) -> EngineAddress:
    """Return the address of the engine over `directory`. Raises StateError when none was ever started there."""
    try:
        known = json.loads((directory / "engine.json").read_text())
        secure, port, contact = bool(known["tls"]), int(known["port"]), str(known["contact"])
        password, system, advertised = str(known["password"]), str(known["system"]), str(known["advertised"])
    except FileNotFoundError:
        raise StateError("there is no engine", f"none was started over {directory}", "`enisle up`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{directory}/engine.json: {type(error).__name__}"
        raise StateError("where the engine is cannot be read", why, "`enisle down`, then `enisle up`") from None
    scheme = "tls" if secure else "nats"
    return EngineAddress(
        own_url(scheme, password, f"{_bracketed(contact)}:{port}", directory),
        f"{scheme}://{_bracketed(advertised)}:{port}",
        directory / AUTHORITY if secure else None,
        port,
        password,
        system,
        contact,
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def write_whole(path: Path, text: str) -> None:
    """Put a file of ours in place at once, for us alone, on disk before it is seen."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


# ---- hosts ---------------------------------------------------------------------------------------------------------


def admitted(directory: Path) -> dict[str, str]:
    """Return the hosts that may come in, with their public keys. Raises StateError when that cannot be read."""
    try:
        known: dict[str, Any] = json.loads((directory / "hosts.json").read_text())
        return {require_token("a host", host): require_public(key) for host, key in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        why = f"{directory}/hosts.json: {type(error).__name__}"
        raise StateError("which hosts may come in cannot be read", why, "remove it; hosts join anew") from None


def admit_host(directory: Path, host: str, public: str) -> None:
    """Let a host in by its public key, from now on. Raises StateError when the name has another key."""
    require_token("a host", host)
    require_public(public)
    with _changing(directory) as hosts:
        if hosts.get(host, public) != public:
            raise StateError(f"host {host} has joined already", "with another key", f"`enisle host rm {host}` first")
        hosts[host] = public


def expel_host(directory: Path, host: str) -> None:
    """Let a host in no longer and end its connections. Raises NotFound."""
    with _changing(directory) as hosts:
        if hosts.pop(require_token("a host", host), None) is None:
            raise NotFound(f"there is no host {host}", "", "`enisle host ls`")


@contextlib.contextmanager
def _changing(directory: Path) -> Generator[dict[str, str]]:
    """Hold the list of hosts; what is in it afterwards is on disk and known to a running engine."""
    with open(os.open(directory / "hosts.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hosts = admitted(directory)
        before = dict(hosts)
        yield hosts
        if hosts != before:
            write_whole(directory / "hosts.json", json.dumps(hosts, indent=1))
            write_accounts(directory)
            # nats-server 2.15.1: what a new account imports is only connected by the reload after the one that made it.
            for _ in range(2):
                reload_engine(directory)


def write_accounts(directory: Path) -> None:
    """Turn the list of hosts into the engine's accounts."""
    address = engine_address(directory)
    write_whole(directory / ACCOUNTS, accounts(address.password, address.system, admitted(directory)))


def reload_engine(directory: Path) -> None:
    """Have a running engine read its files again, and wait until it has. Raises HostError when it refuses them."""
    pid = find_engine(directory)
    if pid is None:
        return
    log = directory / LOG
    begin = log.stat().st_size
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_S
    while time.monotonic() < deadline and find_engine(directory) == pid:
        with open(log, "rb") as file:
            file.seek(begin)
            said = file.read()
        if b"Reloaded server configuration" in said:
            return
        if b"Failed to reload" in said:
            raise HostError("the engine does not take its hosts", said.decode(errors="replace")[-300:], f"see {log}")
        time.sleep(0.005)
    if find_engine(directory) == pid:
        raise HostError("the engine does not take its hosts", "it does not answer the signal", f"see {log}")


def find_engine(directory: Path) -> int | None:
    """Return the process of the engine over `directory`, None when none runs: the number in a file may be stale."""
    try:
        pid = int((directory / PID).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(directory / CONFIGURATION) in words else None
