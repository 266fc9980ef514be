"""Processes that routines start: they end when their task is stopped, and at once when their host is fenced.

A stopped process is asked first (SIGTERM to its group) and killed five seconds later. Owned by the agent's event loop.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enisle.errors import HostError
from enisle.tasks.routines import Context

GRACE_S = 5.0
MAX_OUTPUT = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: what it returned (minus the signal that killed it), and the last of what it wrote."""

    exit_code: int
    output: bytes


async def run_process(context: Context, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Ended:
    """Run a program to its end, in a session of its own. Raises HostError when it cannot start, CancelledError.

    What it writes is kept to the last megabyte.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(
            f"cannot run {argv[0]}", error.strerror or str(error), "is it installed on this host?"
        ) from None
    output = bytearray()
    try:
        await _read(process, output)
        return Ended(await process.wait(), bytes(output))
    except asyncio.CancelledError:
        await _end(process, 0.0 if context.fenced else GRACE_S)
        raise


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout
    while part := await process.stdout.read(1 << 16):
        output += part
        if len(output) > 2 * MAX_OUTPUT:
            del output[:-MAX_OUTPUT]
    del output[:-MAX_OUTPUT]


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """End a process and all of its group, also when we are cancelled once more meanwhile."""
    try:
        if grace_s:
            _signal(process, signal.SIGTERM)
            async with asyncio.timeout(grace_s):
                await process.wait()
    except TimeoutError:
        pass
    finally:
        _signal(process, signal.SIGKILL)  # also what it left behind in its group
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
