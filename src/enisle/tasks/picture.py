"""The store as the dispatcher last saw it, with what is derived from it: rows of waiting tasks, and what to look at.

Promises: whatever changes marks exactly what must be looked at again, so a decision costs what has happened, not what
there is. What is marked stays marked until there is nothing to do about it: a change that was refused is planned anew.
One event loop owns a picture.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator

from enisle.tasks.records import ASSIGNED, SHARED, Assignment, Lock, Task
from enisle.tasks.states import ENDED, WAITING
from enisle.tasks.store import Value

HEADS = 4
"""How many at the head of a row are looked at as soon as it moves; the others learn their new place a little later."""


class Row:
    """Who waits for a resource, in the order of submission."""

    __slots__ = ("all", "alone")

    def __init__(self) -> None:
        self.all: list[tuple[int, str]] = []
        self.alone: list[tuple[int, str]] = []
        """Those of them that share it with nobody."""

    def add(self, claim: tuple[int, str], mode: str) -> None:
        insort(self.all, claim)
        if mode != SHARED:
            insort(self.alone, claim)

    def remove(self, claim: tuple[int, str], mode: str) -> None:
        del self.all[bisect_left(self.all, claim)]
        if mode != SHARED:
            del self.alone[bisect_left(self.alone, claim)]

    def before(self, claim: tuple[int, str]) -> int:
        return bisect_left(self.all, claim)

    def exclusive_before(self, claim: tuple[int, str]) -> bool:
        return bool(self.alone) and self.alone[0] < claim

    def heads(self) -> Iterator[str]:
        """Yield those that may start when the resource is free, and a few behind them."""
        first = self.alone[0] if self.alone else None
        after = 0
        for claim in self.all:
            if first is not None and claim >= first:
                after += 1
                if after > HEADS:
                    return
            yield claim[1]


class Picture:
    """`live` hosts renew their lease; `lost` ones have not for longer than it lasts; `dead`: an operator says so."""

    def __init__(self, live: set[str] | None = None) -> None:
        self.now = 0.0
        self.epoch = 0
        self.tasks: dict[str, Task] = {}
        self.locks: dict[str, Lock] = {}
        self.assignments: dict[str, Assignment] = {}
        self.records: dict[str, Value] = {}
        """By `kind.id`."""
        self.stops: set[str] = set()
        self.live: set[str] = set(live or ())
        self.lost: set[str] = set()
        self.dead: dict[str, str] = {}
        self.leases: dict[str, Value] = {}
        """What each host says of itself; one that has `left` is not live."""
        self.members: dict[str, Value] = {}
        """What is kept of each host (members.py)."""
        self.drained: set[str] = set()
        """Hosts that get no new work."""
        self.ended: dict[str, float] = {}
        """Ended tasks still in the store, with the time of their end."""
        # ---- derived ----
        self.rows: dict[str, Row] = {}
        self.orders: dict[str, set[str]] = {}
        """The keys of the orders of each host."""
        self.order_of: dict[str, str] = {}
        self.marked_tasks: set[str] = set()
        self.marked_orders: set[str] = set()
        self.marked_hosts: set[str] = set()
        self.hostless: set[str] = set()
        """Waiting tasks that lack nothing but a host."""
        self.moved: set[str] = set()
        """Rows in which somebody's place has changed and was not told yet."""
        self.refreshed = 0.0
        self._claims: dict[str, Task] = {}
        """Waiting tasks as they stand in the rows."""
        self._due: list[tuple[float, str]] = []

    # ---- what is learned -------------------------------------------------------------------------------------------

    def put_task(self, identity: str, task: Task | None) -> None:
        if not self._keeps_its_place(identity, task):
            self._leave_rows(identity)
        self.ended.pop(identity, None)
        self.hostless.discard(identity)
        if task is None:
            self.tasks.pop(identity, None)
            self.marked_tasks.discard(identity)
        else:
            self.tasks[identity] = task
            if task.state in ENDED:
                self.ended[identity] = task.finished
                self.marked_tasks.discard(identity)
            else:
                self._wait(task)
        if order := self.order_of.get(identity):
            self.marked_orders.add(order)

    def _keeps_its_place(self, identity: str, task: Task | None) -> bool:
        claim = self._claims.get(identity)
        if claim is None or task is None or task.state not in WAITING or task.not_before > self.now:
            return False
        return (claim.order, claim.resources) == (task.order, task.resources)

    def _wait(self, task: Task) -> None:
        if task.state in WAITING:
            self.marked_tasks.add(task.id)
            if task.not_before > self.now:
                heapq.heappush(self._due, (task.not_before, task.id))
            elif task.id not in self._claims:
                self._join_rows(task)
        if task.deadline:
            heapq.heappush(self._due, (task.deadline, task.id))
            if len(self._due) > 1000 + 4 * self.active():
                self._due = sorted({entry for entry in self._due if entry[1] in self.tasks.keys() - self.ended.keys()})

    def _join_rows(self, task: Task) -> None:
        self._claims[task.id] = task
        for resource in task.resources:
            self.rows.setdefault(resource.key, Row()).add((task.order, task.id), resource.mode)

    def _leave_rows(self, identity: str) -> None:
        task = self._claims.pop(identity, None)
        if task is None:
            return
        for resource in task.resources:
            row = self.rows[resource.key]
            row.remove((task.order, task.id), resource.mode)
            if not row.all:
                del self.rows[resource.key]
            self._wake(resource.key)

    def _wake(self, key: str) -> None:
        row = self.rows.get(key)
        if row:
            self.marked_tasks.update(row.heads())
            if len(row.all) > HEADS:
                self.moved.add(key)

    def put_lock(self, key: str, lock: Lock | None) -> None:
        if lock is None:
            self.locks.pop(key, None)
        else:
            self.locks[key] = lock
        self._wake(key)

    def put_record(self, name: str, value: Value | None) -> None:
        if value is None:
            self.records.pop(name, None)
        else:
            self.records[name] = value
        self._wake(f"lock.{name}")

    def put_order(self, key: str, order: Assignment | None) -> None:
        old = self.assignments.pop(key, None)
        if old:
            self.orders[old.host].discard(key)
            if self.order_of.get(old.task) == key:
                del self.order_of[old.task]
        self.marked_orders.discard(key)
        if order:
            self.assignments[key] = order
            self.orders.setdefault(order.host, set()).add(key)
            self.order_of[order.task] = key
            self.marked_orders.add(key)

    def put_stop(self, key: str, there: bool) -> None:
        (self.stops.add if there else self.stops.discard)(key)
        self.marked_orders.update({f"asg.{key.removeprefix('stop.')}"} & self.assignments.keys())

    def put_lease(self, host: str, lease: Value | None) -> None:
        """Learn what a host says of itself; None: its lease ended. Who left in order says so, and is not live."""
        if self.leases.get(host) != lease:
            self.marked_hosts.add(host)
        if lease is None:
            self.leases.pop(host, None)
        else:
            self.leases[host] = lease
        self.put_host(host, lease is not None and not lease.get("left"))

    def put_member(self, host: str, member: Value | None) -> None:
        if member is None:
            self.members.pop(host, None)
        else:
            self.members[host] = member
        self.marked_hosts.add(host)
        if (host in self.drained) != bool(member and member.get("drained")):
            self.drained ^= {host}
            self._look_at_host(host)

    def put_host(self, host: str, live: bool) -> None:
        """A host has its lease, or has it no more."""
        if live == (host in self.live):
            return
        (self.live.add if live else self.live.discard)(host)
        if live:
            self.lost.discard(host)
        self._look_at_host(host)

    def put_lost(self, host: str) -> None:
        """What ran on a host has ended by now: its lease ended long enough ago."""
        if host not in self.lost:
            self.live.discard(host)
            self.lost.add(host)
            self._look_at_host(host)

    def put_dead(self, host: str, why: str | None) -> None:
        if why is None:
            self.dead.pop(host, None)
        else:
            self.dead[host] = why
        self._look_at_host(host)

    def _look_at_host(self, host: str) -> None:
        self.marked_orders.update(self.orders.get(host, ()))
        if host in self.live:  # what nobody could take may go there
            self.marked_orders.update(key for lost in self.lost for key in self.orders.get(lost, ()))
        self.marked_tasks.update(self.hostless)

    # ---- what is asked ---------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Let time pass: what was delayed joins its rows, what has a deadline that has passed is looked at."""
        self.now = max(self.now, now)
        while self._due and self._due[0][0] <= self.now:
            _, identity = heapq.heappop(self._due)
            task = self.tasks.get(identity)
            if task is None or task.state in ENDED:
                continue
            if task.state in WAITING:
                if identity not in self._claims and task.not_before <= self.now:
                    self._join_rows(task)
                    for resource in task.resources:
                        self._wake(resource.key)
                self.marked_tasks.add(identity)
            elif order := self.order_of.get(identity):
                self.marked_orders.add(order)

    def next_due(self) -> float:
        """Return when time alone makes something to do; infinity: never."""
        return self._due[0][0] if self._due else float("inf")

    def mark_everything(self) -> None:
        """Look at all again: whoever begins to decide has not seen what led here."""
        self.marked_orders.update(self.assignments)
        self.marked_tasks.update(task.id for task in self.tasks.values() if task.state in WAITING)

    def load(self, host: str) -> int:
        return len(self.orders.get(host, ()))

    def active(self) -> int:
        return len(self.tasks) - len(self.ended)

    def working_hosts(self) -> list[str]:
        """Return the hosts that have orders."""
        return [host for host, orders in self.orders.items() if orders]

    def is_assigned(self, key: str) -> bool:
        return key in self.assignments and self.assignments[key].status == ASSIGNED
