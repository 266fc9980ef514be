"""An agent as a process of its own: `task_agent.py URL HOST JOURNAL LOG`. Its routine logs when it begins each step."""

import asyncio
import sys
import time
from pathlib import Path

from enisle.tasks import PROGRESS, Agent, Context, JetStream, Journal, example_routines


async def main(url: str, host: str, journal: str, log: str) -> None:
    routines = example_routines()

    async def steps(context: Context) -> int:
        for number in range(context.arguments["count"]):

            async def act(number: int = number) -> None:
                with open(log, "a") as file:
                    file.write(f"{context.task}/{number} {time.time()}\n")
                await asyncio.sleep(context.arguments["seconds"])

            await context.step(f"step {number}", act)
            context.progress((number + 1) / context.arguments["count"])
        return context.arguments["count"]

    routines.add("test.steps@1", steps, count=int, seconds=float)
    async with JetStream(url) as store, JetStream(url, bucket=PROGRESS) as progress:
        with Journal(Path(journal)) as book:
            await Agent(store, progress, routines, book, host).run()


asyncio.run(main(*sys.argv[1:]))
