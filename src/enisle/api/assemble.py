"""The real services of an app: the engine's stores, the view on them, the operations of `control`.

Everything lives as long as the context; what only the first use shows to be broken is told by `Health`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from enisle.api.auth import Guard
from enisle.api.services import Health, Json, Services
from enisle.api.tokens import TokenBook, local_token
from enisle.control import Asks, Calls, IslandSpec, Operations, Places, VmSpec, host_routines
from enisle.errors import HostError, NotFound, StateError
from enisle.tasks import (
    CHECKING,
    CONTROL,
    OBJECTS,
    PROGRESS,
    FastLane,
    History,
    JetStream,
    Objects,
    Questions,
    Safety,
    Store,
    Tasks,
    Unavailable,
    View,
    check_store,
    is_own,
    require_public,
)

CONSOLE = Path(__file__).parent / "console"
LEASE = "lease.dispatcher"
ANSWERS_S = 2.0
READY_S = 30.0
FRESH_S = 1.0
"""A verdict on the platform's health is asked for again after this time."""
BEHIND_S = 4.0
"""How long a view may not have seen what the engine's leader already had."""


class Doctor:
    """Finds out whether the platform works; asked often, it looks once a second."""

    def __init__(self, store: Store, view: View, safety: Safety) -> None:
        self._store, self._view, self._safety = store, view, safety
        self._verdict, self._looked_at = Health(), 0.0
        self._looking = asyncio.Lock()
        self._known: list[tuple[float, int]] = []

    async def look(self) -> Health:
        async with self._looking:
            if time.monotonic() - self._looked_at > FRESH_S:
                reasons = await self._reasons()
                self._verdict, self._looked_at = Health(tuple(reasons), self.safe_mode()), time.monotonic()
            return self._verdict

    def safe_mode(self) -> str:
        reason = self._safety.reason
        return "" if reason == CHECKING else reason  # that is for a moment after the engine's start

    async def _reasons(self) -> list[str]:
        try:
            async with asyncio.timeout(ANSWERS_S):
                lease = await self._store.get_leader(LEASE)
        except (TimeoutError, Unavailable):
            return ["the engine does not answer"]
        reasons = [] if lease.value else ["no dispatcher leads: tasks are kept, and wait"]
        reasons += [CHECKING] if self._safety.reason == CHECKING else []
        return reasons + self._behind(lease.revision)

    def _behind(self, revision: int) -> list[str]:
        """The dispatcher renews its lease, so the view must learn of something newer all the time."""
        now = time.monotonic()
        self._known = [(then, seen) for then, seen in self._known if seen > self._view.revision]
        if revision > self._view.revision:
            self._known.append((now, revision))
        if self._known and now - self._known[0][0] > BEHIND_S:
            return [f"the view is behind: it has revision {self._view.revision}, the engine {revision}"]
        return []


@asynccontextmanager
async def assembled(places: Places, names: tuple[str, ...] = ()) -> AsyncGenerator[Services, None]:
    """Raises HostError, StateError when the engine is not there."""
    url = places.read_engine_url()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(JetStream(url, bucket=CONTROL))
        progress = await stack.enter_async_context(JetStream(url, bucket=PROGRESS))
        objects = Objects(await stack.enter_async_context(JetStream(url, bucket=OBJECTS)))
        lane = await stack.enter_async_context(FastLane(store))
        questions = await stack.enter_async_context(Questions(url))
        history = stack.enter_context(History(places.history, writable=False))
        view = View(store, progress)
        safety = await check_store(store, places.engine)
        doctor = Doctor(store, view, safety)
        asks = Asks(places.asks("api"))
        book = TokenBook(store, await asyncio.to_thread(local_token, places.token))

        def tasks(tenant: str, actor: str) -> Tasks:
            return Tasks(store, tenant, actor, history, view)

        following = asyncio.create_task(view.run())
        stack.push_async_callback(_end, following)
        await _wait_until_ready(view, following)
        services = Services(
            tasks=tasks,
            view=view,
            operations=Operations(tasks, view, questions, objects, history),
            calls=Calls(lane),
            book=book,
            guard=Guard(book, names),
            history=history,
            routines=_known_routines(),
            check_arguments=lambda routine, arguments: host_routines().get(routine).check(arguments),
            health=doctor.look,
            safe_mode=doctor.safe_mode,
            admit_host=lambda name, key: _admit(asks if is_own(url) else None, name, key),
            expel_host=lambda name: _expel(asks if is_own(url) else None, name),
            island_spec=IslandSpec,
            vm_spec=VmSpec,
            state=places.directory,
            console=CONSOLE,
        )
        services.depend_on(following)
        yield services


async def _wait_until_ready(view: View, following: "asyncio.Task[None]") -> None:
    """Raises what ended the view, HostError when it takes too long."""
    ready = asyncio.ensure_future(view.ready())
    try:
        await asyncio.wait([ready, following], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        if not ready.done():
            raise HostError("the engine does not tell what it holds", f"not within {READY_S:g} s", "see its log")
    finally:
        ready.cancel()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


async def _admit(asks: Asks | None, name: str, key: str) -> Json:
    """Let a host in; return what it needs to reach the engine. Raises StateError where that is its operator's."""
    require_public(key)
    if asks is None:
        why = "the platform's engine is a cluster of yours: who may come in there is yours to say"
        hint = f"`enisle host permissions {name}={key}` for its servers, then `enisle join --nats URL --name {name}`"
        raise StateError(f"the platform cannot let host {name} in", why, hint)
    return await asks.ask("admit", host=name, key=key) | {"host": name}


async def _expel(asks: Asks | None, name: str) -> None:
    if asks is None:
        raise NotFound(f"the platform gave host {name} no key", "its engine is a cluster of yours", "")
    await asks.ask("expel", host=name)


def _known_routines() -> Callable[[], list[Json]]:
    routines: Any = host_routines()
    told: list[Json] = []
    for name in routines.names():
        one = routines.get(name)
        parameters = {key: {"type": kind.__name__, "needed": needed} for key, (kind, needed) in one.parameters.items()}
        told.append({"name": name, "usage": one.usage, "parameters": parameters})
    return lambda: told
