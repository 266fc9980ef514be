"""An agent as a process of its own: `task_agent.py URL HOST JOURNAL LOG [SEED CA]`. Its routines log what they begin.

With a seed it comes in as a host that was admitted, with a host's rights and no more.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from enisle.tasks import PROGRESS, Agent, Context, JetStream, Journal, example_routines


async def main(url: str, host: str, journal: str, log: str, *identity: str) -> None:
    routines = example_routines()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def steps(context: Context) -> int:
        for number in range(context.arguments["count"]):

            async def act(number: int = number) -> None:
                os.write(file, f"{context.task}/{number} {time.time()}\n".encode())
                await asyncio.sleep(context.arguments["seconds"])

            await context.step(f"step {number}", act)
            context.progress((number + 1) / context.arguments["count"])
        return context.arguments["count"]

    async def hold(context: Context) -> None:
        """Be with what it holds for a while, and say so before and after."""
        names = ",".join(resource.name for resource in context.resources)

        async def act() -> None:
            os.write(file, f"in {context.task} {context.attempt} {names} {time.time()}\n".encode())
            try:
                await asyncio.sleep(context.arguments["seconds"])
            finally:
                os.write(file, f"out {context.task} {context.attempt} {names} {time.time()}\n".encode())

        await context.step("hold", act)

    routines.add("test.steps@1", steps, count=int, seconds=float)
    routines.add("test.hold@1", hold, seconds=float)
    more = {"seed": Path(identity[0]).read_text(), "ca": identity[1], "host": host} if identity else {}
    async with JetStream(url, **more) as store, JetStream(url, bucket=PROGRESS, **more) as progress:  # pyright: ignore
        with Journal(Path(journal)) as book:
            await Agent(store, progress, routines, book, host).run()


asyncio.run(main(*sys.argv[1:]))
