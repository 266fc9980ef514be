"""What to do next with the tasks there are: pure decisions, time is an argument.

`plan` looks at a picture of the store and returns batches; each is one atomic change that leaves the store sound
whatever happens to the others. Promises: a resource is never held by two (unless shared), what a task holds is taken
all at once or not at all, and nobody overtakes on a resource: whoever was submitted first gets it first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from enisle.tasks.records import (
    ASSIGNED,
    EXCLUSIVE,
    FAIL,
    FINISHED,
    PINNED,
    SHARED,
    STOPPED,
    Assignment,
    Blocked,
    Failure,
    Lock,
    Resource,
    Task,
)
from enisle.tasks.states import ENDED, WAITING, Event, State
from enisle.tasks.store import Value

Batch = list[tuple[str, Value | None]]
"""Keys and their new values, None: deleted. The last is the one whose revision counts."""


@dataclass(slots=True)
class Picture:
    """The store as it was last seen. `live` hosts renew their lease; `lost` ones have not for longer than it lasts."""

    tasks: dict[str, Task] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    stops: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


def plan(picture: Picture, now: float) -> Iterator[Batch]:
    """Yield what to do, most urgent first. No two batches of one call touch the same key: what must wait, waits."""
    touched: set[str] = set()
    for batch in _everything(picture, now):
        keys = [key for key, _ in batch]
        if touched.isdisjoint(keys):
            touched.update(keys)
            yield batch


def _everything(picture: Picture, now: float) -> Iterator[Batch]:
    for assignment in picture.assignments.values():
        task = picture.tasks.get(assignment.task)
        if task is None or task.state in ENDED:
            yield [(assignment.key, None)]  # an order nobody waits for
        elif assignment.status != ASSIGNED:
            # Its host came back and was done before anybody looked: it ran on, then ended.
            running = task.on(Event.RESUME) if task.state is State.INTERRUPTED else task
            yield settle(picture, running, assignment, now)
        elif assignment.host in picture.lost:
            yield from _without_host(picture, task, assignment, now)
        elif task.state is State.INTERRUPTED:
            yield [(task.key, task.on(Event.RESUME).to_value())]
        elif (task.cancel or 0 < task.deadline <= now) and stop_key(assignment) not in picture.stops:
            yield [(stop_key(assignment), {"why": task.cancel or "its deadline has passed"})]
    yield from _start_waiting(picture, now)


def stop_key(assignment: Assignment) -> str:
    """Return the key that tells a host to stop what it runs; the order itself must keep its revision, the token."""
    return f"stop.{assignment.host}.{assignment.task}"


# ---- the end of an attempt -----------------------------------------------------------------------------------------


def settle(picture: Picture, task: Task, assignment: Assignment, now: float) -> Batch:
    """End the attempt as its host says: the new state, the locks and the order in one batch."""
    if assignment.status == FINISHED:
        after = task.on(Event.FINISH, result=assignment.result, finished=now)
    elif assignment.status == STOPPED and task.cancel:
        failure = Failure("cancelled", task.cancel)
        after = task.on(Event.STOP, failure=failure, finished=now)
    else:
        failure = assignment.failure or Failure("it was stopped", "its deadline has passed")
        again = assignment.temporary and task.attempt < task.retry.attempts and not task.cancel
        if again and not 0 < task.deadline <= now:
            after = task.on(Event.RETRY, failure=failure, not_before=now + task.retry.delay_s(task.attempt))
        else:
            after = task.on(Event.FAIL, failure=failure, finished=now)
    return [*_released(picture, task), *_order_gone(picture, assignment), (task.key, after.to_value())]


def _without_host(picture: Picture, task: Task, assignment: Assignment, now: float) -> Iterator[Batch]:
    """Decide for a task whose host is gone: elsewhere with what it holds, or it waits for the host to come back."""
    if task.cancel and task.placement != PINNED:
        stopped = task.on(Event.STOP, failure=Failure("cancelled", task.cancel), finished=now)
        yield [*_released(picture, task), *_order_gone(picture, assignment), (task.key, stopped.to_value())]
    elif task.placement == PINNED:
        if task.state is State.RUNNING:
            yield [(task.key, task.on(Event.LOSE).to_value())]
    elif host := choose_host(picture, task):
        placed = task.on(Event.PLACE, host=host, attempt=task.attempt + 1)
        order = Assignment(task.id, host, placed.attempt, placed.to_value())
        yield [*_order_gone(picture, assignment), (task.key, placed.to_value()), (order.key, order.to_value())]


def _released(picture: Picture, task: Task) -> Batch:
    freed: Batch = []
    for resource in task.resources:
        lock = picture.locks.get(resource.key)
        if lock and task.id in lock.holders:
            left = tuple(holder for holder in lock.holders if holder != task.id)
            freed.append((resource.key, replace(lock, holders=left).to_value() if left else None))
    return freed


def _order_gone(picture: Picture, assignment: Assignment) -> Batch:
    stop = stop_key(assignment)
    return [(assignment.key, None), *([(stop, None)] if stop in picture.stops else [])]


# ---- the beginning -------------------------------------------------------------------------------------------------


def _start_waiting(picture: Picture, now: float) -> Iterator[Batch]:
    """Start what can be started, in the order of submission; say what the others wait for."""
    claims: dict[str, list[tuple[str, str]]] = {}
    for key, lock in picture.locks.items():
        claims[key] = [(holder, lock.mode) for holder in lock.holders]
    for task in sorted((one for one in picture.tasks.values() if one.state in WAITING), key=lambda one: one.order):
        if (ended := _over_before_it_began(task, now)) is not None:
            yield [(task.key, ended.to_value())]
            continue
        if task.not_before > now:
            continue  # holds nothing and no place while it waits to be tried again
        obstacle = _obstacle(task, claims, now)
        for resource in task.resources:
            claims.setdefault(resource.key, []).append((task.id, resource.mode))
        if obstacle:
            if (said := _said(task, obstacle, now)) is not None:
                yield [(task.key, said.to_value())]
        elif host := choose_host(picture, task):
            yield _start(picture, task, host, now)


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


def _obstacle(task: Task, claims: dict[str, list[tuple[str, str]]], now: float) -> Blocked | None:
    for resource in task.resources:
        others = claims.get(resource.key, [])
        if others and not (resource.mode == SHARED and all(mode == SHARED for _, mode in others)):
            since = task.blocked.since if task.blocked else now
            return Blocked(f"{resource.kind}/{resource.id}", others[0][0], len(others), since)
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


def _start(picture: Picture, task: Task, host: str, now: float) -> Batch:
    running = task.on(
        Event.START, host=host, attempt=task.attempt + 1, started=task.started or now, blocked=None, failure=None
    )
    order = Assignment(task.id, host, running.attempt, running.to_value())
    locks: Batch = [(resource.key, _taken(picture, task, resource).to_value()) for resource in task.resources]
    return [*locks, (task.key, running.to_value()), (order.key, order.to_value())]


def _taken(picture: Picture, task: Task, resource: Resource) -> Lock:
    held = picture.locks.get(resource.key)
    assert held is None or (held.mode == SHARED and resource.mode == SHARED), f"{resource=} {held=}"
    return Lock((*(held.holders if held else ()), task.id), SHARED if resource.mode == SHARED else EXCLUSIVE)


def choose_host(picture: Picture, task: Task) -> str:
    """Return the live host with the fewest orders, the only one a pinned task may have; "" when there is none."""
    if task.placement == PINNED:
        return task.host if task.host in picture.live else ""
    load = dict.fromkeys(sorted(picture.live), 0)
    for assignment in picture.assignments.values():
        if assignment.host in load:
            load[assignment.host] += 1
    return min(load, key=lambda host: load[host], default="")
