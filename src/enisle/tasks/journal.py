"""A host's own memory of what it has begun and done: it outlives the agent, and does not depend on the engine.

`steps`: the steps of each attempt, with their results; `tokens`: the highest fencing token seen for each resource.
SQLite with synchronous=FULL: what is said to be done is on disk. Used by one thread.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    task TEXT, attempt INTEGER, step TEXT, result TEXT, PRIMARY KEY (task, attempt, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (resource TEXT PRIMARY KEY, token INTEGER NOT NULL) WITHOUT ROWID;
"""


class StaleToken(Exception):
    """Somebody with a newer right has been here."""


class Journal:
    """`with Journal(path) as journal`."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(SCHEMA)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def admit(self, resources: list[str], token: int) -> None:
        """Remember the token for every resource. Raises StaleToken, remembering nothing, when one has seen a higher."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for resource in resources:
                row = self._database.execute("SELECT token FROM tokens WHERE resource = ?", (resource,)).fetchone()
                if row and row[0] > token:
                    raise StaleToken(f"{resource} has seen {row[0]}, not {token}")
                self._database.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?)", (resource, token))

    def find(self, task: str, attempt: int, step: str) -> tuple[bool, bool, Any]:
        """Return whether the step was begun, whether it was done, and its result."""
        row = self._database.execute(
            "SELECT result FROM steps WHERE task = ? AND attempt = ? AND step = ?", (task, attempt, step)
        ).fetchone()
        if row is None:
            return False, False, None
        return True, row[0] is not None, json.loads(row[0]) if row[0] is not None else None

    def begin(self, task: str, attempt: int, step: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, NULL)", (task, attempt, step))

    def finish(self, task: str, attempt: int, step: str, result: Any) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?)", (task, attempt, step, json.dumps(result))
        )

    def forget(self, task: str) -> None:
        """Drop the steps of a task that has come to its end."""
        self._database.execute("DELETE FROM steps WHERE task = ?", (task,))
