"""What a dispatcher sends was decided on what it knew then: whatever it learns before it is sent refuses it."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from enisle.tasks import Dispatcher, Entry, Request, Resource, State, Task, Tasks
from memory_store import MemoryStore


def test_a_wish_that_comes_between_decision_and_change_is_not_overwritten() -> None:
    async def check() -> None:
        store = MemoryStore()
        await store.cas("host.h1", {"host": "h1"}, 0)
        task = await Tasks(store).submit(Request("platform.sleep@1", {"seconds": 1}))
        dispatcher = Dispatcher(store, "d")
        for entry in list(store.entries.values()):
            dispatcher.learn(entry)
        dispatcher._decide()  # it shall start, and is not sent before the next await
        there = store.now(task.key)
        assert there.value
        wished = replace(Task.from_value(there.value), cancel="enough")
        store._put(task.key, wished.to_value())
        revision = store.revision
        dispatcher.learn(store.now(task.key))
        while dispatcher._flights:
            await asyncio.sleep(0)
        assert store.now(task.key).revision == revision, "a change made from what was known before took effect"
        assert dispatcher.conflicts == 1
        assert f"asg.h1.{task.id}" not in store.entries

    asyncio.run(check())


class Clock:
    """A clock for a dispatcher that moves when it is told to."""

    def __init__(self) -> None:
        self.at = 5000.0

    def monotonic(self) -> float:
        return self.at

    def time(self) -> float:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("dispatcher", "silence"):
        monkeypatch.setattr(f"enisle.tasks.{module}.time", clock)
    return clock


def knowing(store: MemoryStore, **more: object) -> Dispatcher:
    """A dispatcher that has seen all there is."""
    dispatcher = Dispatcher(store, "d", **more)  # pyright: ignore
    for entry in list(store.entries.values()):
        dispatcher.learn(entry)
    return dispatcher


async def decided(dispatcher: Dispatcher) -> None:
    """Let it decide, and what it sends be answered, until there is nothing more to do."""
    for _ in range(20):
        dispatcher._decide()
        while dispatcher._flights:
            await asyncio.sleep(0)


def test_older_news_after_newer_change_nothing() -> None:
    """What a commit made is learned from its answer; the watch tells what was before it a moment later."""
    dispatcher = Dispatcher(MemoryStore(), "d")
    lock = {"holders": ["t"], "mode": "exclusive"}
    dispatcher.learn(Entry("lock.island.a", lock, 9))
    dispatcher.learn(Entry("lock.island.a", None, 8))
    assert dispatcher.picture.locks["lock.island.a"].holders == ("t",)
    dispatcher.learn(Entry("lock.island.a", None, 10))
    assert not dispatcher.picture.locks


def test_a_store_that_is_told_anew_may_have_lower_revisions() -> None:
    dispatcher = Dispatcher(MemoryStore(), "d")
    dispatcher.learn(Entry("res.island.a", {"n": 1}, 50))
    dispatcher._begin_anew()
    assert not dispatcher.picture.records
    dispatcher.learn(Entry("res.island.a", {"n": 2}, 3))
    assert dispatcher.picture.records == {"island.a": {"n": 2}}


def test_of_what_is_sent_together_only_what_was_refused_is_decided_anew() -> None:
    async def check() -> None:
        store = MemoryStore()
        await store.cas("host.h1", {"host": "h1"}, 0)
        tasks = [await Tasks(store).submit(Request("a@1", {"n": number})) for number in range(3)]
        dispatcher = knowing(store)
        first = store.now(tasks[0].key)
        assert first.value
        store._put(first.key, replace(Task.from_value(first.value), cancel="enough").to_value())
        dispatcher._decide()
        assert len(dispatcher._flights) == 1, "all batches are one commit"
        while dispatcher._flights:
            await asyncio.sleep(0)
        assert [f"asg.h1.{task.id}" in store.entries for task in tasks] == [False, True, True]
        assert (dispatcher.conflicts, dispatcher.batches) == (1, 3)  # the host's record is the third
        await decided(dispatcher)
        assert dispatcher.picture.tasks[tasks[0].id].state is State.CANCELLED

    asyncio.run(check())


def test_a_key_whose_end_the_engine_has_forgotten_is_made_at_zero(clock: Clock) -> None:
    """Forgotten when we expect it, or before: then the refusal says so, and the next round knows."""

    async def check() -> None:
        dispatcher = Dispatcher(MemoryStore(), "d")
        for key, again in (("lock.island.a", False), ("lock.island.b", True)):
            dispatcher.learn(Entry(key, None, 7))
            assert dispatcher._changes([(key, {})])[0].expected == 7
            clock.at += 50
            if again:
                dispatcher.learn(Entry(key, {"holders": ["t"], "mode": "exclusive"}, 8))
            clock.at += 45
            dispatcher._forget()
            assert dispatcher._changes([(key, {})])[0].expected == (8 if again else 0)

        for remembered in (False, True):
            store = MemoryStore()
            await store.cas("host.h1", {"host": "h1"}, 0)
            if remembered:
                store._put("lock.island.a", None)
            task = await Tasks(store).submit(Request("a@1", {}, (Resource("island", "a"),)))
            dispatcher = knowing(store)
            dispatcher.learn(Entry("lock.island.a", None, 99))
            await decided(dispatcher)
            assert dispatcher.picture.tasks[task.id].state is State.RUNNING, "what we believed was wrong"
            assert dispatcher.conflicts == 1

    asyncio.run(check())


def test_nothing_is_decided_for_a_store_that_is_not_trusted_or_of_another_epoch() -> None:
    safety = SimpleNamespace(ok=True, epoch=4, reason="")
    dispatcher = Dispatcher(MemoryStore(), "d", safety=safety)
    assert not dispatcher.decides
    dispatcher._lease = SimpleNamespace(held=True)  # pyright: ignore
    dispatcher._current = True
    dispatcher.learn(Entry("cfg.epoch", {"epoch": 3, "store": "s"}, 1))
    assert not dispatcher.decides, "tokens of an epoch that is over"
    dispatcher.learn(Entry("cfg.epoch", {"epoch": 4, "store": "s"}, 2))
    assert dispatcher.decides
    safety.ok = False
    assert not dispatcher.decides
    safety.ok, dispatcher.paused = True, "an operator looks"
    assert not dispatcher.decides


def test_a_host_is_lost_a_second_after_its_lease_and_not_while_the_engine_was_away(clock: Clock) -> None:
    """By then its agent has stopped every step; and an engine that was away could not take anybody's renewal."""

    async def check() -> None:
        store = MemoryStore()
        await store.cas("host.h1", {"host": "h1"}, 0)
        await Tasks(store).submit(Request("a@1"))
        dispatcher = knowing(store, ttl_s=3.0)
        await decided(dispatcher)
        dispatcher.learn(Entry("host.h1", None, store.revision + 1))
        for later, lost in ((0.0, False), (0.95, False), (0.1, True)):
            clock.at += later
            dispatcher._judge_hosts()
            assert (dispatcher.picture.lost == {"h1"}) is lost, later
        dispatcher.learn(Entry("host.h1", {"host": "h1"}, store.revision + 2))
        assert not dispatcher.picture.lost
        dispatcher._silence.spare()
        dispatcher.learn(Entry("host.h1", None, store.revision + 3))
        for later, lost in ((5.9, False), (0.2, True)):
            clock.at += later
            dispatcher._judge_hosts()
            assert (dispatcher.picture.lost == {"h1"}) is lost, later

    asyncio.run(check())
