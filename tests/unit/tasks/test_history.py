"""What has ended stays to be found: by identity, tenant, state, resource, routine, a page at a time."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.errors import HostError, InvalidRequest, NotFound, StateError
from enisle.tasks import (
    Archive,
    Dispatcher,
    Failure,
    History,
    Lock,
    Request,
    Resource,
    State,
    Task,
    Tasks,
)
from memory_store import MemoryStore


def ended(number: int, **more: object) -> Task:
    facts = {
        "routine": "a.b@1",
        "submitted": float(number + 1),
        "finished": time.time(),
        "state": State.DONE,
        "resources": (Resource("island", f"i{number % 3}"),),
    }
    return Task(id=f"t{number:04}", arguments={}, digest="", **(facts | more))  # pyright: ignore


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.db") as history:
        yield history


def test_pages_follow_each_other_through_any_filter(history: History) -> None:
    states = (State.DONE, State.FAILED, State.CANCELLED)
    tasks = [ended(n, state=states[n % 3], tenant="a" if n % 2 else "b", routine=f"x@{n % 2 + 1}") for n in range(200)]
    history.add(tasks)
    history.add(tasks[:50])  # the same again
    for filters in (
        {},
        {"state": "failed"},
        {"resource": "island/i1"},
        {"routine": "x"},
        {"routine": "x@2"},
        {"state": "done", "resource": "island/i0", "routine": "x@2"},
    ):
        seen: list[Task] = []
        before = 0.0
        while page := history.list("a", before=before, limit=7, **filters):
            seen += page
            before = page[-1].submitted
        wanted = [
            task
            for task in reversed(tasks)
            if task.tenant == "a"
            and filters.get("state") in (None, task.state)
            and filters.get("routine") in (None, task.routine, task.routine.split("@")[0])
            and ("resource" not in filters or f"island/{task.resources[0].id}" == filters["resource"])
        ]
        assert seen == wanted, filters
        assert wanted or filters
    assert history.find("t0007") == tasks[7]
    assert history.find("t9999") is None


def test_what_is_older_than_thirty_days_is_forgotten(history: History) -> None:
    history.add(
        [ended(1, finished=time.time() - 31 * 86400), ended(2)],
        [("audit.1", {"at": 1.0}), ("audit.2", {"at": time.time()})],
    )
    assert history.prune() == 1
    assert [task.id for task in history.list("default")] == ["t0002"]
    assert not history.list("default", resource="island/i1")
    assert len(history.audit()) == 1


def test_a_reader_beside_the_writer_sees_what_was_added_and_changes_nothing(history: History, tmp_path: Path) -> None:
    with History(tmp_path / "history.db", writable=False) as reader:
        history.add([ended(1)])
        assert reader.find("t0001")
        with pytest.raises(HostError, match="cannot be written"):
            reader.add([ended(2)])


@settings(max_examples=50, deadline=None)
@given(st.builds(Failure, st.text(), st.text(), st.text()), st.text(), st.integers(0, 9))
def test_a_task_survives_the_way_into_a_key_and_back(failure: Failure, why: str, attempt: int) -> None:
    task = replace(ended(1), failure=failure, cancel=why, attempt=attempt, result={"x": [why]})
    assert Task.from_value(json.loads(json.dumps(task.to_value()))) == task


# ---- the archive, and what operators do, with a dispatcher on a store in memory -------------------------------------


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # pyright: ignore
            await asyncio.sleep(0.01)


def test_ended_tasks_leave_the_store_and_are_found_as_before(history: History) -> None:
    async def check() -> None:
        store = MemoryStore()
        tasks = Tasks(store, history=history)
        for number in range(20):
            task = ended(number)
            await store.cas(task.key, task.to_value(), 0)
        dispatcher = Dispatcher(store, "d", archive=Archive(history, keep=5))
        running = asyncio.create_task(dispatcher.run())
        await until(lambda: sum(entry.value is not None for key, entry in store.entries.items() if "task." in key) == 5)
        assert history.count() == 20
        assert (await tasks.get("t0003")).state is State.DONE
        assert [task.state async for task in tasks.follow("t0003")] == [State.DONE]
        again = await tasks.retry("t0003")
        assert again.resources == ended(3).resources
        assert (await tasks.retry("t0003")).id == again.id
        with pytest.raises(StateError, match="cannot be tried again"):
            await tasks.retry(again.id)
        with pytest.raises(NotFound):
            await Tasks(store, "other", history=history).get("t0003")
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(check())


def test_a_key_stands_for_its_task_also_when_that_has_left_the_store(history: History) -> None:
    async def check() -> None:
        store = MemoryStore()
        tasks = Tasks(store, history=history)
        first = await tasks.submit(Request("a@1", {"n": 1}, key="once"))
        done = replace(first, state=State.DONE, finished=time.time())
        history.add([done])
        await store.cas(first.key, None, store.now(first.key).revision)
        assert await tasks.submit(Request("a@1", {"n": 1}, key="once")) == done
        with pytest.raises(InvalidRequest, match="taken"):
            await tasks.submit(Request("a@1", {"n": 2}, key="once"))

    asyncio.run(check())


def test_an_operator_unlocks_with_a_reason_that_stays(history: History) -> None:
    async def check() -> None:
        store = MemoryStore()
        tasks = Tasks(store, actor="ann")
        dispatcher = Dispatcher(store, "d", archive=Archive(history))
        running = asyncio.create_task(dispatcher.run())
        await store.cas("host.h1", {}, 0)
        both = (Resource("island", "a"), Resource("island", "b"))
        first, second = await tasks.submit(Request("a@1", {}, both)), await tasks.submit(Request("a@1", {}, both[:1]))
        await until(lambda: dispatcher.picture.tasks.get(second.id, second).state is State.BLOCKED)
        with pytest.raises(InvalidRequest, match="reason"):
            await tasks.unlock("island", "a", " ")
        with pytest.raises(NotFound):
            await Tasks(store, "other").unlock("island", "a", "why not")
        assert await tasks.unlock("island", "a", "it hangs") == [first.id]
        failed = await tasks.get(first.id)
        assert failed.failure
        assert (failed.state, failed.failure.why) == (State.FAILED, "it hangs")
        assert store.now(f"asg.h1.{first.id}").value is None
        await until(lambda: dispatcher.picture.tasks[second.id].state is State.RUNNING)
        assert Lock.from_value(store.now("lock.island.a").value or {}).holders == (second.id,)
        with pytest.raises(StateError, match="nobody holds it"):
            await tasks.unlock("island", "b", "again")
        await until(lambda: history.audit())
        (told,) = history.audit()
        assert (told["act"], told["actor"], told["reason"], told["tasks"]) == ("unlock", "ann", "it hangs", [first.id])
        await until(lambda: not [key for key, entry in store.entries.items() if "audit." in key and entry.value])
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(check())


def test_a_host_is_declared_dead_only_when_it_is_silent() -> None:
    async def check() -> None:
        store = MemoryStore()
        tasks = Tasks(store)
        dispatcher = Dispatcher(store, "d")
        running = asyncio.create_task(dispatcher.run())
        live = await store.cas("host.h1", {}, 0)
        pinned = await tasks.submit(Request("a@1", {}, (Resource("disk", "d"),), host="h1", placement="pinned"))
        await until(lambda: dispatcher.picture.tasks.get(pinned.id, pinned).state is State.RUNNING)
        with pytest.raises(StateError, match="has its lease"):
            await tasks.declare_dead("h1", "burnt")
        with pytest.raises(NotFound, match="there is no host h9"):
            await tasks.declare_dead("h9", "burnt")
        assert "dead.h9" not in store.entries
        await store.cas("host.h1", None, live)
        await tasks.declare_dead("h1", "burnt")
        await until(lambda: dispatcher.picture.tasks[pinned.id].state is State.FAILED)
        assert store.now("lock.disk.d").value is None
        await store.cas("host.h1", {}, store.now("host.h1").revision)
        await until(lambda: store.now("dead.h1").value is None)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(check())


def test_a_clients_clock_that_is_an_hour_off_moves_no_deadline() -> None:
    async def check() -> None:
        store = MemoryStore()
        dispatcher = Dispatcher(store, "d")
        for skew in (-3600.0, 3600.0):
            now = time.time()
            task = Task(f"t{skew:.0f}", "a@1", {}, (), "", now + skew, deadline=now + skew + 30)
            entry = replace(await store.get_leader("x"), key=task.key, value=task.to_value(), revision=7, time=now)
            dispatcher.learn(entry)
            seen = dispatcher.picture.tasks[task.key.removeprefix("task.")]
            assert (seen.order, seen.submitted, seen.deadline) == (7, now, pytest.approx(now + 30))

    asyncio.run(check())


def test_a_lease_that_the_engine_forgot_to_end_stops_nothing_for_long() -> None:
    """Keys of holders that are gone, and that do not expire: the dispatcher's, and a host's with a task on it."""

    async def check() -> None:
        store = MemoryStore()
        tasks = Tasks(store)
        await store.cas("lease.dispatcher", {"dispatcher": "gone"}, 0)
        task = await tasks.submit(Request("a@1"))
        dispatcher = Dispatcher(store, "d", ttl_s=0.3)
        running = asyncio.create_task(dispatcher.run())
        await until(lambda: dispatcher.leads)
        await store.cas("host.h1", {"host": "h1"}, 0)
        await until(lambda: dispatcher.picture.tasks.get(task.id, task).host == "h1")
        other = await store.lease("host.h2", {"host": "h2"}, 0.3)
        await until(lambda: dispatcher.picture.tasks[task.id].host == "h2")
        assert other.held
        assert store.now("host.h1").value is None
        running.cancel()
        await asyncio.wait([running])
        await other.release()

    asyncio.run(check())
