"""One subscription of the process that wakes whoever waits for a task: a hundred long polls cost one watch.

A wait ends with a read at the engine's leader, so what it returns is not older than the event that ended it. One event
loop owns it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable

from enisle.api.services import Viewing
from enisle.tasks import ENDED, Task

LOOK_AGAIN_S = 2.0
"""A view that lost its engine tells nothing; a waiting request looks for itself then."""


class Follower:
    """`run()` in the process's task group; `wait_for` from requests."""

    def __init__(self, view: Viewing) -> None:
        self._view = view
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.count = 0

    async def run(self) -> None:
        async with self._view.subscribe(None) as subscription:
            while True:
                for news in await subscription.news():
                    if news.kind == "task" and news.id in self._waiting:
                        for event in self._waiting[news.id]:
                            event.set()

    async def wait_for(
        self, get: Callable[[], Awaitable[Task]], task: Task, enough: Callable[[Task], bool], timeout_s: float
    ) -> Task:
        """Return the task when it is as wanted, or as it is after `timeout_s`. Raises what `get` raises."""
        woken = asyncio.Event()
        self._waiting[task.id].add(woken)
        self.count += 1
        end = asyncio.get_running_loop().time() + timeout_s
        try:
            task = await get()
            while not enough(task) and task.state not in ENDED:
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, LOOK_AGAIN_S)):
                        await woken.wait()
                woken.clear()
                task = await get()
            return task
        finally:
            self.count -= 1
            self._waiting[task.id].discard(woken)
            if not self._waiting[task.id]:
                del self._waiting[task.id]
