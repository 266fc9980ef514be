"""What has ended, for thirty days: tasks, and who did what, in SQLite, quick to search by whoever asks.

Written by one process (`archive.py`), read by any. A database has lost nothing that its writer committed; one that was
lost is filled again from the engine's copy. Methods block for a few milliseconds and may be called from any thread.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from enisle.errors import HostError
from enisle.tasks.audit import EVERY, act_of, act_place
from enisle.tasks.records import Task
from enisle.tasks.store import Value

KEEP_S = 30 * 86400.0
MAX_PAGE = 1000
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY, tenant TEXT, state TEXT, routine TEXT, family TEXT, submitted REAL, finished REAL, value TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON tasks (tenant, submitted DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_state ON tasks (tenant, state, submitted DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_routine ON tasks (tenant, routine, submitted DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_family ON tasks (tenant, family, submitted DESC, id DESC);
CREATE INDEX IF NOT EXISTS by_end ON tasks (finished);
CREATE TABLE IF NOT EXISTS held (
    tenant TEXT, resource TEXT, submitted REAL, id TEXT, PRIMARY KEY (tenant, resource, submitted, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_by ON held (id);
CREATE TABLE IF NOT EXISTS audit (id TEXT PRIMARY KEY, at REAL, value TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS audit_by_time ON audit (at DESC);
CREATE INDEX IF NOT EXISTS audit_by_actor ON audit (json_extract(value, '$.actor'), at DESC);
CREATE INDEX IF NOT EXISTS audit_by_tenant ON audit (json_extract(value, '$.tenant'), at DESC);
CREATE INDEX IF NOT EXISTS audit_by_act ON audit (json_extract(value, '$.act'), at DESC);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""
TENANTS = """
WITH RECURSIVE each_one(tenant) AS (
    SELECT min(tenant) FROM tasks
    UNION ALL SELECT (SELECT min(tenant) FROM tasks WHERE tenant > each_one.tenant) FROM each_one WHERE tenant NOTNULL)
