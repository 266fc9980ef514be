"""Where a platform keeps what must outlive its processes: one directory, its owner's alone.

    STATE/  platform.json  token  supervisor.log  engine.url  engine/  controller/history.db  asks/PART/
            hosts/HOST/journal.db  hosts/HOST/islands/NAME/  hosts/HOST/uploads/

Pure but for `prepare`, `adopt_former`, `make_token`, `write_private` and `read_engine_url`.
"""

import os
import secrets
from pathlib import Path

from enisle.errors import HostError, StateError

TOKEN_PREFIX = "enisle_"


class Places:
    """The paths of one platform's state."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(os.path.abspath(directory))

    @classmethod
    def default(cls) -> "Places":
        """Return those named by ENISLE_STATE, else root's or the user's own."""
        named = os.environ.get("ENISLE_STATE", "")
        if named:
            return cls(named)
        if os.geteuid() == 0:
            return cls("/var/lib/enisle")
        home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        return cls(os.path.join(home, "enisle"))

    @property
    def platform(self) -> Path:
        """What runs, as JSON; there only while a platform is up, or after it was killed."""
        return self.directory / "platform.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.directory / "supervisor.lock"

    @property
    def log(self) -> Path:
        return self.directory / "supervisor.log"

    @property
    def token(self) -> Path:
        """The local administrator's token."""
        return self.directory / "token"

    @property
    def engine(self) -> Path:
        return self.directory / "engine"

    @property
    def engine_url(self) -> Path:
        """The engine's address with its password, for processes of this user."""
        return self.directory / "engine.url"

    @property
    def controller(self) -> Path:
        """What the dispatcher writes and the API reads; shown to both wherever they run, as a whole."""
        return self.directory / "controller"

    @property
    def history(self) -> Path:
        return self.controller / "history.db"

    @property
    def mark(self) -> Path:
        """The store's high-water mark."""
        return self.engine / "mark"

    @property
    def codes(self) -> Path:
        """Codes that sign a browser in."""
        return self.directory / "codes"

    def asks(self, part: str) -> Path:
        """What a part asks of the supervisor."""
        return self.directory / "asks" / part

    def host(self, host: str) -> Path:
        return self.directory / "hosts" / host

    def journal(self, host: str) -> Path:
        return self.host(host) / "journal.db"

    def islands(self, host: str) -> Path:
        return self.host(host) / "islands"

    def images(self, host: str, tenant: str) -> Path:
        """What a host's operator lets a tenant boot machines from: kernels, initial RAM file systems, disks."""
        return self.host(host) / "images" / tenant

    def adopt_former(self) -> None:
        """Move what earlier versions kept beside the rest to where it is now."""
        for former, now in ((self.directory / "history.db", self.history),):
            for end in ("-wal", "-shm", ""):
                if former.with_name(former.name + end).exists() and not now.exists():
                    former.with_name(former.name + end).rename(now.with_name(now.name + end))

    def prepare(self) -> None:
        """Make the directory, or make it private. Raises HostError when it cannot be ours alone."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat()
            if status.st_uid != os.geteuid():
                raise HostError(f"cannot use {self.directory}", "it belongs to another user", "name one with --state")
            if status.st_mode & 0o077:
                self.directory.chmod(0o700)
        except OSError as error:
            raise HostError(
                f"cannot use {self.directory}", error.strerror or "", "name a directory of yours with --state"
            ) from error

    def read_engine_url(self) -> str:
        """Return the engine's address. Raises StateError when no platform was ever up here."""
        try:
            return self.engine_url.read_text().strip()
        except OSError:
            raise StateError("the platform is not up", f"there is no {self.engine_url}", "`enisle up`") from None


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, for its owner's eyes only. Raises HostError when the disk does not take it."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise HostError(f"cannot write {path}", error.strerror or "", "make room on that disk") from error


def make_token(path: Path) -> None:
    """Make the local administrator's token when there is none. Raises HostError."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{TOKEN_PREFIX}local_{secrets.token_urlsafe(32)}\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise HostError(f"cannot write {path}", error.strerror or "", "name a state directory of yours") from None
