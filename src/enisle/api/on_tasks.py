"""Handlers: tasks, what they hold, what can be run."""

import asyncio
from collections.abc import Sequence
from typing import Any

from enisle.api import forms
from enisle.api.cursors import read_cursor, write_cursor
from enisle.api.problems import Blocked
from enisle.api.services import Json
from enisle.api.shapes import is_of, progress_json, resource_json, seen, waiting_for
from enisle.api.table import Answer, Call
from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.tasks import ENDED, EVERY, FAIL, Request, Resource, State, Task

DECISION_S = 3.0
"""How long an answer waits for the dispatcher's word on a task that will not wait itself."""


async def submit(call: Call) -> Answer:
    body: forms.TaskRequest = call.body
    known = {entry["name"] for entry in call.services.routines()}
    if body.routine not in known:
        same = sorted(name for name in known if name.partition("@")[0] == body.routine.partition("@")[0])
        there = f"there is {', '.join(same)}" if same else f"not {body.routine[:80]!r}"
        raise InvalidRequest("there is no such routine", there, "`enisle task routines`")
    call.services.check_arguments(body.routine, body.arguments)
    resources = tuple(Resource(one.kind, one.id, one.mode) for one in body.resources)
    await call.services.operations.require_own(resources, call.principal.tenant)
    request = Request(
        body.routine,
        body.arguments,
        resources,
        body.host,
        body.placement,
        body.attempts,
        body.deadline_s,
        body.if_blocked,
        call.key,
    )
    return await submitted(call, await call.tasks().submit(request))


async def submitted(call: Call, task: Task) -> Answer:
    """Answer a submission: 202, or 409 when what it needs is in use and it would not wait."""
    if task.if_blocked == FAIL and task.state not in ENDED:
        tasks = call.tasks()
        task = await call.follower.wait_for(
            lambda: tasks.get(task.id), task, lambda now: now.state is not State.QUEUED, DECISION_S
        )
    if task.if_blocked == FAIL and task.state is State.FAILED and task.blocked:
        raise refusal(call, task)
    return await told(call, task, {"Location": f"/v1/tasks/{task.id}"})


async def told(call: Call, task: Task, headers: dict[str, str] | None = None) -> Answer:
    """Answer with a task that goes on, or has ended if the caller would wait for that."""
    if call.wait and task.state not in ENDED:
        task = await call.follower.wait_for(lambda: find(call, task.id), task, lambda _: False, call.wait)
    return Answer(_seen(call, task), 202, headers or {})


def _seen(call: Call, task: Task) -> Json:
    return seen(call.services.view, task, call.principal.tenant)


def refusal(call: Call, task: Task) -> Blocked:
    """Return the problem that names who has what a task needed, and how far that is."""
    assert task.blocked
    view, holder = call.services.view, task.blocked.by
    holding = view.tasks.get(holder)
    foreign = holding is None or (holding.tenant != task.tenant and not call.sees_all)
    elsewhere = f"--tenant {holding.tenant} " if holding and holding.tenant != task.tenant else ""
    return Blocked(
        f"{task.blocked.resource} is in use",
        f"task {holder} has it" if not foreign else "another tenant's task has it",
        f"`enisle {elsewhere}task wait {holder}`, then again" if not foreign else "try again later",
        holder=holder if not foreign else "",
        routine=holding.routine if holding and not foreign else "",
        progress=progress_json(view.progress.get(holder)) if not foreign else None,
        resource=task.blocked.resource,
        task=task.id,
    )


async def find(call: Call, identity: str) -> Task:
    """Return a task of the caller's tenant, wherever it is kept. Raises NotFound."""
    try:
        return await call.tasks().get(identity)
    except NotFound:
        kept = await asyncio.to_thread(call.services.history.find, identity)
        if kept is None or not is_of(kept, call.principal.tenant):
            raise
        return kept