SELECT tenant FROM each_one WHERE tenant NOTNULL
"""


class History:
    """`with History(path) as history`. `writable` False: for reading beside the process that writes."""

    def __init__(self, path: Path, writable: bool = True) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(SCHEMA)
            if not writable:
                self._database.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise HostError(f"cannot open the history {path}", str(error), "is its disk full?") from error

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # ---- writing ---------------------------------------------------------------------------------------------------

    def add(self, tasks: Iterable[Task], audits: Iterable[tuple[str, Value]] = (), mark: int = 0) -> None:
        """Keep ended tasks and audit records, all or none; the same again changes nothing. Raises HostError.

        `mark`: how far the engine's copy has been taken, unless 0.
        """
        tasks = list(tasks)
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR REPLACE INTO tasks VALUES (?,?,?,?,?,?,?,?)", map(_row, tasks))
                held = [(task.tenant, one.name, task.submitted, task.id) for task in tasks for one in task.resources]
                self._database.executemany("INSERT OR REPLACE INTO held VALUES (?,?,?,?)", held)
                rows = [(name, float(value.get("at", 0)), json.dumps(value)) for name, value in audits]
                self._database.executemany("INSERT OR IGNORE INTO audit VALUES (?,?,?)", rows)
                if mark:
                    self._database.execute("INSERT OR REPLACE INTO marks VALUES ('copied', ?)", (mark,))
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise HostError("the history cannot be written", str(error), "is its disk full?") from error

    def prune(self, now: float | None = None, limit: int = 5000) -> int:
        """Forget what ended more than thirty days ago; return how many tasks that were."""
        before = (now or time.time()) - KEEP_S
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            old = self._database.execute("SELECT id FROM tasks WHERE finished < ? LIMIT ?", (before, limit)).fetchall()
            self._database.executemany("DELETE FROM held WHERE id = ?", old)
            self._database.executemany("DELETE FROM tasks WHERE id = ?", old)
            self._database.execute("DELETE FROM audit WHERE at < ?", (before,))
        return len(old)

    # ---- reading ---------------------------------------------------------------------------------------------------

    @property
    def copied(self) -> int:
        """How far the engine's copy has been taken."""
        row = self._select("SELECT value FROM marks WHERE name = 'copied'")
        return row[0][0] if row else 0

    def find(self, id: str) -> Task | None:
        rows = self._select("SELECT value FROM tasks WHERE id = ?", id)
        return Task.from_value(json.loads(rows[0][0])) if rows else None

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return which of these tasks are here."""
        found: set[str] = set()
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            rows = self._select(f"SELECT id FROM tasks WHERE id IN ({','.join('?' * len(part))})", *part)
            found.update(str(row[0]) for row in rows)
        return found

    def list(
        self, tenant: str, state: str = "", resource: str = "", routine: str = "", before: float = 0, limit: int = 50
    ) -> Sequence[Task]:
        """Return tasks submitted before a moment (0: all), the latest first; of EVERY tenant, too.

        `resource` is `kind/id`; `routine` with its version, or without for all versions.
        """
        found = [
            row for one in self._these(tenant) for row in self._tasks_of(one, state, resource, routine, before, limit)
        ]
        found = sorted(found, key=lambda row: row[:2], reverse=True)[: max(1, min(MAX_PAGE, limit))]
        return [Task.from_value(json.loads(row[2])) for row in found]

    def _these(self, tenant: str) -> Sequence[str]:
        """Return a tenant, or every one there is: an index has each tenant's tasks in their order, none has all."""
        if tenant != EVERY:
            return [tenant]
        return [str(row[0]) for row in self._select(TENANTS)]

    def _tasks_of(
        self, tenant: str, state: str, resource: str, routine: str, before: float, limit: int
    ) -> Sequence[tuple[Any, ...]]:
        limit = max(1, min(MAX_PAGE, limit))
        wheres, values = ["tasks.tenant = ?"], [tenant]
        if resource:
            wheres += ["held.tenant = ?", "held.resource = ?"]
            values += [tenant, resource.replace("/", ".", 1)]
        if state:
            wheres.append("state = ?")
            values.append(state)
        if routine:
            wheres.append("routine = ?" if "@" in routine else "family = ?")
            values.append(routine)
        time_of, bound = ("held" if resource else "tasks"), []
        if before:
            wheres.append(f"{time_of}.submitted < ?")
            bound = [before]
        source = "held JOIN tasks ON tasks.id = held.id" if resource else "tasks"
        return self._select(
            f"SELECT {time_of}.submitted, tasks.id, value FROM {source} WHERE {' AND '.join(wheres)}"
            f" ORDER BY {time_of}.submitted DESC, {time_of}.id DESC LIMIT ?",
            *values,
            *bound,
            limit,
        )

    def audit(
        self,
        limit: int = 100,
        *,
        actor: str = "",
        tenant: str = "",
        act: str = "",
        since: float = 0.0,
        before: tuple[float, str] | None = None,
    ) -> Sequence[Value]:
        """Return who did what, the latest first, before a place (`audit.act_place`); submissions are `submitted`'s."""
        wheres, values = ["at >= ?"], [since, *([before[0], *before] if before else [])]
        if before:  # a range first: a comparison of rows alone finds no index
            wheres.append("at <= ? AND (at, substr(id, 7)) < (?, ?)")
        for name, wanted in (("actor", actor), ("tenant", tenant), ("act", act)):
            if wanted:
                wheres.append(f"json_extract(value, '$.{name}') = ?")
                values.append(wanted)
        rows = self._select(
            f"SELECT id, value FROM audit WHERE {' AND '.join(wheres)} ORDER BY at DESC, id DESC LIMIT ?",
            *values,
            max(1, min(MAX_PAGE, limit)),
        )
        return [{"id": str(row[0]).removeprefix("audit."), **json.loads(row[1])} for row in rows]

    def submitted(
        self,
        limit: int = 100,
        *,
        actor: str = "",
        tenant: str = "",
        since: float = 0.0,
        before: tuple[float, str] | None = None,
    ) -> Sequence[Value]:
        """Return who submitted what, as `audit` returns the rest."""
        limit = max(1, min(MAX_PAGE, limit))
        wheres, values = ["submitted >= ?"], [since, *([before[0], *before] if before else [])]
        if before:
            wheres.append("submitted <= ? AND (submitted, 'submit-' || id) < (?, ?)")
        if actor:
            wheres.append("json_extract(value, '$.actor') = ?")
            values.append(actor)
        rows = [
            row
            for one in self._these(tenant or EVERY)
            for row in self._select(
                f"SELECT submitted, id, value FROM tasks WHERE tenant = ? AND {' AND '.join(wheres)}"
                " ORDER BY submitted DESC, id DESC LIMIT ?",
                one,
                *values,
                limit,
            )
        ]
        rows.sort(key=lambda row: row[:2], reverse=True)
        return sorted(
            (act_of(Task.from_value(json.loads(row[2]))) for row in rows[:limit]), key=act_place, reverse=True
        )

    def count(self) -> int:
        return self._select("SELECT count(*) FROM tasks")[0][0]

    def _select(self, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise HostError("the history cannot be read", str(error), f"see {self._path}") from error


def _row(task: Task) -> tuple[object, ...]:
    value = json.dumps(task.to_value(), separators=(",", ":"))
    family = task.routine.partition("@")[0]
    return task.id, task.tenant, str(task.state), task.routine, family, task.submitted, task.finished, value
