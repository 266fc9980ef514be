"""What a view tells its subscribers: everything once, then the latest of what changes, in the order it happened."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.tasks import Entry, Resource, State, Task, View
from memory_store import MemoryStore


def task(number: int, **more: object) -> Task:
    return Task(f"t{number}", "a@1", {}, (Resource("island", "a"),), "", 1.0, **more)  # pyright: ignore


@contextlib.asynccontextmanager
async def viewing(there: dict[str, dict]) -> AsyncIterator[tuple[View, MemoryStore, MemoryStore]]:
    store, progress = MemoryStore(), MemoryStore()
    for key, value in there.items():
        await put(progress if key.startswith(("prog.", "live.")) else store, key, value)
    view = View(store, progress)
    running = asyncio.create_task(view.run())
    try:
        yield view, store, progress
    finally:
        running.cancel()
        await asyncio.wait([running])


def check(
    body: Callable[[View, MemoryStore, MemoryStore], Awaitable[None]], there: dict[str, dict] | None = None
) -> None:
    async def whole() -> None:
        async with viewing(there or {}) as (view, store, progress), asyncio.timeout(20):
            await body(view, store, progress)

    asyncio.run(whole())


async def put(store: MemoryStore, key: str, value: dict | None) -> int:
    return await store.cas(key, value, store.now(key).revision)


async def seen(view: View, revision: int) -> None:
    while view.revision < revision:
        await asyncio.sleep(0)


def test_a_subscriber_is_told_everything_then_current_then_what_becomes() -> None:
    there = {
        "task.t1": task(1, state=State.RUNNING, host="h1").to_value(),
        "lock.island.a": {"holders": ["t1"], "mode": "exclusive"},
        "res.island.a": {"host": "h1"},
        "prog.h1.t1": {"attempt": 1, "fraction": 0.5},
        "live.h1.island.a": {"memory_used": 1},
    }

    async def body(view: View, store: MemoryStore, progress: MemoryStore) -> None:
        async with view.subscribe() as subscription:
            told = await subscription.news()
            assert [(news.kind, news.id) for news in told] == [
                ("task", "t1"),
                ("lock", "island.a"),
                ("record", "island.a"),
                ("progress", "t1"),
                ("live", "island.a"),
                ("current", ""),
            ]
            assert told[-1].revision == view.revision
            assert view.locks["island.a"].holders == ("t1",)
            last = await put(store, "lock.island.a", None)
            (news,) = await subscription.news()
            assert (news.kind, news.id, news.value, news.revision) == ("lock", "island.a", None, last)

    check(body, there)


def test_who_was_away_is_told_what_is_newer_also_what_is_gone() -> None:
    async def body(view: View, store: MemoryStore, _: MemoryStore) -> None:
        await view.ready()
        await put(store, "res.island.a", {"n": 1})
        known = await put(store, "res.island.b", {"n": 1})
        await put(store, "res.island.c", {"n": 1})
        await seen(view, await put(store, "res.island.a", None))
        async with view.subscribe(known) as subscription:
            told = [(news.kind, news.id, news.value) for news in await subscription.news()]
        assert told == [("record", "island.c", {"n": 1}), ("record", "island.a", None), ("current", "", None)]

    check(body)


def test_who_was_away_longer_than_the_view_remembers_begins_anew() -> None:
    async def body(view: View, store: MemoryStore, _: MemoryStore) -> None:
        async with view.subscribe(1) as subscription:
            told = [news.kind for news in await subscription.news()]
        assert told == ["reset", "record", "record", "current"]

    check(body, {"res.island.a": {"n": 1}, "res.island.b": {"n": 1}})


def test_a_follower_sees_a_task_to_its_end_and_its_progress_goes() -> None:
    there = {
        "task.t1": task(1, state=State.RUNNING, host="h1").to_value(),
        "prog.h1.t1": {"attempt": 2, "fraction": 0.5},
    }

    async def body(view: View, store: MemoryStore, progress: MemoryStore) -> None:
        follower = view.follow("t1")
        assert (await anext(follower)).state is State.RUNNING
        for wrong in ({"attempt": 1, "fraction": 0.9}, {"attempt": "x"}, {"attempt": 3, "fraction": 7.0}, {}):
            await put(progress, "prog.h1.t1", wrong)  # of an attempt that is over, or nonsense
            await asyncio.sleep(0.001)
        await put(progress, "prog.h2.t1", {"attempt": 3, "fraction": 0.9})  # from a host that does not run it
        await asyncio.sleep(0.01)
        assert view.progress["t1"] == {"attempt": 2, "fraction": 0.5}
        await put(store, "task.t1", task(1, state=State.RUNNING, host="h2").to_value())
        assert (await anext(follower)).host == "h2"
        assert view.progress["t1"] == {"attempt": 3, "fraction": 0.9}
        await put(store, "task.t1", task(1, state=State.DONE).to_value())
        assert [one.state async for one in follower] == [State.DONE]
        assert not view.progress

    check(body, there)


changes = st.lists(
    st.tuples(st.sampled_from(["res.island.a", "res.island.b", "lock.island.a", "host.h1"]), st.booleans()), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(changes, st.lists(st.booleans(), min_size=40, max_size=40))
def test_a_slow_subscriber_misses_steps_but_never_where_they_lead(
    happened: list[tuple[str, bool]], reads: list[bool]
) -> None:
    async def body(view: View, store: MemoryStore, _: MemoryStore) -> None:
        await view.ready()
        told: dict[tuple[str, str], object] = {}
        async with view.subscribe() as subscription:
            for number, (key, there) in enumerate(happened):
                value = {"holders": [str(number)], "mode": "exclusive"} if there else None
                await seen(view, await put(store, key, value))
                assert len(subscription) <= 5
                if reads[number] and len(subscription):
                    told |= {(news.kind, news.id): news.value for news in await subscription.news()}
            if len(subscription):
                told |= {(news.kind, news.id): news.value for news in await subscription.news()}
        assert {key[1]: value for key, value in told.items() if key[0] == "record" and value} == view.records
        assert {key[1]: value for key, value in told.items() if key[0] == "lock" and value} == view.locks
        assert {key[1]: value for key, value in told.items() if key[0] == "host" and value} == view.hosts

    check(body)


def test_what_is_gone_when_a_watch_begins_anew_is_told_as_gone() -> None:
    async def body(view: View, store: MemoryStore, _: MemoryStore) -> None:
        async with view.subscribe() as subscription:
            await subscription.news()
            del store.entries["res.island.a"]  # deleted, and the engine has forgotten that it was
            for _, queue in store._watchers:
                queue.put_nowait(None)  # pyright: ignore
                queue.put_nowait(store.now("res.island.b"))
            (news,) = await subscription.news()
        assert (news.kind, news.id, news.value) == ("record", "island.a", None)
        assert set(view.records) == {"island.b"}

    check(body, {"res.island.a": {"n": 1}, "res.island.b": {"n": 1}})


def test_an_island_of_a_taken_name_is_elsewhere_until_the_other_is_gone() -> None:
    view = View(MemoryStore(), MemoryStore())
    view._learn(Entry("res.island.a", {"host": "h2"}, 1))
    view._learn_fleeting(Entry("live.h2.island.a", {"pid": 2}, 1))
    view._learn_fleeting(Entry("live.h1.island.a", {"pid": 1}, 2))
    assert view.live["island.a"] == {"pid": 2}
    assert view.duplicates() == {"island.a": {"h1": {"pid": 1}}}
    for gone in (Entry("live.h2.island.a", None, 3), Entry("res.island.a", None, 2)):
        (view._learn if gone.key.startswith("res.") else view._learn_fleeting)(gone)
    assert (view.live["island.a"], view.duplicates()) == ({"pid": 1}, {})
    view._learn_fleeting(Entry("live.h1.island.a", None, 4))
    assert not view.live
