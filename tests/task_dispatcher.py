"""A dispatcher as a process of its own: `task_dispatcher.py URL NAME [always]`. `always`: it believes to lead."""

import asyncio
import sys

from enisle.tasks import Dispatcher, JetStream


class Usurper(Dispatcher):
    """A dispatcher that decides whoever has the lease."""

    @property
    def leads(self) -> bool:
        return True


async def main(url: str, name: str, always: str = "") -> None:
    async with JetStream(url) as store:
        await (Usurper if always else Dispatcher)(store, name).run()


asyncio.run(main(*sys.argv[1:]))
