"""The edge of a process of the platform: what it says, and how it is told to end.

`say` writes whole lines to standard error, which is the platform's log; `run_part` runs one part until SIGTERM.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from enisle.errors import EnisleError


def say(who: str, line: str) -> None:
    """Write a line of the log."""
    try:
        os.write(2, f"{who}: {line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # a full disk: what is said is lost, what is done is not


def run_part(who: str, part: Callable[[], Awaitable[None]]) -> int:
    """Run a part to its end, or until it is told to end; return the exit code."""

    async def run() -> None:
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None
        for signo in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signo, this.cancel)
        await part()

    try:
        asyncio.run(run())
    except asyncio.CancelledError:
        return 0
    except EnisleError as error:
        say(who, str(error))
        return error.exit_code
    return 0
