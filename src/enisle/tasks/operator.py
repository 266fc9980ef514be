"""What an operator may do when a resource is stuck or a host will not come back; each act is recorded with its reason.

The record (`audit.<id>`) is part of the same batch as the act: neither is there without the other. The dispatcher moves
it to the history. One event loop owns it.
"""

import time
from dataclasses import replace

from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.tasks.attempts import Batch, end
from enisle.tasks.audit import EVERY, audit_record
from enisle.tasks.names import require_token
from enisle.tasks.picture import Picture
from enisle.tasks.records import Assignment, Failure, Lock, Resource, Task
from enisle.tasks.states import ENDED, HOLDING, Event
from enisle.tasks.store import Change, Conflict, Store, Value

TRIES = 20


class Operator:
    """The part of `Tasks` that is an operator's."""

    _store: Store
    tenant: str
    actor: str

    async def unlock(self, kind: str, id: str, reason: str) -> list[str]:
        """Take a resource from whoever holds it, failing those tasks in the same batch; return which they were.

        What they did stays done: their agents are fenced by the loss of the order, and a newer token keeps them away.
        Raises InvalidRequest without a reason, NotFound, StateError when nobody holds it.
        """
        resource, reason = Resource(require_token("a kind", kind), require_token("a resource", id)), _needed(reason)
        for _ in range(TRIES):
            picture = Picture()
            revisions: dict[str, int] = {}
            lock = await self._read_lock(picture, revisions, resource)
            batch, failed = await self._freed(picture, revisions, lock, resource, reason)
            batch.append(self._audit("unlock", reason, resource=f"{kind}/{id}", tasks=failed))
            try:
                await self._store.batch([Change(key, value, revisions.get(key, 0)) for key, value in batch])
                return failed
            except Conflict:
                continue
        raise StateError(f"{kind}/{id} cannot be unlocked now", "it changes all the time", "try again")

    async def declare_dead(self, host: str, reason: str) -> Value:
        """Say that a host will never act again: what only it could do fails, and what it held is free.

        Only who knows that it is off may say so: what runs there still would run twice. Raises NotFound for a host that
        never came, StateError while it has its lease, InvalidRequest without a reason.
        """
        require_token("a host", host)
        reason = _needed(reason)
        lease = await self._store.get_leader(f"host.{host}")
        if not lease.revision and (await self._store.get_leader(f"member.{host}")).value is None:
            raise NotFound(f"there is no host {host}", "none of that name has joined", "`enisle host ls`")
        if lease.value is not None and not lease.value.get("left"):
            raise StateError(f"host {host} is not dead", "it has its lease", f"stop its agent first, or see {host} off")
        key = f"dead.{host}"
        known = await self._store.get_leader(key)
        value: Value = {"why": reason, "at": time.time(), "actor": self.actor}
        audit_key, audit = self._audit("declare-dead", reason, host=host)
        # The lease's key changes too: a host that comes back this moment wins.
        changes = [Change(f"host.{host}", None, lease.revision), Change(key, value, known.revision)]
        await self._store.batch([*changes, Change(audit_key, audit, 0)])
        return {"host": host, **value}

    async def drain(self, host: str, reason: str, on: bool = True) -> Value:
        """Give a host no new work from now on, or (`on` false) again; what is bound to it still runs there.

        Raises NotFound for a host that never came, InvalidRequest without a reason.
        """
        key, reason = f"member.{require_token('a host', host)}", _needed(reason)
        for _ in range(TRIES):
            entry = await self._store.get_leader(key)
            if entry.value is None:
                raise NotFound(f"there is no host {host}", "none of that name has joined", "`enisle host ls`")
            known = {name: value for name, value in entry.value.items() if name != "drained"}
            drained: Value = {"why": reason, "at": time.time(), "actor": self.actor}
            changes = [Change(key, known | ({"drained": drained} if on else {}), entry.revision)]
            changes.append(Change(*self._audit("drain" if on else "undrain", reason, host=host), 0))
            try:
                await self._store.batch(changes)
                return {"host": host, **drained}
            except Conflict:
                continue
        raise StateError(f"host {host} cannot be changed now", "its record changes all the time", "try again")

    async def forget_host(self, host: str, silenced: bool) -> None:
        """Drop what is kept of a host. Raises NotFound, StateError while it has its lease and was not `silenced`."""
        keys = [f"{kind}.{require_token('a host', host)}" for kind in ("host", "member", "dead")]
        for _ in range(TRIES):
            lease, *others = [await self._store.get_leader(key) for key in keys]
            if lease.value is not None and not lease.value.get("left") and not silenced:
                raise StateError(
                    f"host {host} is live", "it would be back at once", "end its agent: `enisle down` there"
                )
            there = [entry for entry in (lease, *others) if entry.value is not None]
            if not there and not silenced:
                raise NotFound(f"there is no host {host}", "", "`enisle host ls`")
            try:
                if there:
                    await self._store.batch([Change(entry.key, None, entry.revision) for entry in there])
                return
            except Conflict:
                continue
        raise StateError(f"host {host} cannot be removed now", "its record changes all the time", "try again")

    def _audit(self, act: str, reason: str, **more: object) -> tuple[str, Value]:
        return audit_record(act, self.actor, self.tenant, reason, **more)

    async def _read_lock(self, picture: Picture, revisions: dict[str, int], resource: Resource) -> Lock:
        entry = await self._store.get_leader(resource.key)
        if entry.value is None:
            raise StateError(f"{resource.kind}/{resource.id} is not locked", "nobody holds it", "`enisle task ls`")
        revisions[resource.key] = entry.revision
        lock = Lock.from_value(entry.value)
        picture.put_lock(resource.key, lock)
        return lock

    async def _freed(
        self, picture: Picture, revisions: dict[str, int], lock: Lock, resource: Resource, reason: str
    ) -> tuple[Batch, list[str]]:
        """Return the changes that fail every holder and free all that these hold."""
        freed: dict[str, Value | None] = {resource.key: None}
        failed: list[str] = []
        for holder in lock.holders:
            entry = await self._store.get_leader(f"task.{holder}")
            task = Task.from_value(entry.value) if entry.value else None
            if task and self.tenant not in (task.tenant, EVERY):
                raise NotFound(f"nothing of yours holds {resource.kind}/{resource.id}", "", "`enisle task ls`")
            if task is None or task.state not in HOLDING:
                continue  # a lock that nobody holds: it only has to go
            revisions[task.key] = entry.revision
            for key, value in await self._without(picture, revisions, task, reason):
                if key.startswith("lock."):
                    picture.put_lock(key, Lock.from_value(value) if value else None)
                freed[key] = value
            failed.append(holder)
        return list(freed.items()), failed

    async def _without(self, picture: Picture, revisions: dict[str, int], task: Task, reason: str) -> Batch:
        for one in task.resources:
            if one.key not in revisions:
                entry = await self._store.get_leader(one.key)
                revisions[one.key] = entry.revision
                picture.put_lock(one.key, Lock.from_value(entry.value) if entry.value else None)
        order = await self._read_order(picture, revisions, task)
        after = task.on(
            Event.FAIL, failure=Failure("an operator unlocked what it held", reason, ""), finished=time.time()
        )
        assert after.state in ENDED
        return end(picture, after, replace(order, changes={}) if order else None)

    async def _read_order(self, picture: Picture, revisions: dict[str, int], task: Task) -> Assignment | None:
        key = f"asg.{task.host}.{task.id}"
        entry = await self._store.get_leader(key)
        if entry.value is None:
            return None
        revisions[key] = entry.revision
        stop = await self._store.get_leader(f"stop.{task.host}.{task.id}")
        if stop.value is not None:
            revisions[stop.key] = stop.revision
            picture.put_stop(stop.key, True)
        return Assignment.from_value(entry.value)


def _needed(reason: object) -> str:
    if isinstance(reason, str) and reason.strip():
        return reason.encode(errors="replace").decode().strip()[:500]
    raise InvalidRequest("this needs a reason", "it is kept with what was done", "say why")
