"""What waits for a reader of events, where it may resume, and how a reader that takes nothing is let go."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.api import sse
from enisle.api.events import Waiting, read_position
from enisle.api.measures import Measures
from enisle.api.sse import EventStream
from enisle.errors import InvalidRequest


def test_a_reader_resumes_only_in_the_life_of_the_store_it_knew_and_not_ahead_of_it() -> None:
    view: Any = SimpleNamespace(epoch="7", revision=50)
    assert read_position(view, "") == (None, False)
    assert read_position(view, "7-50") == (50, False)
    assert read_position(view, "7-51") == (None, True), "what it saw is gone: the store has been put back"
    assert read_position(view, "6-10") == (None, True)
    for wrong in ("50", "-50", "7-", "7--1", "7-\u0665", "7-" + "9" * 19, "a.b-5", "7-5\n", "\U0001f3dd-5"):
        with pytest.raises(InvalidRequest):
            read_position(view, wrong)


def test_a_row_that_was_to_be_told_keeps_its_place_and_what_may_be_resumed_behind_it() -> None:
    """Else who resumes behind a later row is never told of this one: news of the moment have no revision."""
    waiting = Waiting()
    waiting.put("island", "a", "made", 5, True)
    waiting.put("task", "t", "done", 6, False)
    waiting.put("island", "a", "running", 0, True)
    assert waiting.take() == ("island", "a", "running", 5)
    assert waiting.take() == ("task", "t", "done", 6)
    assert not len(waiting)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=30))
def test_whoever_resumes_behind_a_mark_has_been_told_all_up_to_it(steps: list[tuple[str, bool, bool]]) -> None:
    """Rows of tasks go to the end with each change; derived ones stay; at times one is taken."""
    waiting, told = Waiting(), dict[str, int]()
    latest: dict[str, int] = {}
    highest = 0

    def take() -> None:
        nonlocal highest
        name, identity, value, mark = waiting.take()
        told[name + identity] = value
        if mark:
            assert mark > highest, "marks rise"
            highest = mark
            assert all(told.get(key, 0) >= at for key, at in latest.items() if at <= mark)

    for revision, (identity, derived, taken) in enumerate(steps, 1):
        name = "island" if derived else "task"
        latest[name + identity] = revision
        waiting.put(name, identity, revision, revision, derived)
        if taken:
            take()
    while len(waiting):
        take()
    assert told == latest


class Transport:
    def __init__(self) -> None:
        self.aborted = False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("closing", [False, True], ids=["takes nothing", "the process ends"])
def test_a_reader_is_cut_off_not_closed_in_order(closing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing in order would wait for it to take what it does not take, and keep what the kernel holds for it."""
    monkeypatch.setattr(sse, "PATIENCE_S", 60.0 if closing else 0.05)

    async def check() -> None:
        services: Any = SimpleNamespace(measures=Measures(), closing=asyncio.Event())
        transport, ended = Transport(), asyncio.Event()

        async def source() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"x"
            finally:
                ended.set()

        async def never(message: Any = None) -> Any:
            await asyncio.Event().wait()

        streaming = asyncio.create_task(
            EventStream(services, source())({"type": "http", "enisle.transport": transport}, never, never)
        )
        await asyncio.sleep(0.01)
        assert services.measures.readers == 1
        assert not transport.aborted
        if closing:
            services.closing.set()
        async with asyncio.timeout(5):
            await streaming
        assert transport.aborted
        assert (services.measures.readers, services.measures.dropped) == (0, 0 if closing else 1)

    asyncio.run(check())
