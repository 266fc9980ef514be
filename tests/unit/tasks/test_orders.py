"""Orders as a slow or broken watch tells them: late, twice, in the wrong order; and steps near a lease's end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from enisle.tasks import Agent, Context, Entry, Journal, Resource, Routines, State, Task
from enisle.tasks.records import Assignment
from enisle.tasks.runs import Run, fencing_token
from memory_store import MemoryStore


class Told(MemoryStore):
    """A store whose watch of orders tells what the test says, whatever is there."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[Entry | None] = asyncio.Queue()

    async def watch(self, prefix: str) -> AsyncIterator[Entry | None]:
        if not prefix.startswith("asg."):
            async for entry in super().watch(prefix):
                yield entry
        while True:
            yield await self.told.get()

    def order(self, attempt: int = 1, **more: object) -> Entry:
        """Put an order to h1 into the store; return it as a watch would tell it."""
        task = Task("t", "a@1", {}, (Resource("island", "a"),), "", 1000.0, state=State.RUNNING, attempt=attempt)
        order = replace(Assignment("t", "h1", attempt, task.to_value()), **more)  # pyright: ignore
        self._put(order.key, order.to_value())
        return self.now(order.key)


def on_an_agent(path: Path, test: Callable[[Told, list[str]], Awaitable[None]]) -> None:
    """Run a test beside an agent whose routine lasts until it is ended; `seen`: what became of its attempts."""

    async def whole() -> None:
        store, seen = Told(), []
        for number in range(5):
            store._put(f"res.x.{number}", {})

        async def body(context: Context) -> None:
            seen.append(f"begin {context.attempt}")
            try:
                await asyncio.sleep(0.3)
                seen.append(f"end {context.attempt}")
            except asyncio.CancelledError:
                seen.append(f"fenced {context.attempt}")
                raise

        routines = Routines()
        routines.add("a@1", body)
        with Journal(path / "journal.db") as journal:
            running = asyncio.create_task(Agent(store, MemoryStore(), routines, journal, "h1").run())
            async with asyncio.timeout(10):
                while not store.now("host.h1").value:
                    await asyncio.sleep(0.005)
                await test(store, seen)
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(whole())


async def until(seen: list[str], *wanted: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while seen != [*wanted]:
                await asyncio.sleep(0.005)
    assert seen == [*wanted]


def test_an_order_is_done_once_though_its_end_is_not_told_yet(tmp_path: Path) -> None:
    async def test(store: Told, seen: list[str]) -> None:
        store.told.put_nowait(store.order())
        await until(seen, "begin 1", "end 1")
        await asyncio.sleep(0.2)
        value = store.now("asg.h1.t").value
        assert value
        assert value["status"] == "finished"
        assert seen == ["begin 1", "end 1"]

    on_an_agent(tmp_path, test)


def test_an_order_that_was_given_to_another_before_we_had_our_lease_is_not_begun(tmp_path: Path) -> None:
    """The watch still tells it; the store knows better."""

    async def test(store: Told, seen: list[str]) -> None:
        lease = store.now("host.h1")
        old = replace(store.order(), revision=lease.revision - 1)
        store.told.put_nowait(old)
        await asyncio.sleep(0.3)
        assert seen == []

    on_an_agent(tmp_path, test)


def test_an_order_that_is_gone_when_all_is_told_anew_is_ended(tmp_path: Path) -> None:
    async def test(store: Told, seen: list[str]) -> None:
        for entry in (None, replace(store.order(), current=True)):
            store.told.put_nowait(entry)
        await until(seen, "begin 1")
        for entry in (None, Entry("", None, 0, True)):
            store.told.put_nowait(entry)
        await until(seen, "begin 1", "fenced 1")

    on_an_agent(tmp_path, test)


def test_a_newer_order_ends_the_attempt_before_it_and_an_older_one_told_late_does_nothing(tmp_path: Path) -> None:
    async def test(store: Told, seen: list[str]) -> None:
        first = store.order()
        store.told.put_nowait(first)
        await until(seen, "begin 1")
        store.told.put_nowait(store.order(2))
        await until(seen, "begin 1", "fenced 1", "begin 2")
        store.told.put_nowait(first)
        await until(seen, "begin 1", "fenced 1", "begin 2", "end 2")

    on_an_agent(tmp_path, test)


class Host:
    """What a run needs of its agent; its lease lasts as long as the test says."""

    objects = None

    def __init__(self, journal: Journal, routines: Routines) -> None:
        self.journal, self.routines = journal, routines
        self.left = 3.0
        self.reported: list[dict[str, Any]] = []

    def left_s(self) -> float:
        return self.left

    async def report(self, order: Assignment, revision: int, **outcome: Any) -> None:
        self.reported.append(outcome)

    async def send_progress(self, task: str, value: Any, revision: int) -> int:
        return revision + 1


def test_a_step_begins_only_while_the_lease_outlives_the_margin_also_after_writing_it_down(tmp_path: Path) -> None:
    """A second before the lease ends, and not only before the journal was written, which may take long."""

    async def whole() -> None:
        done: list[float] = []
        routines = Routines()

        async def body(context: Context) -> None:
            async def act() -> None:
                done.append(host.left)

            for name in ("early", "late"):
                await context.step(name, act)

        routines.add("a@1", body)
        with Journal(tmp_path / "journal.db") as journal:
            host = Host(journal, routines)
            host.left = 0.9
            begin = journal.begin

            def slowly(task: str, attempt: int, step: str) -> None:
                begin(task, attempt, step)
                if step == "late":
                    host.left = 0.9

            journal.begin = slowly
            entry = Told().order()
            assert entry.value
            run = Run(host, Assignment.from_value(entry.value), 7)
            running = asyncio.create_task(run.run())
            await asyncio.sleep(0.2)
            assert done == []
            host.left = 1.1
            await asyncio.sleep(0.3)
            assert done == [1.1], "the second waits: its lease is short since it was written down"
            host.left = 2.0
            await running
            assert done == [1.1, 2.0]
            assert [one["status"] for one in host.reported] == ["finished"]

    asyncio.run(whole())


def test_what_is_fenced_reports_nothing(tmp_path: Path) -> None:
    async def whole() -> None:
        routines = Routines()

        async def body(context: Context) -> str:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return "done all the same"

        routines.add("a@1", body)
        with Journal(tmp_path / "journal.db") as journal:
            host = Host(journal, routines)
            entry = Told().order()
            assert entry.value
            run = Run(host, Assignment.from_value(entry.value), 7)
            running = asyncio.create_task(run.run())
            await asyncio.sleep(0.1)
            run.fence()
            await running
            assert host.reported == []

    asyncio.run(whole())


def test_tokens_rise_with_orders_and_with_lives_of_the_store() -> None:
    assert fencing_token(3, 7) < fencing_token(3, 8) < fencing_token(4, 1)
    value = replace(Assignment("t", "h1", 1, Told().order().value["context"]), epoch=4)  # pyright: ignore
    assert Run(Host(None, Routines()), value, 7).token == fencing_token(4, 7)  # pyright: ignore
