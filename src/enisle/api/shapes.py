"""Records of the task system as the JSON of the API. Pure: a view in, plain values out."""

from typing import Any

from enisle.api.services import Json, Viewing
from enisle.tasks import ENDED, EVERY, Failure, Lock, Task


def task_json(task: Task, progress: Json | None = None) -> Json:
    """Return a task as `schemas.Task` describes it."""
    return {
        "id": task.id,
        "routine": task.routine,
        "arguments": task.arguments,
        "resources": [{"kind": one.kind, "id": one.id, "mode": one.mode} for one in task.resources],
        "state": str(task.state),
        "host": task.host,
        "placement": task.placement,
        "attempt": task.attempt,
        "attempts": task.retry.attempts,
        "submitted": task.submitted,
        "started": task.started or None,
        "finished": task.finished or None,
        "deadline": task.deadline or None,
        "blocked": _blocked(task),
        "cancel": task.cancel,
        "result": task.result,
        "failure": failure_json(task.failure),
        "progress": progress_json(progress) if task.state not in ENDED else None,
        "actor": task.actor,
        "tenant": task.tenant,
        "trace": task.trace,
    }


def _blocked(task: Task) -> Json | None:
    told = task.blocked
    if told is None:
        return None
    return {"resource": told.resource, "by": told.by, "position": told.position, "since": told.since}


def failure_json(told: Failure | None) -> Json | None:
    return {"message": told.message, "why": told.why, "hint": told.hint} if told else None


def progress_json(value: Json | None) -> Json | None:
    """Return how far a task is, from what its agent says."""
    if not value:
        return None
    return {
        "fraction": float(value.get("fraction") or 0),
        "phase": str(value.get("phase") or ""),
        "left_s": value.get("left_s"),
        "attempt": int(value.get("attempt") or 0),
    }


def seen(view: Viewing, task: Task, tenant: str = "") -> Json:
    """Return a task with the progress the view has of it, as its tenant sees it, or EVERY one.

    Who keeps a task waiting is not told when that is another tenant's.
    """
    told = task_json(task, view.progress.get(task.id))
    if task.blocked and tenant != EVERY and (holder := view.tasks.get(task.blocked.by)):
        told["blocked"]["by"] = task.blocked.by if holder.tenant == task.tenant else ""
    return told


def is_of(task: Task | None, tenant: str) -> bool:
    """Whether a task is a tenant's, which may be EVERY one."""
    return task is not None and tenant in (task.tenant, EVERY)


def waiting_for(view: Viewing) -> dict[str, list[str]]:
    """Return which tasks wait for each resource ("kind.id"), in their order."""
    rows: dict[str, list[tuple[int, str]]] = {}
    for task in view.tasks.values():
        if task.state in ("queued", "blocked"):
            for one in task.resources:
                rows.setdefault(f"{one.kind}.{one.id}", []).append((task.order, task.id))
    return {key: [task for _, task in sorted(row)] for key, row in rows.items()}


def lock_json(lock: Lock, waiting: list[str]) -> Json:
    return {"mode": lock.mode, "holders": list(lock.holders), "waiting": waiting}


def resource_json(key: str, lock: Lock | None, waiting: list[str]) -> dict[str, Any]:
    """Return a resource in use, or one that is only waited for."""
    kind, _, identity = key.partition(".")
    told = lock_json(lock or Lock((), "exclusive"), waiting)
    return {"kind": kind, "id": identity, **told}
