"""The fake keeps the promises of the engine's store."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from enisle.tasks import Store
from memory_store import MemoryStore
from store_contract import CONTRACT


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_the_fake_keeps_the_promise(promise: Callable[[Store], Awaitable[None]]) -> None:
    async def check() -> None:
        await promise(MemoryStore())

    asyncio.run(check())
