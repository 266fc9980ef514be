"""What a dispatcher sends was decided on what it knew then: whatever it learns before it is sent refuses it."""

import asyncio
from dataclasses import replace

from enisle.tasks import Dispatcher, Request, Task, Tasks
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
