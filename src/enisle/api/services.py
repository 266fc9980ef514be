"""What the app stands on, as protocols: the rooms below offer these, tests put smaller ones in their place."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from enisle.api.auth import Guard
from enisle.api.measures import Measures
from enisle.api.tokens import TokenBook
from enisle.tasks import LaneFigures, Lock, Outcome, Request, Task

Json = dict[str, Any]
log = logging.getLogger("enisle.api")


class News(Protocol):
    """One change that a view tells; `value` None: gone."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def revision(self) -> int: ...


class Subscription(Protocol):
    """What is new since it was last asked: only the latest of every key, so it is bounded by their number."""

    async def news(self) -> list[Any]: ...


class Viewing(Protocol):
    """A picture of the store that follows it (`tasks.View`)."""

    @property
    def revision(self) -> int: ...
    @property
    def epoch(self) -> str: ...
    @property
    def tasks(self) -> Mapping[str, Task]: ...
    @property
    def locks(self) -> Mapping[str, Lock]: ...
    @property
    def hosts(self) -> Mapping[str, Json]: ...
    @property
    def records(self) -> Mapping[str, Json]: ...
    @property
    def progress(self) -> Mapping[str, Json]: ...
    @property
    def audits(self) -> Mapping[str, Json]: ...

    def subscribe(self, since: int | None = None) -> AbstractAsyncContextManager[Subscription]: ...


class TaskClient(Protocol):
    """The tasks of one tenant (`tasks.Tasks`)."""

    async def submit(self, request: Request) -> Task: ...
    async def get(self, task: str) -> Task: ...
    async def cancel(self, task: str, why: str) -> Task: ...
    async def retry(self, task: str) -> Task: ...
    async def unlock(self, kind: str, id: str, reason: str) -> Any: ...
    async def declare_dead(self, host: str, reason: str) -> Any: ...
    async def drain(self, host: str, reason: str, on: bool = True) -> Any: ...
    async def forget_host(self, host: str, silenced: bool) -> None: ...
    def follow(self, task: str) -> AsyncIterator[Task]: ...


class Calling(Protocol):
    """Short programs on whichever host is free (`control.Calls`)."""

    async def run(
        self, arguments: Json, tenant: str, key: str = "", wait_s: float = 0
    ) -> tuple[str, Outcome | None]: ...
    async def wait(self, call: str, tenant: str, wait_s: float = 0) -> Outcome | None: ...
    async def figures(self) -> LaneFigures: ...


class Historic(Protocol):
    """Ended tasks that left the store (`tasks.History`)."""

    def find(self, id: str) -> Task | None: ...
    def list(
        self, tenant: str, state: str = "", resource: str = "", routine: str = "", before: float = 0, limit: int = 50
    ) -> Sequence[Task]: ...
    @property
    def audit(self) -> Callable[..., Sequence[Json]]: ...
    @property
    def submitted(self) -> Callable[..., Sequence[Json]]: ...


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the platform works; `safe_mode`: why nothing may be changed until its operator agrees."""

    reasons: tuple[str, ...] = ()
    safe_mode: str = ""

    @property
    def ok(self) -> bool:
        return not self.reasons and not self.safe_mode


@dataclass(frozen=True, slots=True)
class Services:
    """Everything an app needs. `closing` is set when the process is about to end: streams end by themselves then."""

    tasks: Callable[[str, str], TaskClient]
    """(tenant, actor) → its tasks."""
    view: Viewing
    operations: Any
    """`control.Operations`: islands, machines, hosts, output."""
    calls: Calling
    book: TokenBook
    guard: Guard
    history: Historic
    routines: Callable[[], list[Json]]
    """What can be run: {"name", "usage", "parameters"}."""
    health: Callable[[], Awaitable[Health]]
    safe_mode: Callable[[], str]
    """Why the store is not trusted, at once; empty: it is."""
    admit_host: Callable[[str, str], Awaitable[Json]]
    """(name, public key) → what the host needs to reach the engine."""
    expel_host: Callable[[str], Awaitable[None]]
    island_spec: Callable[..., Any]
    """What makes a request for an island or a machine out of named fields."""
    vm_spec: Callable[..., Any]
    state: Path
    check_arguments: Callable[[str, Json], object] = lambda routine, arguments: None
    """Raises InvalidRequest for arguments that a routine does not take."""
    console: Path | None = None
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    lost: list[BaseException | None] = field(default_factory=list[BaseException | None])
    """Why the store could no longer be followed; then the process ends."""
    measures: Measures = field(default_factory=Measures)

    def depend_on(self, following: "asyncio.Task[None]") -> None:
        """End the process when this task does: a new one does better than guesses about the store."""

        def mourn(ended: "asyncio.Task[None]") -> None:
            if not ended.cancelled() and not self.closing.is_set():
                log.critical("this process no longer follows the store", exc_info=ended.exception())
                self.lost.append(ended.exception())
                self.closing.set()

        following.add_done_callback(mourn)
