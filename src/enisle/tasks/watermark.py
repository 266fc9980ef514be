"""The high-water mark: how far the store had come and which keys it held, kept on disk outside the engine.

One engine alone cannot repair a damaged block, and does not say that it lost one: it goes on with what is left, from a
lower revision. SQLite with FULL sync; one writer (a file lock), any number of readers. Any thread, one at a time.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from enisle.errors import HostError
from enisle.records import Record

DIRECTORY, NAME = "mark", "watermark.db"
"""A directory of its own: who keeps the mark need not see the rest of the engine's."""
TABLES = (
    "PRAGMA synchronous = FULL",
    "CREATE TABLE IF NOT EXISTS mark (store TEXT, epoch INTEGER, revision INTEGER, server TEXT, reason TEXT)",
    "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, revision INTEGER) WITHOUT ROWID",
)


class Mark(Record):
    """What was known last. `server`: which life of the engine that was; `reason`: why the store is not trusted."""

    store: str
    epoch: int
    revision: int
    server: str
    reason: str = ""


def read_mark(directory: Path) -> Mark | None:
    """Return the mark of the engine over `directory`, None when it never had a store. Raises HostError."""
    path = directory / DIRECTORY / NAME
    if not path.exists():
        return None
    with _readable(path), contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
        if not database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'mark'").fetchone()[0]:
            return None
        row = database.execute("SELECT store, epoch, revision, server, reason FROM mark").fetchone()
    return Mark(*row) if row else None


@contextlib.contextmanager
def _readable(path: Path) -> Any:
    try:
        yield
    except sqlite3.Error as error:
        why = f"{path}: {error}"
        full = isinstance(error, sqlite3.OperationalError)
        hint = "is the disk full?" if full else "remove it, and the store is taken as it is"
        raise HostError("the store's high-water mark cannot be kept", why, hint) from error


class Watermark:
    """The mark as its writer holds it. `with Watermark(directory) as watermark`; `writes` is False beside another."""

    def __init__(self, directory: Path) -> None:
        self._path, self._former = directory / DIRECTORY / NAME, directory / NAME
        self._lock = self._database = None
        self.writes = False

    def __enter__(self) -> "Watermark":
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._former.exists() and not self._path.exists():  # where earlier versions had it
                self._former.rename(self._path)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            raise HostError("the store's high-water mark cannot be kept", why, "is the disk full?") from error
        self._lock = os.fdopen(lock, "w")
        return self

    def __exit__(self, *_: object) -> None:
        if self._database:
            self._database.close()
        if self._lock:
            self._lock.close()
        self._lock = self._database = None
        self.writes = False

    def take(self) -> bool:
        """Become the one that writes, if nobody else is. Raises HostError."""
        assert self._lock
        if not self.writes:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            with _readable(self._path):
                self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                self._path.chmod(0o600)
                for statement in TABLES:
                    self._database.execute(statement)
            self.writes = True
        return True

    def keys(self) -> dict[str, int]:
        """Return the keys the store held, with their revisions."""
        with _readable(self._path):
            return dict(self._open.execute("SELECT key, revision FROM keys"))

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._database, "not the writer"
        return self._database

    def write(self, mark: Mark, keys: Mapping[str, int] | None = None) -> None:
        """Put a mark down, with all keys there are when given; on disk when it returns. Raises HostError."""
        with _readable(self._path), _transaction(self._open):
            self._open.execute("DELETE FROM mark")
            self._open.execute("INSERT INTO mark VALUES (?, ?, ?, ?, ?)", tuple(mark))
            if keys is not None:
                self._open.execute("DELETE FROM keys")
                self._open.executemany("INSERT INTO keys VALUES (?, ?)", keys.items())

    def advance(self, revision: int, changed: Iterable[tuple[str, int]], gone: Iterable[str]) -> None:
        """Raise the mark to `revision`; keys that changed since and keys that are gone. Raises HostError."""
        with _readable(self._path), _transaction(self._open):
            self._open.execute("UPDATE mark SET revision = max(revision, ?)", (revision,))
            self._open.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", changed)
            self._open.executemany("DELETE FROM keys WHERE key = ?", ((key,) for key in gone))


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Any:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
