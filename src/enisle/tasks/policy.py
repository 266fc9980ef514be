"""What to do next with the tasks there are: pure decisions, time is an argument.

`plan` looks at what is marked in a picture of the store and returns batches; each is one atomic change that leaves the
store sound whatever happens to the others. Promises: a resource is never held by two (unless shared), what a task holds
is taken all at once or not at all, nobody overtakes on a resource, and a record of a resource changes with the end of a
task that held it alone, or not at all.
"""

from collections.abc import Iterator, Set
from dataclasses import replace

from enisle.tasks.attempts import Batch, of_order, order_for
from enisle.tasks.members import of_hosts
from enisle.tasks.picture import Picture
from enisle.tasks.placing import Place, find_place
from enisle.tasks.records import (
    EXCLUSIVE,
    FAIL,
    PINNED,
    SHARED,
    Blocked,
    Failure,
    Lock,
    Resource,
    Task,
)
from enisle.tasks.states import WAITING, Event, State

REFRESH_S = 1.0
REFRESHED = 32
"""How often, and how many at once, those far behind in a row are told their new place."""


def plan(picture: Picture, now: float, busy: Set[str] = frozenset()) -> Iterator[Batch]:
    """Yield what to do, most urgent first: no two batches touch the same key, none touches a busy one.

    What must wait stays marked; nothing may change the picture before the last batch was taken.
    """
    picture.advance(now)
    now = picture.now
    touched: set[str] = set(busy)
    for batch in _everything(picture, now, touched):
        keys = {key for key, _ in batch}
        if not keys & touched:
            touched |= keys
            yield batch


def _everything(picture: Picture, now: float, touched: Set[str]) -> Iterator[Batch]:
    yield from of_hosts(picture, touched, now)
    for key in list(picture.marked_orders):
        if key in touched:
            continue
        batch = of_order(picture, picture.assignments[key], now) if key in picture.assignments else None
        if batch:
            yield batch
        else:
            picture.marked_orders.discard(key)
    marked = [task for identity in picture.marked_tasks if (task := picture.tasks.get(identity))]
    for task in sorted(marked, key=lambda one: one.order):
        if task.key in touched:
            continue
        batch = _of_waiting(picture, task, now) if task.state in WAITING else None
        if batch:
            yield batch
        else:
            picture.marked_tasks.discard(task.id)
    if picture.moved and now - picture.refreshed >= REFRESH_S:
        yield from _refresh(picture, now)


def _of_waiting(picture: Picture, task: Task, now: float) -> Batch | None:
    """Start what can be started, or say what it waits for."""
    if (ended := _over_before_it_began(task, now)) is not None:
        return [(task.key, ended.to_value())]
    if task.not_before > now:
        return None  # holds nothing and no place while it waits to be tried again
    if obstacle := _obstacle(picture, task, now):
        said = _said(task, obstacle, now)
        return [(task.key, said.to_value())] if said else None
    place = find_place(picture, task)
    if place.failure:
        failed = task.on(Event.FAIL, failure=place.failure, finished=now, blocked=None)
        return [(task.key, failed.to_value())]
    if place.live:
        return _start(picture, task, place, now)
    picture.hostless.add(task.id)
    since = task.blocked.since if task.blocked and task.state is State.QUEUED else now
    missing = Blocked(f"host/{place.host or 'any'}", "", 0, since)
    if task.blocked == missing:
        return None
    return [(task.key, _hostless(task, missing, now).to_value())]


def _over_before_it_began(task: Task, now: float) -> Task | None:
    if task.cancel:
        return task.on(Event.STOP, failure=Failure("cancelled", task.cancel), finished=now, blocked=None)
    if 0 < task.deadline <= now:
        waited = f"it waited for {task.blocked.resource}" if task.blocked else "no host took it"
        failure = Failure(
            "its deadline has passed before it could start", waited, "give it more time, or see `enisle task ls`"
        )
        return task.on(Event.FAIL, failure=failure, finished=now, blocked=None)
    return None


def _obstacle(picture: Picture, task: Task, now: float) -> Blocked | None:
    claim = (task.order, task.id)
    for resource in task.resources:
        lock, row = picture.locks.get(resource.key), picture.rows[resource.key]
        shared = resource.mode == SHARED
        taken = lock is not None and not (shared and lock.mode == SHARED)
        before = row.before(claim)
        if taken or (before and not (shared and not row.exclusive_before(claim))):
            since = task.blocked.since if task.blocked and task.state is State.BLOCKED else now
            by = lock.holders[0] if lock else row.all[0][1]
            position = (len(lock.holders) if lock else 0) + before
            return Blocked(f"{resource.kind}/{resource.id}", by, position, since)
    return None


def _said(task: Task, obstacle: Blocked, now: float) -> Task | None:
    """Return the task with what it waits for, ended when it will not wait, None when that is said already."""
    if task.if_blocked == FAIL:
        failure = Failure(
            f"{obstacle.resource} is in use",
            f"task {obstacle.by} holds it",
            f"`enisle task wait {obstacle.by}`, then again",
        )
        return task.on(Event.FAIL, failure=failure, blocked=obstacle, finished=now)
    if task.blocked == obstacle:
        return None
    return task.on(Event.BLOCK, blocked=obstacle)


def _hostless(task: Task, missing: Blocked, now: float) -> Task:
    if task.if_blocked == FAIL:
        failure = Failure("no host can take it now", f"{missing.resource} is not there", "see `enisle host ls`")
        return task.on(Event.FAIL, failure=failure, blocked=missing, finished=now)
    if task.state is State.BLOCKED:
        return task.on(Event.UNBLOCK, blocked=missing)
    return replace(task, blocked=missing)


def _refresh(picture: Picture, now: float) -> Iterator[Batch]:
    """Tell those far behind in a row their new place: seldom, since it moves them all."""
    told = 0
    for key in list(picture.moved):
        row = picture.rows.get(key)
        for _, identity in row.all if row else ():
            task = picture.tasks[identity]
            if task.blocked and task.state is State.BLOCKED and not task.cancel:
                obstacle = _obstacle(picture, task, now)
                said = _said(task, obstacle, now) if obstacle else None
                if said:
                    yield [(task.key, said.to_value())]
                    told += 1
                    if told >= REFRESHED:
                        return
        picture.moved.discard(key)
    picture.refreshed = now


def _start(picture: Picture, task: Task, place: Place, now: float) -> Batch:
    running = task.on(
        Event.START,
        host=place.host,
        placement=PINNED if place.bound_by else task.placement,
        bound_by=place.bound_by,
        attempt=task.attempt + 1,
        started=task.started or now,
        blocked=None,
    )
    order = order_for(picture, running)
    locks: Batch = [(resource.key, _taken(picture, task, resource).to_value()) for resource in task.resources]
    return [*locks, (task.key, running.to_value()), (order.key, order.to_value())]


def _taken(picture: Picture, task: Task, resource: Resource) -> Lock:
    held = picture.locks.get(resource.key)
    assert held is None or (held.mode == SHARED and resource.mode == SHARED), f"{resource=} {held=}"
    return Lock((*(held.holders if held else ()), task.id), SHARED if resource.mode == SHARED else EXCLUSIVE)
