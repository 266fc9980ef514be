"""What of the host an island shows: pure decisions about paths; nothing is opened or mounted here.

The rule: system directories yes, homes and what hides in them no. The working directory is shown read-only unless it
is a home, contains one, or is hidden in one; the running Python's prefixes are shown wherever they are.
"""

from collections.abc import Iterable

from enisle.island.configuration import Configuration
from enisle.records import Record

SYSTEM = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc")
"""Shown whole, private when written."""
OWN = ("/", "/tmp", "/var", "/var/tmp", "/home", "/root", "/dev", "/proc", "/sys", "/run")
"""An island has its own."""
UNSEEN = ("/dev", "/proc", "/sys", "/run")
"""Of these, nothing below is shown either."""
PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Bind(Record):
    """A file or directory of the host shown at a place of the island."""

    source: str
    destination: str
    writable: bool


class View(Record):
    """What is shown, where the first program starts, and what the user should be told."""

    binds: tuple[Bind, ...]
    cwd: str
    notes: tuple[str, ...]


def plan_view(
    configuration: Configuration, host_cwd: str | None, homes: Iterable[str], prefixes: Iterable[str]
) -> View:
    """Return the view for a caller standing in `host_cwd` (None: it was deleted), parents before children."""
    binds = {mount.destination: Bind(*mount) for mount in configuration.mounts}
    notes: tuple[str, ...] = ()
    cwd = "/"
    if configuration.root is None:
        cwd, shown, notes = _place_cwd(host_cwd, tuple(homes), binds)
        for path in (*shown, *sorted(prefixes)):
            if path not in OWN and not _inside(path, SYSTEM) and not _inside(path, binds):
                binds[path] = Bind(path, path, False)
    if configuration.cwd is not None:
        cwd, notes = configuration.cwd, ()
    return View(tuple(sorted(binds.values(), key=lambda bind: bind.destination)), cwd, notes)


def _place_cwd(
    host_cwd: str | None, homes: tuple[str, ...], binds: Iterable[str]
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return where to start, what to show for it, and the notes."""
    if host_cwd is None:
        return "/", (), ("the working directory was deleted; the program starts in /",)
    if host_cwd == "/" or _inside(host_cwd, SYSTEM) or _inside(host_cwd, binds):
        return host_cwd, (), ()
    if host_cwd in ("/tmp", "/var/tmp"):
        return host_cwd, (), (f"the island has a {host_cwd} of its own; yours is not visible",)
    reason = _why_hidden(host_cwd, homes)
    if reason is None:
        return host_cwd, (host_cwd,), ()
    return "/", (), (f"{host_cwd} {reason}; the program starts in / (--mount {host_cwd}:{host_cwd} shows it)",)


def _why_hidden(path: str, homes: tuple[str, ...]) -> str | None:
    for home in (*homes, "/root", *_home_of(path)):
        if path == home:
            return "is a home directory and is not visible"
        if home.startswith(path + "/"):
            return f"contains the home directory {home} and is not visible"
        if path.startswith(home + "/."):
            return "is hidden in a home directory and is not visible"
    if path in OWN or _inside(path, UNSEEN):
        return "is the host's own and is not visible"
    return None


def _home_of(path: str) -> tuple[str, ...]:
    parts = path.split("/")
    return ("/".join(parts[:3]),) if parts[1] == "home" and len(parts) > 2 else ()


def _inside(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def guest_environment(
    configuration: Configuration, home: str, terminal: str | None, prefixes: Iterable[str]
) -> dict[str, str]:
    """Return the first program's variables: none of the host's but TERM, then those asked for."""
    search = (
        [f"{prefix}/bin" for prefix in prefixes if f"{prefix}/bin" not in PATH] if configuration.root is None else []
    )
    environment = {"PATH": ":".join((*search, *PATH)), "HOME": home, "LANG": "C.UTF-8"}
    if terminal:
        environment["TERM"] = terminal
    return environment | dict(configuration.environment)
