"""The dispatcher's process: it decides which task runs next, keeps history, and has islands without a record adopted.

Several may run on one engine; the one with the lease leads. Its event loop owns everything here.
"""

import argparse
import asyncio
import os
import secrets
import time
from contextlib import AsyncExitStack
from typing import Any, Protocol

from enisle.control.asks import Asks
from enisle.control.edge import run_part, say
from enisle.control.places import Places
from enisle.control.shown import is_superseded
from enisle.errors import EnisleError
from enisle.tasks import (
    CONTROL,
    ENDED,
    PINNED,
    PROGRESS,
    Archive,
    Copy,
    Dispatcher,
    History,
    JetStream,
    Request,
    Resource,
    Store,
    StoreGuard,
    Tasks,
    View,
)

ADOPTED_S = 10.0
"""How long an island must be there without a record before it gets one: one being made has none yet."""
LOOK_S = 0.5
DISCARDED_S = 60.0


class Leading(Protocol):
    """Who may or may not decide now."""

    @property
    def leads(self) -> bool: ...


class Adopter:
    """Submits `island.adopt@1` for what hosts tell of and the store knows nothing of; `island.discard@1` for what an
    attempt left on a host that was lost, when a later one has made it elsewhere.
    """

    def __init__(self, store: Store, view: View, dispatcher: Leading, after_s: float = ADOPTED_S) -> None:
        self._store, self._view, self._dispatcher, self._after_s = store, view, dispatcher, after_s
        self._since: dict[str, float] = {}

    async def run(self) -> None:
        await self._view.ready()
        while True:
            await asyncio.sleep(self._after_s / 5)
            strays = self._strays()
            now = time.monotonic()
            self._since = {key: self._since.get(key, now) for key in strays}
            for key in strays:
                if self._dispatcher.leads and now - self._since[key] >= self._after_s:
                    await self._adopt(key.partition(".")[2], self._view.live[key])
            for key, told in self._view.duplicates().items():
                for host, live in told.items():
                    record = self._view.records.get(key, {})
                    if self._dispatcher.leads and host in self._view.hosts and is_superseded(record, live):
                        await self._discard(key, host, record)

    def _strays(self) -> list[str]:
        view = self._view
        wanted = {one.name for task in view.tasks.values() if task.state not in ENDED for one in task.resources}
        wanted |= {f"island.{name.removeprefix('stray.')}" for name in wanted if name.startswith("stray.")}
        return [
            key
            for key, live in view.live.items()
            if key.startswith("island.")
            and key not in view.records
            and key not in wanted
            and live.get("host") in view.hosts
        ]

    async def _adopt(self, name: str, live: dict[str, object]) -> None:
        request = Request(
            "island.adopt@1",
            {"island": name},
            (Resource("island", name),),
            host=str(live["host"]),
            placement=PINNED,
            key=f"adopt {name} {live.get('created')} {int(time.time() / 60)}",
        )
        await self._submit(str(live.get("tenant", "default")), request)

    async def _discard(self, key: str, host: str, record: dict[str, Any]) -> None:
        """Have a host end what an attempt of which nobody heard made there, before another made it elsewhere."""
        name = key.partition(".")[2]
        request = Request(
            "island.discard@1",
            {"island": name, "made": record["task"]},
            (Resource("stray", name),),
            host=host,
            placement=PINNED,
            deadline_s=DISCARDED_S,
            key=f"discard {name} {host} {record['token']} {int(time.time() / DISCARDED_S)}",
        )
        await self._submit(str(record.get("tenant", "default")), request)

    async def _submit(self, tenant: str, request: Request) -> None:
        try:
            await Tasks(self._store, tenant, "platform").submit(request)
        except EnisleError as error:
            say("dispatcher", str(error))


async def report(guard: StoreGuard) -> None:
    """Say in the log when nothing is decided because the store may not be what it was, and when that is over."""
    said = ""
    while True:
        if guard.reason != said:
            said = guard.reason
            say("dispatcher", f"decides nothing: {said}" if said else "decides")
        await asyncio.sleep(LOOK_S)


async def run_dispatcher(places: Places, accept_store: bool = False) -> None:
    """Dispatch until cancelled. Raises EnisleError when the engine cannot be reached."""
    url = places.read_engine_url()
    places.mark.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.controller.mkdir(mode=0o700, parents=True, exist_ok=True)
    asks = Asks(places.asks("dispatcher"))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(JetStream(url, bucket=CONTROL))
        progress = await stack.enter_async_context(JetStream(url, bucket=PROGRESS))
        archive = Archive(stack.enter_context(History(places.history)), Copy(store))
        guard = StoreGuard(store, places.engine, accept_store, lambda stream: asks.ask("put-aside", stream=stream))
        # Not by its process id alone: on islands these are alike.
        name = f"{os.uname().nodename.split('.')[0]}-{os.getpid()}-{secrets.token_hex(3)}"
        dispatcher = Dispatcher(store, name, store.lease_ttl_s, archive=archive, safety=guard)
        view = View(store, progress)
        async with asyncio.TaskGroup() as group:
            group.create_task(guard.run())
            group.create_task(report(guard))
            group.create_task(dispatcher.run())
            group.create_task(view.run())
            group.create_task(Adopter(store, view, dispatcher).run())


def main(state: str, words: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m enisle.control dispatcher")
    parser.add_argument("--accept-store", action="store_true")
    asked = parser.parse_args(words)

    return run_part("dispatcher", lambda: run_dispatcher(Places(state), asked.accept_store))
