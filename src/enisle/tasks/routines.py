"""Routines: what a task can do, by name and version, and the context a routine runs in.

A routine is a coroutine function of its context. It works in named steps; a step that was done in this attempt is not
done again after the agent's death, one that was only begun is, so a step must bear being repeated or look first.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from enisle.errors import EnisleError, InvalidRequest, NotFound
from enisle.tasks.names import require_routine
from enisle.tasks.records import Resource
from enisle.tasks.store import Value

Step = Callable[[], Awaitable[Any]]


class Temporary(EnisleError):
    """A failure that another attempt may not meet: the task is tried again when its retries allow."""


class Context(Protocol):
    """What a routine may use. Owned by the agent's event loop.

    `records` of what it holds, by `kind.id`, as they were when it began; `fenced`: what runs for it must end at once.
    """

    task: str
    attempt: int
    token: int
    host: str
    arguments: dict[str, Any]
    resources: tuple[Resource, ...]
    records: dict[str, Value]
    tenant: str
    actor: str
    deadline: float
    fenced: bool

    async def step(self, name: str, action: Step) -> Any:
        """Do a step once per attempt and return its result (JSON). Raises asyncio.CancelledError when fenced."""
        ...

    def progress(self, fraction: float, phase: str = "") -> None:
        """Say how far it is: 0 to 1, never back; sent at most ten times a second."""
        ...

    def on_cancel(self, compensation: Step) -> None:
        """Register what undoes the work so far; run in reverse order when the task is cancelled."""
        ...

    def put_record(self, kind: str, id: str, value: Value | None) -> None:
        """Change the record of what it holds exclusively, None: remove; all see it when the task has ended.

        Raises StateError for what it does not hold, InvalidRequest for what is not JSON of at most 64 KiB.
        """
        ...


Body = Callable[[Context], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Routine:
    """A named version of something to do. `parameters`: name → (type, needed)."""

    name: str
    body: Body
    parameters: dict[str, tuple[type, bool]]

    def check(self, arguments: object) -> dict[str, Any]:
        """Return valid arguments. Raises InvalidRequest naming what is wrong."""
        if not isinstance(arguments, dict):
            raise InvalidRequest(f"{self.name} takes named arguments", f"not {type(arguments).__name__}", self.usage)
        given: dict[str, Any] = arguments  # pyright: ignore[reportUnknownVariableType]
        for name in given:
            if name not in self.parameters:
                raise InvalidRequest(f"{self.name} has no argument {name!r}", "", self.usage)
        for name, (kind, needed) in self.parameters.items():
            if name not in given:
                if needed:
                    raise InvalidRequest(f"{self.name} needs the argument {name!r}", "", self.usage)
            elif not _fits(given[name], kind):
                raise InvalidRequest(
                    f"{name!r} of {self.name} must be {kind.__name__}", f"not {given[name]!r:.60}", self.usage
                )
        return given

    @property
    def usage(self) -> str:
        words = [
            f"{name}: {kind.__name__}" + ("" if needed else "?") for name, (kind, needed) in self.parameters.items()
        ]
        return f"{self.name}({', '.join(words)})"


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    # JSON knows one kind of numbers: whoever means 1.0 may have written 1.
    return isinstance(value, (int, float) if kind is float else kind)


class Routines:
    """The routines a host knows."""

    def __init__(self) -> None:
        self._known: dict[str, Routine] = {}

    def add(self, name: str, body: Body, /, **parameters: type | tuple[type, bool]) -> None:
        assert inspect.iscoroutinefunction(body), name
        table = {key: kind if isinstance(kind, tuple) else (kind, True) for key, kind in parameters.items()}
        self._known[require_routine(name)] = Routine(name, body, table)

    def get(self, name: str) -> Routine:
        """Raises NotFound, InvalidRequest for what cannot be a name."""
        found = self._known.get(require_routine(name))
        if found is None:
            others = sorted(one for one in self._known if one.split("@")[0] == name.split("@")[0])
            raise NotFound(
                f"there is no routine {name}",
                f"there is {', '.join(others)}" if others else "",
                "`enisle task routines`",
            )
        return found

    def names(self) -> list[str]:
        return sorted(self._known)


def example_routines() -> Routines:
    """Return what every host can do for a test of the platform itself."""
    routines = Routines()

    async def sleep(context: Context) -> float:
        seconds = context.arguments["seconds"]
        parts = max(1, min(100, round(seconds * 10)))
        for number in range(parts):
            await context.step(f"part {number}", lambda: asyncio.sleep(seconds / parts))
            context.progress((number + 1) / parts, "sleeping")
        return seconds

    routines.add("platform.sleep@1", sleep, seconds=float)
    return routines
