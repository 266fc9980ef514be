"""What every store promises; run on the fake and on the engine."""

import asyncio
import time

import pytest

from enisle.tasks import Change, Conflict, Entry, Store


async def revisions_guard_every_change(store: Store) -> None:
    first = await store.cas("a.x", {"n": 1}, 0)
    for wrong in (0, first + 1):
        with pytest.raises(Conflict) as conflict:
            await store.cas("a.x", {"n": 2}, wrong)
        assert (conflict.value.expected, conflict.value.found) == (wrong, first)
    second = await store.cas("a.x", {"n": 2}, first)
    assert second > first
    assert await store.get_leader("a.x") == Entry("a.x", {"n": 2}, second)
    assert (await store.get_leader("a.y")).revision == 0


async def a_batch_is_made_whole_or_not_at_all(store: Store) -> None:
    one = await store.cas("b.1", {"n": 1}, 0)
    with pytest.raises(Conflict) as conflict:
        await store.batch([Change("b.2", {"n": 2}, 0), Change("b.1", {"n": 3}, 0)])
    assert conflict.value.key == "b.1"
    assert (await store.get_leader("b.2")).value is None
    last = await store.batch([Change("b.2", {"n": 2}, 0), Change("b.1", None, one), Change("b.3", {"n": 3}, 0)])
    assert [(await store.get_leader(key)).revision for key in ("b.2", "b.1", "b.3")] == [last - 2, last - 1, last]
    assert (await store.get_leader("b.1")).value is None
    gone = (await store.get_leader("b.1")).revision
    assert await store.cas("b.1", {"n": 4}, gone) > last


async def one_of_many_wins(store: Store) -> None:
    async def increment() -> None:
        for _ in range(10):
            while True:
                now = await store.get_leader("c")
                try:
                    await store.cas("c", {"n": (now.value or {"n": 0})["n"] + 1}, now.revision)
                    break
                except Conflict:
                    continue

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(increment())
    assert (await store.get_leader("c")).value == {"n": 40}


async def a_watch_tells_what_is_and_what_becomes(store: Store) -> None:
    await store.cas("d.1", {"n": 1}, 0)
    await store.cas("e.1", {"n": 1}, 0)
    watch = store.watch("d.")
    assert await anext(watch) is None
    first = await anext(watch)
    assert first
    assert (first.key, first.value, first.current) == ("d.1", {"n": 1}, True)
    second = await store.cas("d.2", {"n": 2}, 0)
    await store.cas("d.2", None, second)
    seen = [await next_entry(watch)]
    if seen[0].value is not None:
        seen.append(await next_entry(watch))
    assert seen[-1].key == "d.2"
    assert seen[-1].value is None
    empty = store.watch("nothing.")
    assert await anext(empty) is None
    entry = await anext(empty)
    assert entry
    assert entry.current
    assert not entry.key


async def next_entry(watch: object) -> Entry:
    while not (entry := await asyncio.wait_for(anext(watch), 5)):  # pyright: ignore
        pass
    return entry


async def a_lease_is_one_holders_and_ends_by_itself(store: Store) -> None:
    lease = await store.lease("lease.x", {"who": 1}, 2)
    assert lease.held
    with pytest.raises(Conflict):
        await store.lease("lease.x", {"who": 2}, 2)
    await asyncio.sleep(2.5)
    assert lease.held
    assert (await store.get_leader("lease.x")).value == {"who": 1}
    await lease.release()
    assert not lease.held
    other = await store.lease("lease.x", {"who": 2}, 1)
    other._renewer.cancel()  # pyright: ignore
    begin = time.monotonic()
    while (await store.get_leader("lease.x")).value:
        assert time.monotonic() - begin < 4
        await asyncio.sleep(0.05)
    assert not other.held


CONTRACT = [
    revisions_guard_every_change,
    a_batch_is_made_whole_or_not_at_all,
    one_of_many_wins,
    a_watch_tells_what_is_and_what_becomes,
    a_lease_is_one_holders_and_ends_by_itself,
]
