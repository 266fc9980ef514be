"""The way in: from a process of the host to one that sees an island and can do little else.

    view → name spaces → root file system → pivot → furniture → (kernel is made) → confine

Promises: nothing of it is left on the host, whatever step fails; the way is never back. Owned by the main thread
before any other thread exists. Everything imported later must be there before `enter` (see `preload`).
"""

import os
import sys

from enisle.abi import host
from enisle.errors import EnisleError, HostError, InvalidRequest, StateError
from enisle.island.configuration import Configuration
from enisle.island.confine import confine
from enisle.island.furnish import clone_sources, clone_trees, furnish
from enisle.island.namespaces import enter_namespaces
from enisle.island.rootfs import clone, layer_root, layer_system, pivot, stage
from enisle.island.view import View, plan_view
from enisle.records import Record

HOST_NAME = "island"


class Jail(Record):
    """What the process body needs to know of the place it is in."""

    cwd: str
    home: str
    root: bool
    """Whether this process is the host's root, with the capabilities that serve a guest's root."""
    private_network: bool
    host_proc: int
    """An O_PATH descriptor of the host's /proc/self, for our kernel alone."""
    notes: tuple[str, ...]
    umask: int = 0o022
    """The caller's, which programs inherit."""
    hatch: int = -1
    """A detached mount of the directory of the island's hatch, which leads nowhere else."""


def enter(configuration: Configuration, hatch: str = "") -> Jail:
    """Build the root file system and make it this process's only one, keeping hold of the directory `hatch`.

    Raises InvalidRequest for paths that cannot be shown, HostError for what the host forbids.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise StateError("cannot enter a jail with several threads", "name spaces belong to a thread")
    view = plan_view(configuration, _host_cwd(), _homes(), python_prefixes())
    _check_sources(configuration, view)
    umask = os.umask(0o022)
    private_network = configuration.network == "none"
    root = os.geteuid() == 0
    home = "/root" if root else "/home/user"
    host_proc = os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    enter_namespaces(private_network)
    try:
        kept = clone(hatch, True) if hatch else -1
        notes = _build(configuration, view, home, root)
        os.chdir(view.cwd)
        os.umask(0)  # from now on our kernel applies the guest's
    except EnisleError:
        raise
    except OSError as error:
        raise _explain(error, view) from error
    return Jail(view.cwd, home, root, private_network, host_proc, (*view.notes, *notes), umask, kept)


def close_door(jail: Jail) -> None:
    """Give up the rights to undo it. Requires: this is still the only thread."""
    confine(jail.root, jail.private_network)


def python_prefixes() -> tuple[str, ...]:
    """Return where the running Python lives, by each name it is known by."""
    names = (sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix))
    return tuple(dict.fromkeys(name for name in names if name not in ("/", "/usr") and os.path.isdir(name)))


def _build(configuration: Configuration, view: View, home: str, root: bool) -> list[str]:
    # Sources of binds may lie below the stage, so they are taken hold of before it hides them.
    binds = clone_sources(view.binds)
    layers = stage(configuration.files_limit)
    trees = clone_trees(binds, layers.shared_memory, not root)
    notes: list[str] = []
    own_etc = _own_etc(configuration)
    if configuration.root is None:
        notes = layer_system(layers, own_etc, not root)
    else:
        layer_root(layers, configuration.root, own_etc, not root)
    pivot(layers)
    furnish(trees, configuration, home)
    return notes


def _own_etc(configuration: Configuration) -> dict[str, str]:
    """Files of /etc that are about the island rather than the host."""
    if configuration.network == "host":
        try:
            with open("/etc/resolv.conf") as file:
                return {"resolv.conf": file.read()}
        except OSError:
            return {}
    if configuration.root is not None:
        return {}
    names = f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost\n"
    return {"hosts": names, "hostname": f"{HOST_NAME}\n", "resolv.conf": ""}


def _host_cwd() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _homes() -> tuple[str, ...]:
    home = os.environ.get("HOME", "")
    return (os.path.realpath(home),) if home.startswith("/") and home.strip("/") else ()


def _check_sources(configuration: Configuration, view: View) -> None:
    root = configuration.root
    if root is not None and not (os.path.isdir(root) and os.access(root, os.R_OK | os.X_OK)):
        why = "it does not exist" if not os.path.exists(root) else "it is not a directory that can be read"
        raise InvalidRequest(f"cannot use {root} as a root", why, "--root DIRECTORY of an unpacked system")
    for bind in view.binds:
        if not os.path.exists(bind.source):
            raise InvalidRequest(f"cannot show {bind.source}", "it does not exist", "check the path of --mount")


def _explain(error: OSError, view: View) -> EnisleError:
    if error.filename == view.cwd:
        return InvalidRequest(
            f"cannot start in {view.cwd}", error.strerror or "", "--cwd a directory that the island shows"
        )
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return HostError("cannot build the island's root file system", what, "run `enisle doctor` to see what is missing")


def set_death_signal(signal: int) -> None:
    """Have this process die with its parent."""
    host.prctl(host.PR_SET_PDEATHSIG, signal, 0, 0, 0)
