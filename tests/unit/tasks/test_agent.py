"""What an agent promises, on stores in memory: an order is done once, stopped in time, and only while it is ours."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enisle.tasks import (
    PINNED,
    SHARED,
    Agent,
    Context,
    Dispatcher,
    Journal,
    Objects,
    Request,
    Resource,
    Routines,
    State,
    Task,
    Tasks,
    run_process,
)
from enisle.tasks.records import Assignment
from enisle.tasks.runs import fencing_token
from memory_store import MemoryStore

ISLAND = (Resource("island", "a"),)
Body = Callable[[Context], Awaitable[object]]


class Parts:
    def __init__(self, path: Path, body: Body) -> None:
        self.store, self.progress, self.objects = MemoryStore(), MemoryStore(), MemoryStore()
        self.path, self.routines = path, Routines()
        self.routines.add("a@1", body)
        self.tasks = Tasks(self.store)
        self.agent: Agent

    @contextlib.asynccontextmanager
    async def agent_running(self) -> AsyncIterator[Agent]:
        with Journal(self.path) as journal:
            objects = Objects(self.objects)
            self.agent = Agent(self.store, self.progress, self.routines, journal, "h1", objects=objects)
            running = asyncio.create_task(self.agent.run())
            try:
                yield self.agent
            finally:
                running.cancel()
                await asyncio.wait([running])

    async def submit(self, **more: object) -> Task:
        return await self.tasks.submit(Request("a@1", {}, ISLAND, **more))  # pyright: ignore

    async def end(self, task: Task) -> Task:
        return await self.tasks.wait(task.id, 20)


def check(path: Path, body: Body, test: Callable[[Parts], Awaitable[None]]) -> None:
    async def whole() -> None:
        parts = Parts(path / "journal.db", body)
        dispatcher = asyncio.create_task(Dispatcher(parts.store, "d").run())
        async with parts.agent_running():
            await test(parts)
        dispatcher.cancel()
        await asyncio.wait([dispatcher])

    asyncio.run(whole())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_an_order_told_three_times_is_done_once_and_a_late_outcome_is_refused(tmp_path: Path) -> None:
    begun: list[int] = []

    async def body(context: Context) -> int:
        async def act() -> int:
            begun.append(context.token)
            return 7

        result = await context.step("one", act)
        await asyncio.sleep(0.1)
        return result

    async def test(parts: Parts) -> None:
        task = await parts.submit()
        await until(lambda: begun)
        key = f"asg.h1.{task.id}"
        order = parts.store.now(key)
        for _ in range(3):
            parts.agent._take(order)
        assert (await parts.end(task)).result == 7
        for _ in range(3):
            parts.agent._take(order)
        await asyncio.sleep(0.1)
        assert begun == [fencing_token(0, order.revision)]
        old = Assignment.from_value(order.value or {})
        await parts.agent.report(old, order.revision, status="finished", result="late")
        assert parts.agent.refused == 1
        assert (await parts.tasks.get(task.id)).result == 7

    check(tmp_path, body, test)


def test_records_are_there_for_the_routine_and_change_when_it_ends(tmp_path: Path) -> None:
    async def body(context: Context) -> object:
        seen = dict(context.records)
        context.put_record("island", "a", {"n": seen.get("island.a", {"n": 0})["n"] + 1, "host": context.host})
        assert (context.tenant, context.resources) == ("default", ISLAND)
        return seen

    async def test(parts: Parts) -> None:
        first, second = await parts.submit(), await parts.submit()
        assert (await parts.end(first)).result == {}
        ended = await parts.end(second)
        assert ended.result == {"island.a": {"n": 1, "host": "h1"}}
        assert (ended.placement, ended.bound_by) == (PINNED, "island/a")
        assert parts.store.now("res.island.a").value == {"n": 2, "host": "h1"}

    check(tmp_path, body, test)


def test_a_record_that_is_not_held_alone_is_not_changed(tmp_path: Path) -> None:
    async def body(context: Context) -> None:
        context.put_record("island", "a", {})

    async def test(parts: Parts) -> None:
        for resources in ((), (replace(ISLAND[0], mode=SHARED),), (Resource("island", "b"),)):
            ended = await parts.end(await parts.tasks.submit(Request("a@1", {}, resources)))
            assert ended.failure
            assert ended.failure.message == "it changed what it does not hold"
        assert parts.store.now("res.island.a").value is None

    check(tmp_path, body, test)


def test_results_too_large_become_objects_and_nonsense_fails_its_task(tmp_path: Path) -> None:
    results = iter(["x" * 100_000, float("nan"), object()])

    async def body(context: Context) -> object:
        return next(results)

    async def test(parts: Parts) -> None:
        large, nan, odd = [await parts.end(await parts.submit()) for _ in range(3)]
        content = await Objects(parts.objects).get(large.result)
        assert content == b'"' + b"x" * 100_000 + b'"'
        for failed in (nan, odd):
            assert failed.failure
            assert failed.failure.message == "a result of a task must be JSON"

    check(tmp_path, body, test)


def test_progress_is_clamped_never_goes_back_and_is_sent_ten_times_a_second(tmp_path: Path) -> None:
    async def body(context: Context) -> None:
        for number in range(5000):
            context.progress(number / 10_000, "x" * 500)
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        for wrong in (float("nan"), -1.0, float("-inf"), 0.1):
            context.progress(wrong)
        await asyncio.sleep(0.25)
        context.progress(float("inf"))
        await asyncio.sleep(0.25)

    async def test(parts: Parts) -> None:
        begin = time.monotonic()
        task = await parts.submit()
        told: list[dict] = []
        revision = 0
        while (await parts.tasks.get(task.id)).state is not State.DONE:
            entry = parts.progress.now(f"prog.h1.{task.id}")
            if entry.value and entry.revision != revision:
                revision = entry.revision
                told.append(entry.value)
            await asyncio.sleep(0.01)
        fractions = [value["fraction"] for value in told]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert all(
            0 <= fraction <= 1 and len(value["phase"]) <= 200 for fraction, value in zip(fractions, told, strict=True)
        )
        assert parts.progress.revision <= 4 + 10 * (time.monotonic() - begin)

    check(tmp_path, body, test)


@pytest.mark.timeout(60)
def test_a_stopped_routine_undoes_its_work_and_one_that_will_not_stop_is_left_behind(tmp_path: Path) -> None:
    undone: list[str] = []

    async def body(context: Context) -> None:
        async def undo() -> None:
            undone.append(context.task)

        context.on_cancel(undo)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    async def cancelled_after(parts: Parts) -> tuple[Task, float]:
        task = await parts.submit()
        await until(lambda: parts.agent.statistics().running)
        await asyncio.sleep(0.1)
        await parts.tasks.cancel(task.id, "enough")
        begin = time.monotonic()
        return await parts.end(task), time.monotonic() - begin

    stubborn = False

    async def test(parts: Parts) -> None:
        nonlocal stubborn
        ended, seconds = await cancelled_after(parts)
        assert (ended.state, undone) == (State.CANCELLED, [ended.id])
        assert seconds < 1
        stubborn = True
        ended, seconds = await cancelled_after(parts)
        assert ended.failure
        assert (ended.state, ended.failure.message) == (State.CANCELLED, "it did not stop")
        assert seconds < 6.5
        stubborn = False

    check(tmp_path, body, test)


@pytest.mark.timeout(60)
def test_a_process_is_asked_to_end_then_killed_with_its_group(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 100 & echo $!; wait; wait"
    pids: list[int] = []

    async def body(context: Context) -> object:
        assert (await run_process(context, ["sh", "-c", "echo hello; exit 3"])).exit_code == 3
        (tmp_path / "begun").touch()
        await run_process(context, ["sh", "-c", f"{{ {script}; }} > {tmp_path}/pid"])
        return None

    async def test(parts: Parts) -> None:
        task = await parts.submit()
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pids.append(int((tmp_path / "pid").read_text()))
        await parts.tasks.cancel(task.id, "enough")
        begin = time.monotonic()
        assert (await parts.end(task)).state is State.CANCELLED
        assert 4.5 < time.monotonic() - begin < 6.5
        await until(lambda: not _lives(pids[0]))

    check(tmp_path, body, test)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_ordered_goes_on_when_an_agent_has_its_lease_again(tmp_path: Path) -> None:
    """The lease is lost under a pinned task: it is fenced, then goes on at the step it was in."""
    steps: list[str] = []

    async def body(context: Context) -> int:
        for name in ("one", "two"):

            async def act(name: str = name) -> None:
                steps.append(name)
                if name == "two" and steps.count("two") == 1:
                    await asyncio.sleep(60)

            await context.step(name, act)
        return len(steps)

    async def test(parts: Parts) -> None:
        task = await parts.submit(host="h1", placement=PINNED)
        await until(lambda: "two" in steps)
        lease = parts.agent.lease
        assert lease
        await parts.store.cas("host.h1", None, parts.store.now("host.h1").revision)  # as if it had been silent
        ended = await parts.end(task)
        assert (ended.state, ended.attempt, steps) == (State.DONE, 1, ["one", "two", "two"])
        assert parts.agent.lease is not lease

    check(tmp_path, body, test)


def test_an_attempt_that_ends_its_agent_again_and_again_is_begun_no_more(tmp_path: Path) -> None:
    begun: list[int] = []

    async def body(context: Context) -> None:
        begun.append(1)
        await asyncio.sleep(60)

    async def whole() -> None:
        parts = Parts(tmp_path / "journal.db", body)
        dispatcher = asyncio.create_task(Dispatcher(parts.store, "d").run())
        async with parts.agent_running():
            task = await parts.submit(host="h1", placement=PINNED)
            await until(lambda: begun)
        while (await parts.tasks.get(task.id)).state is not State.FAILED:
            count = len(begun)
            async with parts.agent_running():
                async with asyncio.timeout(5):
                    while len(begun) == count and (await parts.tasks.get(task.id)).state is not State.FAILED:
                        await asyncio.sleep(0.005)
        failed = await parts.tasks.get(task.id)
        assert failed.failure
        assert (failed.failure.message, len(begun)) == ("it ends its agent", 5)
        dispatcher.cancel()
        await asyncio.wait([dispatcher])

    asyncio.run(whole())
