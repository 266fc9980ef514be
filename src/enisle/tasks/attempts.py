"""What becomes of attempts: an order whose host has answered, is gone, or shall stop. Pure, as all of deciding.

Each decision is one batch: what a task is, what it held and its order change together, or nothing does.
"""

from dataclasses import replace

from enisle.tasks.picture import Picture
from enisle.tasks.placing import choose_host
from enisle.tasks.records import (
    ASSIGNED,
    EXCLUSIVE,
    FINISHED,
    PINNED,
    RETRYABLE,
    STOPPED,
    Assignment,
    Failure,
    Task,
)
from enisle.tasks.states import ENDED, WAITING, Event, State
from enisle.tasks.store import Value

Batch = list[tuple[str, Value | None]]
"""Keys and their new values, None: deleted. The last is the one whose revision counts."""
MAX_LOSSES = 3
"""A task that lost this many hosts is not given another."""


def stop_key(assignment: Assignment) -> str:
    """Return the key that tells a host to stop what it runs; the order itself must keep its revision, the token."""
    return f"stop.{assignment.host}.{assignment.task}"


def of_order(picture: Picture, assignment: Assignment, now: float) -> Batch | None:
    """Return what to do about an order, if anything."""
    task = picture.tasks.get(assignment.task)
    if task is None or task.state in ENDED:
        return order_gone(picture, assignment)  # an order nobody waits for
    if task.state in WAITING:
        return None  # we know of its order by a refusal, and of its start not yet: that news marks the order again
    if assignment.status != ASSIGNED:
        # Its host may have come back and been done before anybody looked: it ran on, then ended.
        running = task.on(Event.RESUME) if task.state is State.INTERRUPTED else task
        return settle(picture, running, assignment, now)
    if assignment.host in picture.lost:
        return _without_host(picture, task, assignment, now)
    if task.state is State.INTERRUPTED:
        return [(task.key, task.on(Event.RESUME).to_value())]
    if (task.cancel or 0 < task.deadline <= now) and stop_key(assignment) not in picture.stops:
        return [(stop_key(assignment), {"why": task.cancel or "its deadline has passed"})]
    return None


def settle(picture: Picture, task: Task, assignment: Assignment, now: float) -> Batch:
    """End the attempt as its host says: the new state, the records, the locks and the order in one batch."""
    alone = {resource.name for resource in task.resources if resource.mode == EXCLUSIVE}
    foreign = sorted(assignment.changes.keys() - alone)
    if foreign:
        failure = Failure("it changed what it does not hold", f"the record of {foreign[0]}", "hold it exclusively")
        return end(picture, task.on(Event.FAIL, failure=failure, finished=now), assignment)
    if assignment.status == FINISHED:
        after = task.on(Event.FINISH, result=assignment.result, failure=None, finished=now)
    elif assignment.status == STOPPED and task.cancel:
        undone = assignment.failure or Failure("cancelled", task.cancel)
        after = task.on(Event.STOP, failure=undone, finished=now)
    else:
        after = _failed(task, assignment, now)
    return end(picture, after, assignment)


def _failed(task: Task, assignment: Assignment, now: float) -> Task:
    failure = assignment.failure or Failure("it was stopped", "its deadline has passed", "give it more time")
    again = assignment.temporary and task.attempt - task.losses < task.retry.attempts and not task.cancel
    if again and not 0 < task.deadline <= now:
        later = now + task.retry.delay_s(task.attempt, task.id)
        placement = RETRYABLE if task.bound_by else task.placement
        return task.on(Event.RETRY, failure=failure, not_before=later, placement=placement, bound_by="")
    return task.on(Event.FAIL, failure=failure, finished=now)


def end(picture: Picture, after: Task, assignment: Assignment | None) -> Batch:
    """Return the batch that makes a task what it is `after` an attempt, with all that goes with it."""
    changes: Batch = []
    if assignment and not (after.failure and after.failure.message == "it changed what it does not hold"):
        changes = [(f"res.{name}", value) for name, value in assignment.changes.items()]
    gone = order_gone(picture, assignment) if assignment else []
    return [*changes, *released(picture, after), *gone, (after.key, after.to_value())]


def _without_host(picture: Picture, task: Task, assignment: Assignment, now: float) -> Batch | None:
    """Decide for a task whose host is gone: elsewhere with what it holds, or it waits for the host to come back."""
    if task.placement == PINNED and assignment.host not in picture.dead:
        return [(task.key, task.on(Event.LOSE).to_value())] if task.state is State.RUNNING else None
    taken = _taken_from(picture, task, assignment, now)
    # The key of the silent host's lease changes as well: an agent that has just taken it again keeps its orders.
    return [(f"host.{assignment.host}", None), *taken] if taken else None


def _taken_from(picture: Picture, task: Task, assignment: Assignment, now: float) -> Batch | None:
    if task.placement == PINNED:
        failure = Failure(f"its host {assignment.host} was declared dead", picture.dead[assignment.host], "")
        return end(picture, task.on(Event.FAIL, failure=failure, finished=now), assignment)
    if task.cancel:
        stopped = task.on(Event.STOP, failure=Failure("cancelled", task.cancel), finished=now)
        return end(picture, stopped, assignment)
    if task.losses + 1 >= MAX_LOSSES or 0 < task.deadline <= now:
        late = 0 < task.deadline <= now
        why = "its deadline has passed" if late else f"{task.losses + 1} hosts were lost while they ran it"
        failed = task.on(Event.FAIL, failure=Failure("its host was lost", why, "see `enisle host ls`"), finished=now)
        return end(picture, failed, assignment)
    if host := choose_host(picture, replace(task, host="")):
        placed = task.on(Event.PLACE, host=host, attempt=task.attempt + 1, losses=task.losses + 1)
        order = order_for(picture, placed)
        return [*order_gone(picture, assignment), (task.key, placed.to_value()), (order.key, order.to_value())]
    return None


def released(picture: Picture, task: Task) -> Batch:
    """Return the changes of the locks that a task holds once it holds them no more."""
    freed: Batch = []
    for resource in task.resources:
        lock = picture.locks.get(resource.key)
        if lock and task.id in lock.holders:
            left = tuple(holder for holder in lock.holders if holder != task.id)
            freed.append((resource.key, replace(lock, holders=left).to_value() if left else None))
    return freed


def order_gone(picture: Picture, assignment: Assignment) -> Batch:
    stop = stop_key(assignment)
    return [*([(stop, None)] if stop in picture.stops else []), (assignment.key, None)]


def order_for(picture: Picture, running: Task) -> Assignment:
    """Return the order to run a task where it says, with the records of what it holds."""
    names = [resource.name for resource in running.resources]
    records = {name: picture.records[name] for name in names if name in picture.records}
    return Assignment(running.id, running.host, running.attempt, running.to_value(), records, picture.epoch)
