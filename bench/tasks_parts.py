"""A platform to be measured: an engine, a dispatcher and an agent in processes of their own, a client in this one.

`python -m bench.tasks_parts dispatcher|agent|worker URL DIRECTORY` is what those processes run.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from enisle.tasks import (
    ENDED,
    PROGRESS,
    Agent,
    Archive,
    Context,
    Copy,
    Dispatcher,
    Engine,
    History,
    JetStream,
    Journal,
    LaneCall,
    LaneWorker,
    Request,
    Resource,
    Routines,
    State,
    Tasks,
    View,
)


class Parts:
    """What a measure has: an engine, a directory, and on demand the rest of a platform."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine, self.directory = engine, directory
        self.dispatcher_pid = self.agent_pid = 0
        self.view: View
        self.tasks: Tasks

    @contextlib.asynccontextmanager
    async def platform(self, *roles: str) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for role in roles or ("dispatcher", "agent"):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "bench.tasks_parts", role, self.engine.url, str(self.directory)
                )
                stack.push_async_callback(end_process, process)
                setattr(self, f"{role}_pid", process.pid)
            store = await stack.enter_async_context(JetStream(self.engine.url))
            progress = await stack.enter_async_context(JetStream(self.engine.url, bucket=PROGRESS))
            self.view = View(store, progress)
            running = asyncio.create_task(self.view.run())
            stack.push_async_callback(end_task, running)
            await self.view.ready()
            self.tasks = Tasks(store, view=self.view)
            task = await self.tasks.submit(Request("bench.nothing@1"))  # until all are up
            await self.tasks.wait(task.id, 30)
            yield


async def end_process(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def end_task(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


async def latencies(parts: Parts, count: int) -> list[float]:
    """Return the seconds from submitting a task until its end is seen, one after the other."""
    taken: list[float] = []
    for number in range(count):
        begin = time.perf_counter()
        task = await parts.tasks.submit(Request("bench.nothing@1", {}, (Resource("thing", f"t{number % 8}"),)))
        ended = await parts.tasks.wait(task.id, 60)
        taken.append(time.perf_counter() - begin)
        assert ended.state is State.DONE, ended
    return taken


async def burst(parts: Parts, count: int) -> float:
    """Return how many tasks a second end when all are submitted at once, each on a resource of its own."""
    begin = time.perf_counter()
    async with parts.view.subscribe(parts.view.revision) as subscription:
        made = await asyncio.gather(
            *(
                parts.tasks.submit(Request("bench.nothing@1", {}, (Resource("thing", f"b{number}"),)))
                for number in range(count)
            )
        )
        open_ones = {task.id for task in made}
        while open_ones:
            for news in await subscription.news():
                if news.kind == "task" and (news.value is None or news.value.state in ENDED):
                    open_ones.discard(news.id)
    return count / (time.perf_counter() - begin)


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def memory_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


async def run_dispatcher(url: str, directory: Path) -> None:
    async with JetStream(url) as store:
        with History(directory / "history.db") as history:
            await Dispatcher(store, "bench", archive=Archive(history, Copy(store))).run()


async def run_agent(url: str, directory: Path) -> None:
    routines = Routines()

    async def nothing(context: Context) -> None:
        return None

    routines.add("bench.nothing@1", nothing)
    async with JetStream(url) as store, JetStream(url, bucket=PROGRESS) as progress:
        with Journal(directory / "journal.db") as journal:
            await Agent(store, progress, routines, journal, "h1").run()


async def run_worker(url: str, directory: Path) -> None:
    async def nothing(call: LaneCall) -> None:
        return None

    async with JetStream(url) as store, LaneWorker(store) as worker:
        await worker.work(nothing)


ROLES = {"dispatcher": run_dispatcher, "agent": run_agent, "worker": run_worker}

if __name__ == "__main__":
    role, url, directory = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(ROLES[role](url, Path(directory)))