async def show(call: Call) -> Answer:
    task = await find(call, call.path["task"])
    if call.query.wait and task.state not in ENDED:
        identity = task.id
        task = await call.follower.wait_for(lambda: find(call, identity), task, lambda _: False, call.query.wait)
    return Answer(_seen(call, task))


async def result(call: Call) -> Answer:
    """Answer with what a task returned; a task's own JSON only names one that is large."""
    task = await find(call, call.path["task"])
    if task.state is not State.DONE:
        raise StateError("the task has returned nothing", f"it is {task.state}", f"enisle task wait {task.id}")
    return Answer({"result": await call.services.operations.whole(task.result)})


async def index(call: Call) -> Answer:
    asked: forms.TaskFilter = call.query
    filters = f"{call.principal.tenant} {asked.state} {asked.resource} {asked.routine}"
    before = read_cursor(filters, asked.cursor) if asked.cursor else None
    tenant, view = call.principal.tenant, call.services.view
    found = {task.id: task for task in await _kept(call, asked, before)}
    found |= {task.id: task for task in view.tasks.values() if is_of(task, tenant) and _matches(task, asked)}
    rows = sorted(found.values(), key=_place, reverse=True)
    rows = [task for task in rows if before is None or _place(task) < before]
    page = rows[: asked.limit]
    more = write_cursor(filters, *_place(page[-1])) if len(rows) > len(page) else None
    return Answer({"items": [_seen(call, task) for task in page], "next": more})


def _place(task: Task) -> tuple[float, str]:
    return task.submitted, task.id


async def _kept(call: Call, asked: forms.TaskFilter, before: tuple[float, str] | None) -> Sequence[Task]:
    if asked.state and asked.state not in ENDED:
        return []
    history, tenant = call.services.history, call.principal.tenant
    # One more than a page, and those that share the cursor's moment.
    latest = before[0] + 1e-6 if before else 0.0
    return await asyncio.to_thread(
        history.list, tenant, asked.state, asked.resource, asked.routine, latest, asked.limit + 20
    )


def _matches(task: Task, asked: forms.TaskFilter) -> bool:
    if asked.state and task.state != asked.state:
        return False
    if asked.routine and task.routine != asked.routine and task.routine.partition("@")[0] != asked.routine:
        return False
    return not asked.resource or any(f"{one.kind}/{one.id}" == asked.resource for one in task.resources)


async def cancel(call: Call) -> Answer:
    task = await call.tasks().cancel(call.path["task"], call.body.why)
    return await told(call, task)


async def retry(call: Call) -> Answer:
    task = await find(call, call.path["task"])
    again = await call.tasks().retry(task.id)
    return await told(call, again, {"Location": f"/v1/tasks/{again.id}"})


async def routines(call: Call) -> Answer:
    return Answer({"items": call.services.routines()})


async def resources(call: Call) -> Answer:
    view, tenant = call.services.view, call.principal.tenant
    waiting = waiting_for(view)
    items: list[Json] = []
    for key in sorted({*view.locks, *waiting}):
        found = resource_json(key, view.locks.get(key), waiting.get(key, []))
        mine = {
            name: [one for one in found[name] if is_of(view.tasks.get(one), tenant)] for name in ("holders", "waiting")
        }
        if any(mine.values()):
            items.append(found | mine)
    return Answer({"items": items})


async def unlock(call: Call) -> Answer:
    kind, identity = call.path["kind"], call.path["id"]
    key = f"{kind}.{identity}"
    view = call.services.view
    holders: tuple[str, ...] = view.locks[key].holders if key in view.locks else ()
    owners = {task.tenant for one in holders if (task := view.tasks.get(one))}
    principal = call.principal
    tenant = owners.pop() if principal.tenant == EVERY and len(owners) == 1 else principal.tenant  # for the audit
    await call.services.tasks(tenant, principal.actor).unlock(kind, identity, call.body.reason)
    freed: dict[str, Any] = resource_json(key, None, waiting_for(view).get(key, []))
    return Answer(freed | {"holders": [], "freed": list(holders)})
