"""The agent's process: it runs this host's tasks, answers for its islands and tells how they are.

It may die at any time: islands and machines go on, and the next agent finds them. One per host and state directory. Its
event loop owns everything here.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from enisle.control.answers import Answers
from enisle.control.call_work import do_calls
from enisle.control.edge import run_part, say
from enisle.control.hosting import Hosting as Hosting
from enisle.control.hosting import facts
from enisle.control.island_routines import IslandRoutines
from enisle.control.live import LiveBoard
from enisle.control.places import Places
from enisle.control.vm_routines import VmRoutines
from enisle.errors import HostError, StateError
from enisle.tasks import (
    CONTROL,
    OBJECTS,
    PROGRESS,
    Agent,
    JetStream,
    Journal,
    Objects,
    Questions,
    example_routines,
    require_token,
)


class Joined:
    """How a host reaches the engine: by the URL of one of ours, or as itself with its seed."""

    def __init__(self, url: str, seed: str = "", ca: str | Path | None = None) -> None:
        self.url, self.seed, self.ca = url, seed, ca

    def connection(self, host: str) -> dict[str, Any]:
        """Return what a store of a host is opened with."""
        return {"seed": self.seed, "ca": self.ca, "host": host} if self.seed else {}


@contextlib.contextmanager
def only_one(places: Places, host: str) -> Any:
    """Hold a host's directory. Raises StateError when another agent does."""
    directory = places.host(require_token("a host", host))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot use {directory}", error.strerror or "", "make room on that disk") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateError(f"host {host} has an agent already", f"another holds {directory}", "") from None
    os.ftruncate(descriptor, 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@asynccontextmanager
async def hosting_of(places: Places, host: str, joined: Joined) -> "AsyncGenerator[tuple[Hosting, Agent]]":
    """Make an agent with all it needs, having adopted what is there; `Agent.run` is the caller's."""
    more = joined.connection(host)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(only_one(places, host))
        store = await stack.enter_async_context(JetStream(joined.url, bucket=CONTROL, **more))
        progress = await stack.enter_async_context(JetStream(joined.url, bucket=PROGRESS, **more))
        objects = Objects(await stack.enter_async_context(JetStream(joined.url, bucket=OBJECTS, **more)))
        questions = await stack.enter_async_context(Questions(joined.url, seed=joined.seed or None, ca=joined.ca))
        hosting = Hosting(places, host, LiveBoard(progress, host, lambda: progress.server), objects)
        routines = example_routines()
        IslandRoutines(hosting).add_to(routines)
        machines = VmRoutines(hosting)
        machines.add_to(routines)
        found = await hosting.adopt()
        if found:
            say("agent", f"adopted {len(found)} islands: {', '.join(found[:20])}")
        journal = stack.enter_context(Journal(places.journal(host)))
        await questions.serve(host, Answers(hosting).handlers())
        helpers = [asyncio.create_task(hosting.run()), asyncio.create_task(machines.run_telling())]
        try:
            ttl_s = store.lease_ttl_s
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)  # whoever started us may know now that we work
            yield hosting, Agent(store, progress, routines, journal, host, ttl_s, facts=facts(), objects=objects)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)
            await hosting.close()


async def run_agent(places: Places, host: str, joined: Joined) -> None:
    """Be the agent of a host until cancelled. Raises EnisleError when it cannot."""
    async with hosting_of(places, host, joined) as (_, agent):
        say("agent", f"agent of host {host} runs")
        calling = asyncio.create_task(do_calls(joined.url, host, joined.connection(host), lambda: agent.left_s() > 0))
        try:
            await agent.run()
        finally:
            calling.cancel()
            await asyncio.wait([calling])


def main(state: str, words: list[str]) -> int:
    """Run the agent of a platform's own machine, or of one that has joined (`--joined FILE`)."""
    parser = argparse.ArgumentParser("python -m enisle.control agent")
    parser.add_argument("--host", required=True)
    parser.add_argument("--joined", help="a file with engine_url, ca and seed")
    asked = parser.parse_args(words)
    places, file = Places(state), Path(asked.joined).absolute() if asked.joined else None
    os.chdir("/")  # an island shows its maker's working directory; ours is nobody's business

    async def run() -> None:
        joined = read_joined(file) if file else Joined(places.read_engine_url())
        await run_agent(places, asked.host, joined)

    return run_part("agent", run)


def read_joined(path: Path) -> Joined:
    """Return how a host that has joined reaches its platform. Raises StateError."""
    import json

    try:
        told = json.loads(path.read_text())
        ca = path.with_name("engine-ca.pem")
        if told.get("ca"):
            ca.write_text(told["ca"])
        return Joined(told["engine_url"], told["seed"], ca if told.get("ca") else None)
    except (OSError, ValueError, KeyError) as error:
        raise StateError("this host has not joined", f"{path}: {error}", "`enisle join URL --token …`") from None
