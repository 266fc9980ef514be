"""A picture of the platform for whoever shows it: it follows the store, and tells each subscriber what is new.

What waits for a slow subscriber is the latest of every key: bounded by how many keys there are, never by time. A
subscriber that was away is told only what is newer than the revision it knows. One event loop owns a view.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from enisle.errors import NotFound
from enisle.tasks.news import News, Subscription
from enisle.tasks.records import Lock, Task
from enisle.tasks.states import ENDED
from enisle.tasks.store import Entry, Store, Value

BEHIND_S = 5.0
"""How far a view may be behind the store before what it has not heard of is taken for missing."""
REMEMBERED = 10_000
"""Keys that are gone, of which a subscriber that was away can be told."""
KINDS = {
    "task": "task",
    "lock": "lock",
    "host": "host",
    "res": "record",
    "token": "token",
    "cfg": "cfg",
    "dead": "dead",
    "member": "member",
}


class View:
    """`View(store, progress)`: run `run()` in a task group, then read. Mappings are by id, or by `kind.id`."""

    def __init__(self, store: Store, progress: Store) -> None:
        self._store, self._progress_store = store, progress
        self.revision, self.epoch = 0, "0"
        self.tasks: dict[str, Task] = {}
        self.locks: dict[str, Lock] = {}
        self.hosts: dict[str, Value] = {}
        self.records: dict[str, Value] = {}
        self.progress: dict[str, Value] = {}
        self.live: dict[str, Value] = {}
        self.tokens: dict[str, Value] = {}
        self.dead: dict[str, Value] = {}
        """Hosts an operator declared dead, and why."""
        self.members: dict[str, Value] = {}
        """What is kept of every host that has joined (members.py)."""
        self.audits: dict[str, Value] = {}
        """Who did what, by id, until the history has it."""
        self.subscriptions: set[Subscription] = set()
        self._revisions: dict[tuple[str, str], int] = {}
        self._gone: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._complete_since = 0
        """What went before this revision is not remembered."""
        self._early: dict[str, Entry] = {}
        """Progress from a host of which we do not know that it runs the task."""
        self._followers: dict[str, set[Subscription]] = {}
        self._places: dict[str, dict[str, dict[str, Value]]] = {"progress": {}, "live": {}}
        """By kind and id: what each key that tells of it says."""
        self._mappings: dict[str, dict[str, Any]] = {
            "task": self.tasks,
            "lock": self.locks,
            "host": self.hosts,
            "record": self.records,
            "progress": self.progress,
            "live": self.live,
            "token": self.tokens,
            "dead": self.dead,
            "member": self.members,
            "cfg": {},
        }
        self._told: dict[str, set[str] | None] = {"store": None, "progress": None}
        self._current = {"store": asyncio.Event(), "progress": asyncio.Event()}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("store", self._store))
            group.create_task(self._follow("progress", self._progress_store))

    async def ready(self) -> None:
        """Wait until everything there is has been told."""
        for event in self._current.values():
            await event.wait()

    # ---- for subscribers -------------------------------------------------------------------------------------------

    def subscribe(self, since: int | None = None) -> Subscription:
        """Return a subscription: everything, or what is newer than a revision, then `current`, then what becomes."""
        return Subscription(self, since)

    def enrol(self, subscription: Subscription, since: int | None) -> None:
        if since is not None and since < self._complete_since:
            subscription.put(News("reset", "", None, self.revision))
            since = None
        known = sorted((revision, key) for key, revision in self._revisions.items() if revision > (since or 0))
        gone = [(revision, key) for key, revision in self._gone.items() if since is not None and revision > since]
        for revision, (kind, identity) in sorted([*known, *gone]):
            subscription.put(News(kind, identity, self._mappings[kind].get(identity), revision))
        for kind in ("progress", "live"):
            for identity, value in self._mappings[kind].items():
                subscription.put(News(kind, identity, value, 0))
        subscription.put(News("current", "", None, self.revision))
        self.subscriptions.add(subscription)

    async def follow(self, task: str) -> AsyncIterator[Task]:
        """Yield a task as it is and after each change, to its end.

        One that was stored a moment ago may not be here yet; it is waited for. Raises NotFound.
        """
        await self.ready()
        single = Subscription(self, None)
        self._followers.setdefault(task, set()).add(single)
        try:
            if (last := self.tasks.get(task)) is None:
                last = await self._first_of(single, task)
            yield last
            while last.state not in ENDED:
                for news in await single.news():
                    if news.value is None:
                        raise NotFound(f"task {task} is gone", "", "`enisle task ls`")
                    yield (last := news.value)
        finally:
            self._followers[task].discard(single)
            if not self._followers[task]:
                del self._followers[task]

    async def _first_of(self, single: Subscription, task: str) -> Task:
        try:
            async with asyncio.timeout(BEHIND_S):
                return (await single.news())[0].value
        except TimeoutError:
            raise NotFound(f"there is no task {task}", "", "`enisle task ls`") from None

    # ---- the picture -----------------------------------------------------------------------------------------------

    async def _follow(self, which: str, store: Store) -> None:
        async for entry in store.watch(""):
            if entry is None:
                self._told[which] = set()
                continue
            if entry.key:
                told = self._told[which]
                if told is not None:
                    told.add(entry.key)
                (self._learn if which == "store" else self._learn_fleeting)(entry)
            if entry.current:
                self._settle(which)

    def _settle(self, which: str) -> None:
        """All was told: what we have and were not told is gone."""
        told = self._told[which]
        if told is None:
            return
        self._told[which] = None
        if which == "store":
            if not self._current[which].is_set():
                self._complete_since = self.revision
            self.audits = {name: value for name, value in self.audits.items() if f"audit.{name}" in told}
            prefixes = {kind: prefix for prefix, kind in KINDS.items()}
            for kind, identity in list(self._revisions):
                if f"{prefixes[kind]}.{identity}" not in told:
                    self._change(kind, identity, None, self.revision)
        else:
            places = [place for kind in self._places.values() for one in kind.values() for place in one]
            for place in places:
                if place not in told:
                    self._learn_fleeting(Entry(place, None, 0))
        self._current[which].set()
        if all(event.is_set() for event in self._current.values()):
            for task in self.progress.keys() - self.tasks.keys():
                self._drop_progress(task)

    def _learn(self, entry: Entry) -> None:
        prefix, _, identity = entry.key.partition(".")
        self.revision = max(self.revision, entry.revision)
        kind = KINDS.get(prefix)
        if kind is None:
            if prefix == "audit" and entry.value:
                self.audits[identity] = entry.value
            elif prefix == "audit":
                self.audits.pop(identity, None)
            return
        if entry.revision <= max(self._revisions.get((kind, identity), 0), self._gone.get((kind, identity), 0)):
            return
        if entry.key == "cfg.epoch" and entry.value:
            self.epoch = str(entry.value.get("epoch", 0))
        value: Any = entry.value
        if kind == "host" and value and value.get("left"):
            value = None  # it left in order: what it said last is in its member's record
        if value is not None:
            value = {"task": Task.from_value, "lock": Lock.from_value}.get(kind, _same)(value)
        elif (kind, identity) not in self._revisions:
            self._remember_gone(kind, identity, entry.revision)
            return
        self._change(kind, identity, value, entry.revision)

    def _change(self, kind: str, identity: str, value: Any, revision: int) -> None:
        if value is None:
            self._mappings[kind].pop(identity, None)
            self._revisions.pop((kind, identity), None)
            self._remember_gone(kind, identity, revision)
        else:
            self._mappings[kind][identity] = value
            self._revisions[kind, identity] = revision
            self._gone.pop((kind, identity), None)
        if kind == "record":
            self._show_another("live", identity)
        over = kind == "task" and (value is None or value.state in ENDED)
        if over:
            self._drop_progress(identity)
        self._tell(News(kind, identity, value, revision))
        if kind == "task" and (early := self._early.pop(identity, None)) and not over:
            self._learn_fleeting(early)

    def _remember_gone(self, kind: str, identity: str, revision: int) -> None:
        self._gone.pop((kind, identity), None)
        self._gone[kind, identity] = revision
        while len(self._gone) > REMEMBERED:
            _, forgotten = self._gone.popitem(last=False)
            self._complete_since = max(self._complete_since, forgotten)

    def _learn_fleeting(self, entry: Entry) -> None:
        """Take progress (`prog.<host>.<task>`) or actual state (`live.<host>.<kind>.<id>`)."""
        prefix, host, identity = entry.key.split(".", 2) if entry.key.count(".") >= 2 else ("", "", "")
        kind = {"prog": "progress", "live": "live"}.get(prefix)
        if kind is None:
            return
        mapping, places = self._mappings[kind], self._places[kind].setdefault(identity, {})
        if entry.value is None:
            old = places.pop(entry.key, None)
            if old is not None and mapping.get(identity) is old:
                del mapping[identity]
                self._show_another(kind, identity)
            if old is not None:
                self._tell(News(kind, identity, mapping.get(identity), 0))
        elif kind == "progress" and (task := self.tasks.get(identity)) and task.host != host:
            self._early[identity] = entry  # from a host that runs it, as we may hear a moment later
        elif kind == "live" or self._may_tell(identity, entry.value):
            places[entry.key] = entry.value
            if kind != "live" or self.records.get(identity, {}).get("host", host) == host:
                mapping[identity] = entry.value
            self._tell(News(kind, identity, mapping.get(identity), 0))
        if not places:
            del self._places[kind][identity]

    def _show_another(self, kind: str, identity: str) -> None:
        """What was hidden behind another of its name is shown once that is gone, with its record."""
        hidden = self._places["live"].get(identity)
        if kind == "live" and hidden and identity not in self.live and identity not in self.records:
            self.live[identity] = next(iter(hidden.values()))

    def elsewhere(self, identity: str) -> dict[str, Value]:
        """Return what hosts tell of a resource that is not the record's, by host: another of the same name is there."""
        here = self.records.get(identity, {}).get("host")
        told = self._places["live"].get(identity, {})
        hosts = {key.split(".", 2)[1]: value for key, value in told.items()} if here else {}
        return {host: value for host, value in hosts.items() if host != here}

    def duplicates(self) -> dict[str, dict[str, Value]]:
        """Return `elsewhere` of all of which there is more than one."""
        return {name: told for name in self._places["live"] if (told := self.elsewhere(name))}

    def _may_tell(self, identity: str, value: Value) -> bool:
        """Whether a host may say this of a task: no less than it said before."""
        known, last = self.tasks.get(identity), self.progress.get(identity)
        if known is not None and known.state in ENDED:
            return False
        return _is_progress(value) and (last is None or _how_far(value) >= _how_far(last))

    def _drop_progress(self, task: str) -> None:
        self._places["progress"].pop(task, None)
        if self.progress.pop(task, None) is not None:
            self._tell(News("progress", task, None, 0))

    def _tell(self, news: News) -> None:
        for subscription in self.subscriptions:
            subscription.put(news)
        if news.kind == "task":
            for subscription in self._followers.get(news.id, ()):
                subscription.put(news)


def _is_progress(value: Value) -> bool:
    """Whether a host wrote what agents write."""
    attempt, fraction, left = value.get("attempt"), value.get("fraction"), value.get("left_s")
    return (
        isinstance(attempt, int)
        and isinstance(fraction, (int, float))
        and 0 <= fraction <= 1
        and isinstance(value.get("phase", ""), str)
        and (left is None or isinstance(left, (int, float)))
    )


def _how_far(progress: Value) -> tuple[int, float]:
    return int(progress.get("attempt", 0)), float(progress.get("fraction", 0))


def _same(value: Value) -> Value:
    return value
