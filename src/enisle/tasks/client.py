"""Submitting tasks and following them, for whoever is in front of the store: the API, the CLI, another task."""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.tasks.audit import ADDRESS, EVERY, audit_record
from enisle.tasks.history import History
from enisle.tasks.names import require_routine, require_token, task_id
from enisle.tasks.operator import Operator
from enisle.tasks.records import EXCLUSIVE, FAIL, PINNED, RETRYABLE, SHARED, WAIT, Resource, Retry, Task
from enisle.tasks.states import ENDED
from enisle.tasks.store import ABSENT, Change, Conflict, Store
from enisle.tasks.view import View

MAX_RESOURCES = 64
MAX_ARGUMENTS = 64 << 10
MAX_DEPTH = 32
MAX_ATTEMPTS = 100
MAX_DEADLINE_S = 30 * 86400.0


class KeyTaken(InvalidRequest):
    """An idempotency key stands for another request already."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `deadline_s` counts from the submission; 0: none. `key`: the same twice is one task."""

    routine: str
    arguments: dict[str, Any] = field(default_factory=dict)
    resources: tuple[Resource, ...] = ()
    host: str = ""
    placement: str = RETRYABLE
    attempts: int = 1
    deadline_s: float = 0.0
    if_blocked: str = WAIT
    key: str = ""

    def check(self) -> None:
        """Raises InvalidRequest naming the first thing that cannot be."""
        require_routine(self.routine)
        _check_arguments(self.arguments)
        _check_resources(self.resources)
        if self.host:
            require_token("a host", self.host)
        if self.placement not in (RETRYABLE, PINNED) or (self.placement == PINNED and not self.host):
            raise InvalidRequest(
                f"a task cannot be placed {self.placement!r}", "it is retryable, or pinned to a host", ""
            )
        if self.if_blocked not in (WAIT, FAIL):
            raise InvalidRequest(f"a blocked task cannot {self.if_blocked!r}", "it can wait or fail", "")
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise InvalidRequest(f"a task is tried 1 to {MAX_ATTEMPTS} times", f"not {self.attempts}", "")
        if not 0 <= self.deadline_s <= MAX_DEADLINE_S:  # false for NaN too
            raise InvalidRequest(f"a deadline is 0 to {MAX_DEADLINE_S:.0f} seconds away", f"not {self.deadline_s}", "")
        if len(self.key) > 200:
            raise InvalidRequest("the idempotency key is too long", "at most 200 characters", "")


