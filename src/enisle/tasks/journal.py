"""A host's own memory of what it has begun and done: it outlives the agent, and does not depend on the engine.

`steps`: the steps of each attempt, with their results; `tokens`: the highest fencing token seen for each resource;
`runs`: how often an attempt was begun. SQLite with synchronous=FULL: what is said to be done is on disk. One event loop
owns a journal; what is wanted while one transaction is written goes into the next, together.
"""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from enisle.errors import HostError

T = TypeVar("T")
CLOSED_S = 0.2
WITH_OTHERS = " shared"
"""Behind a resource: the highest token of those who held it with others."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    task TEXT, attempt INTEGER, step TEXT, result TEXT, PRIMARY KEY (task, attempt, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (resource TEXT PRIMARY KEY, token INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    task TEXT, attempt INTEGER, count INTEGER NOT NULL, PRIMARY KEY (task, attempt)) WITHOUT ROWID;
"""


class StaleToken(Exception):
    """Somebody with a newer right has been here."""


class Journal:
    """`with Journal(path) as journal`."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(SCHEMA)
        self._reading = sqlite3.connect(path, isolation_level=None)
        self._wanted: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._open = threading.Lock()
        """Held by a transaction, so that nobody closes the database under it; never let go once it is closed."""

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.acquire()
        self._reading.close()
        self._database.close()

    # ---- writing together ------------------------------------------------------------------------------------------

    async def write(self, action: Callable[[], T]) -> T:
        """Do an action of this journal in the next transaction; return when that is on disk. Raises HostError."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._wanted.append((action, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._drain(), name="journal")
        return await asyncio.shield(future)

    async def _drain(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, []
                outcomes = await asyncio.to_thread(self._together, [action for action, _ in wanted])
                for (_, future), (result, error) in zip(wanted, outcomes, strict=True):
                    if future.cancelled():
                        continue
                    if error is None:
                        future.set_result(result)
                    else:
                        future.set_exception(error)
                        future.exception()  # whoever waited may be gone
        finally:
            self._writing = None

    def _together(self, actions: list[Callable[[], Any]]) -> list[tuple[Any, Exception | None]]:
        if not self._open.acquire(timeout=CLOSED_S):
            return [(None, HostError("the host's journal cannot be written", "it is closed", ""))] * len(actions)
        try:
            return self._transaction(actions)
        finally:
            self._open.release()

    def _transaction(self, actions: list[Callable[[], Any]]) -> list[tuple[Any, Exception | None]]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                outcomes = [_outcome(action) for action in actions]
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            return outcomes
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            failure = HostError("the host's journal cannot be written", str(error), "is its disk full?")
            return [(None, failure)] * len(actions)

    # ---- actions ---------------------------------------------------------------------------------------------------

    def admit(
        self, resources: list[str], token: int, task: str = "", attempt: int = 0, shared: Sequence[str] = ()
    ) -> int:
        """Remember the token for every resource; return how often this attempt was begun, this time included.

        `shared` are those held with others, who do not outdate each other: only whoever held one alone later does.
        Raises StaleToken, remembering nothing, when a resource has seen a higher one.
        """
        alone = [*resources, *(f"{resource}{WITH_OTHERS}" for resource in resources)]
        for resource in (*alone, *shared):
            row = self._database.execute("SELECT token FROM tokens WHERE resource = ?", (resource,)).fetchone()
            if row and row[0] > token:
                raise StaleToken(f"{resource} has seen {row[0]}, not {token}")
        remembered = [(name, token) for name in (*resources, *(f"{one}{WITH_OTHERS}" for one in shared))]
        self._database.executemany(
            "INSERT INTO tokens VALUES (?, ?) ON CONFLICT DO UPDATE SET token = max(token, excluded.token)", remembered
        )
        row = self._database.execute(
            "INSERT INTO runs VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
            (task, attempt),
        ).fetchone()
        return row[0]

    def begin(self, task: str, attempt: int, step: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, NULL)", (task, attempt, step))

    def finish(self, task: str, attempt: int, step: str, result: Any) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)", (task, attempt, step, json.dumps(result))
        )

    def forget(self, task: str) -> None:
        """Drop the steps of a task that has come to its end."""
        self._database.execute("DELETE FROM steps WHERE task = ?", (task,))
        self._database.execute("DELETE FROM runs WHERE task = ?", (task,))

    def find(self, task: str, attempt: int, step: str) -> tuple[bool, bool, Any]:
        """Return whether the step was begun, whether it was done, and its result."""
        row = self._reading.execute(
            "SELECT result FROM steps WHERE task = ? AND attempt = ? AND step = ?", (task, attempt, step)
        ).fetchone()
        if row is None:
            return False, False, None
        return True, row[0] is not None, json.loads(row[0]) if row[0] is not None else None


def _outcome(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return action(), None
    except sqlite3.Error:
        raise
    except Exception as error:
        return None, error