class Tasks(Operator):
    """The tasks of one tenant, or of EVERY one, to look at and to end.

    With a `history` also what has left the store; a `view` makes waiting cheap.
    """

    def __init__(
        self,
        store: Store,
        tenant: str = "default",
        actor: str = "",
        history: History | None = None,
        view: View | None = None,
    ) -> None:
        self._store, self.actor = store, actor
        self.tenant = tenant if tenant == EVERY else require_token("a tenant", tenant)
        self._history, self._view = history, view

    async def submit(self, request: Request) -> Task:
        """Store the task and return it at once; with a key used before, the task of then. Raises InvalidRequest."""
        request.check()
        if self.tenant == EVERY:
            raise InvalidRequest("a task cannot belong to every tenant", "it belongs to one", "name the tenant")
        task = self._task_of(request)
        if request.key and (ended := await self._from_history(task.id)):
            return _same(ended, task)
        try:
            await self._store.cas(task.key, task.to_value(), ABSENT)
            return task
        except Conflict as conflict:
            there = await self._store.get_leader(task.key)
            if there.value is None:
                raise StateError("this key was used by a task that is forgotten now", "", "use a new key") from conflict
            return _same(Task.from_value(there.value), task)

    async def _from_history(self, task: str) -> Task | None:
        return await asyncio.to_thread(self._history.find, task) if self._history else None

    def _task_of(self, request: Request) -> Task:
        body = json.dumps([request.routine, request.arguments, [one.key for one in request.resources]], sort_keys=True)
        now = time.time()
        return Task(
            id=task_id(self.tenant, request.key or uuid.uuid4().hex),
            routine=request.routine,
            arguments=request.arguments,
            resources=request.resources,
            digest=hashlib.sha256(body.encode()).hexdigest(),
            submitted=now,
            tenant=self.tenant,
            actor=self.actor,
            host=request.host,
            placement=request.placement,
            retry=Retry(request.attempts),
            deadline=now + request.deadline_s if request.deadline_s else 0.0,
            if_blocked=request.if_blocked,
            trace=uuid.uuid4().hex,
            address=ADDRESS.get(),
        )

    async def get(self, task: str) -> Task:
        """Raises NotFound, also for another tenant's."""
        entry = await self._store.get_leader(f"task.{require_token('a task', task)}")
        found = Task.from_value(entry.value) if entry.value else await self._from_history(task)
        if found is None or self.tenant not in (found.tenant, EVERY):
            raise NotFound(f"there is no task {task}", "", "`enisle task ls`")
        return found

    async def follow(self, task: str) -> AsyncIterator[Task]:
        """Yield the task as it is and after each change, to its end. Raises NotFound."""
        yield (last := await self.get(task))
        if last.state in ENDED:
            return
        watch = self._view.follow(task) if self._view else self._watched(last)
        async for now in watch:
            if now != last:
                yield (last := now)
            if now.state in ENDED:
                return
        yield await self.get(task)  # it has left the store meanwhile

    async def _watched(self, task: Task) -> AsyncIterator[Task]:
        async for entry in self._store.watch(task.key):
            if entry and entry.value:
                yield Task.from_value(entry.value)
            elif entry and entry.key and entry.revision:
                return

    async def wait(self, task: str, timeout_s: float | None = None) -> Task:
        """Return the task at its end. Raises TimeoutError, NotFound."""
        async with asyncio.timeout(timeout_s):
            async for last in self.follow(task):
                if last.state in ENDED:
                    return last
        raise AssertionError(task)

    async def retry(self, task: str) -> Task:
        """Submit an ended task's request again; return the new task. Raises StateError when it has not ended, NotFound.

        Asked twice, it is one new task: its key is made of the old task's identity.
        """
        old = await self.get(task)
        if old.state not in ENDED:
            raise StateError(f"task {task} cannot be tried again", f"it is {old.state}", f"`enisle task cancel {task}`")
        pinned = old.placement == PINNED and not old.bound_by
        request = Request(
            old.routine,
            old.arguments,
            old.resources,
            host=old.host if pinned else "",
            placement=PINNED if pinned else RETRYABLE,
            attempts=old.retry.attempts,
            deadline_s=max(0.0, old.deadline - old.submitted),
            if_blocked=old.if_blocked,
            key=f"retry {old.id}",
        )
        return await self.submit(request)

    async def cancel(self, task: str, why: str) -> Task:
        """Ask for the end of a task; return it with the wish in it. Raises StateError when it has ended, NotFound."""
        await self.get(task)
        while True:
            entry = await self._store.get_leader(f"task.{task}")
            if entry.value is None:
                raise NotFound(f"there is no task {task}", "", "`enisle task ls`")
            found = Task.from_value(entry.value)
            if found.state in ENDED:
                raise StateError(f"task {task} cannot be cancelled", f"it is {found.state}", "")
            if found.cancel:
                return found
            why = _reason(why) or "no reason was given"
            wished = replace(found, cancel=why, order=found.order or entry.revision)
            try:
                told = audit_record("cancel", self.actor, found.tenant, why, task=task, routine=found.routine)
                await self._store.batch([Change(entry.key, wished.to_value(), entry.revision), Change(*told, 0)])
                return wished
            except Conflict:
                continue


def _same(found: Task, wanted: Task) -> Task:
    """Return the task an idempotency key stands for. Raises KeyTaken when it was used for something else."""
    if found.digest == wanted.digest:
        return found
    why = f"task {found.id} was submitted with it for something else"
    raise KeyTaken("the idempotency key is taken", why, "use a key of its own")


def _reason(why: object) -> str:
    """Return a reason as it is kept. Raises InvalidRequest for what is not text."""
    if not isinstance(why, str):
        raise InvalidRequest("a reason is text", f"not {type(why).__name__}", "")
    return why.encode(errors="replace").decode()[:200].strip()


def _check_resources(resources: Iterable[Resource]) -> None:
    keys = [resource.key for resource in resources]
    if len(keys) > MAX_RESOURCES:
        raise InvalidRequest(f"a task holds at most {MAX_RESOURCES} resources", f"not {len(keys)}", "split the task")
    for resource in resources:
        require_token("a kind of resource", resource.kind)
        require_token("a resource", resource.id)
        if resource.mode not in (EXCLUSIVE, SHARED):
            raise InvalidRequest(f"a resource cannot be held {resource.mode!r:.40}", "it is exclusive or shared", "")
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidRequest(f"{key.removeprefix('lock.')} is named twice", "a task holds a resource once", "")


def _check_arguments(arguments: object) -> None:
    if not isinstance(arguments, dict):
        raise InvalidRequest("the arguments of a task are named", f"not {type(arguments).__name__}", "")
    try:
        size = len(json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidRequest("the arguments of a task must be JSON", str(error)[:200], "") from None
    if size > MAX_ARGUMENTS:
        raise InvalidRequest("the arguments of a task are too large", f"{size} bytes, at most {MAX_ARGUMENTS}", "")
    if _depth(arguments) > MAX_DEPTH:  # pyright: ignore[reportUnknownArgumentType]
        raise InvalidRequest("the arguments of a task are too deep", f"at most {MAX_DEPTH} levels", "")


def _depth(value: Any) -> int:
    """Return how deep containers lie in containers, no further than one beyond what is allowed."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            elif isinstance(one, list):
                inner.extend(one)  # pyright: ignore[reportUnknownArgumentType]
        depth, level = depth + 1, inner
    return depth if level else depth - 1
