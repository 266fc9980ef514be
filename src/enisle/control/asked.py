"""The looks among the operations: what there is, and what hosts answer when they are asked. Changes nothing."""

import asyncio
import base64
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from enisle.control.shown import Json, duplicate_notes, host_json, island_json, vm_json
from enisle.errors import NotFound, StateError
from enisle.tasks import ENDED, EVERY, Lock, Questions, Resource, Silent, Task

LONGEST_WAIT_S = 20.0
SIGHT_S = 0.5
AGENT_LOOK_S = 0.25
SHORT_S, LONG_S = 0.02, 0.2
"""Between looks at a command that has nothing to wait for yet."""
MAX_READ = 512 << 10
"""Bytes of a file in one answer."""


class Picture(Protocol):
    """What is known of the store (`tasks.View`)."""

    @property
    def tasks(self) -> Mapping[str, Task]: ...
    @property
    def locks(self) -> Mapping[str, Lock]: ...
    @property
    def hosts(self) -> Mapping[str, Json]: ...
    @property
    def records(self) -> Mapping[str, Json]: ...
    @property
    def live(self) -> Mapping[str, Json]: ...
    @property
    def members(self) -> Mapping[str, Json]: ...
    @property
    def dead(self) -> Mapping[str, Json]: ...
    def elsewhere(self, identity: str) -> Mapping[str, Json]: ...


class Looking:
    """What `Operations` can tell without changing anything."""

    def __init__(
        self,
        tasks: Callable[[str, str], Any],
        view: Picture,
        questions: Questions,
        objects: Any = None,
        history: Any = None,
    ) -> None:
        self._tasks, self._view, self._questions = tasks, view, questions
        self._objects, self._history = objects, history
        self._helpers: set[asyncio.Task[None]] = set()

    # ---- islands ---------------------------------------------------------------------------------------------------

    async def islands(self, tenant: str) -> list[Json]:
        """Return a tenant's islands by name, those being made among them; of EVERY tenant, too, as all looks here."""
        names = {key.partition(".")[2] for key in (*self._view.records, *self._view.live) if key.startswith("island.")}
        found = [self._island(name) for name in names] + self._coming(names)
        return sorted((one for one in found if tenant in (one["tenant"], EVERY)), key=lambda one: one["name"])

    async def island(self, name: str, tenant: str) -> Json:
        """Raises NotFound, also for another tenant's."""
        key = f"island.{name}"
        if key in self._view.records or key in self._view.live:
            found = self._island(name)
            if tenant in (found["tenant"], EVERY):
                return found
        else:
            for one in self._coming(set()):
                if one["name"] == name and tenant in (one["tenant"], EVERY):
                    return one
        raise NotFound(f"there is no island {name}", "", "`enisle island ls`")

    def _island(self, name: str) -> Json:
        view, key = self._view, f"island.{name}"
        record, live = view.records.get(key), view.live.get(key)
        told = record or live or {}
        lock, host = view.locks.get(key), view.hosts.get(told.get("host", ""))
        shown = island_json(name, record, live, lock, host, time.time())
        if record and (elsewhere := view.elsewhere(key)):
            shown["notes"] += duplicate_notes(record, elsewhere)
        return shown

    def _coming(self, known: set[str]) -> list[Json]:
        """Return islands that are being made and are nowhere yet."""
        coming: list[Json] = []
        for task in self._view.tasks.values():
            if task.routine != "island.create@1" or task.state in ENDED:
                continue
            name = str(task.arguments.get("name"))
            if name in known or f"island.{name}" in self._view.records:
                continue
            asked: Json = {**task.arguments, "tenant": task.tenant, "host": task.host, "created": task.submitted}
            shown = island_json(name, asked | {"state": "creating"}, None, None, None, time.time())
            coming.append(shown | {"notes": [], "holder": task.id})
        return coming

    async def _ask_island(self, name: str, verb: str, arguments: Json, timeout_s: float = 8.0) -> Any:
        view, key = self._view, f"island.{name}"
        host = str((view.records.get(key) or view.live.get(key) or {}).get("host", ""))
        if not host:
            raise NotFound(f"there is no island {name}", "", "`enisle island ls`")
        return await self._ask_same_agent(host, verb, {"island": name, **arguments}, timeout_s)

    async def _ask_same_agent(self, host: str, verb: str, arguments: Json, timeout_s: float) -> Any:
        """Ask a host as long as its agent is the one that was asked: another knows nothing of the question."""
        agent = self._agent(host)
        asking = asyncio.ensure_future(self._questions.ask(host, verb, arguments, timeout_s))
        try:
            while not (await asyncio.wait([asking], timeout=AGENT_LOOK_S))[0]:
                if self._agent(host) != agent:
                    raise Silent(f"host {host} does not answer", "its agent has just begun anew", "ask again")
            return asking.result()
        finally:
            asking.cancel()

    def _agent(self, host: str) -> Any:
        return self._view.hosts.get(host, {}).get("started")

    async def logs(self, name: str, after: int = 0, tail: int = 0, wait_s: float = 0.0) -> Json:
        """Return what the island's program wrote, from piece `after` on, or its last `tail` pieces; wait for some."""
        wait_s = min(wait_s, LONGEST_WAIT_S)
        return await self._ask_island(name, "log", {"after": after, "tail": tail, "wait_s": wait_s}, wait_s + 8.0)

    async def read_file(self, name: str, path: str, offset: int = 0, limit: int = MAX_READ) -> bytes:
        """Return a part of a file, nothing when there is none there. Raises NotFound, StateError."""
        arguments = {"path": path, "offset": offset, "limit": min(limit, MAX_READ)}
        return base64.b64decode(await self._ask_island(name, "files.read", arguments))

    async def list_files(self, name: str, path: str) -> list[Json]:
        return await self._ask_island(name, "files.list", {"path": path})

    async def island_processes(self, name: str) -> list[Json]:
        return await self._ask_island(name, "processes", {})

    async def island_statistics(self, name: str) -> Json:
        return await self._ask_island(name, "statistics", {})

    # ---- output ----------------------------------------------------------------------------------------------------

    async def task_output(self, task: str, after: int = 0, wait_s: float = 0.0, tail: int = 0) -> Json:
        """Return what a task's command wrote, from piece `after` on or its last `tail` pieces; wait for some."""
        deadline, pause = time.monotonic() + min(max(0.0, wait_s), LONGEST_WAIT_S), SHORT_S
        while True:
            found = await self._task(task)
            left = max(0.0, deadline - time.monotonic())
            told = await self._output(found, after, left, tail)
            if told["chunks"] or told["ended"] or time.monotonic() >= deadline:
                return told
            # It has not begun, or has ended and its task is about to: neither takes long, most times.
            await asyncio.sleep(min(pause, max(0.01, left)))
            pause = min(LONG_S, 1.5 * pause)

    async def _task(self, identity: str) -> Task:
        """Return a task; one that was only just submitted may not be in sight yet."""
        for _ in range(round(SIGHT_S / 0.02)):
            found = self._view.tasks.get(identity) or (self._history.find(identity) if self._history else None)
            if found is not None:
                return found
            await asyncio.sleep(0.02)
        raise NotFound(f"there is no task {identity}", "", "`enisle task ls`")

    async def _output(self, task: Task, after: int, wait_s: float, tail: int) -> Json:
        nothing: Json = {"chunks": [], "next": after, "ended": task.state in ENDED, "truncated": False}
        if task.routine != "island.exec@1" or not task.host or not task.attempt:
            return nothing
        question = {"task": task.id, "after": after, "wait_s": wait_s, "tail": tail}
        try:
            told = await self._ask_island(str(task.arguments["island"]), "output", question, wait_s + 5.0)
        except NotFound:
            # It has not begun; or its island is gone, and the task's result is all that is left.
            return kept_output(task, after) if task.state in ENDED else nothing
        except StateError:
            if task.state in ENDED:
                return kept_output(task, after)
            raise
        return told | {"ended": bool(told["ended"]) and (bool(told["chunks"]) or task.state in ENDED)}

    # ---- machines --------------------------------------------------------------------------------------------------

    async def vms(self, tenant: str = "default") -> list[Json]:
        keys = {key for key in (*self._view.records, *self._view.live) if key.startswith("vm.")}
        found = [self._vm(key.partition(".")[2]) for key in sorted(keys)]
        return [one for one in found if tenant in (one["tenant"], EVERY)]

    async def vm(self, name: str, tenant: str = "default") -> Json:
        key = f"vm.{name}"
        if key in self._view.records or key in self._view.live:
            found = self._vm(name)
            if tenant in (found["tenant"], EVERY):
                return found
        raise NotFound(f"there is no machine {name}", "", "`enisle --context NAME vm ls`")

    def _vm(self, name: str) -> Json:
        view, key = self._view, f"vm.{name}"
        record, live = view.records.get(key), view.live.get(key)
        told = record or live or {}
        return vm_json(name, record, live, view.locks.get(key), view.hosts.get(told.get("host", "")), time.time())

    # ---- what a task may hold ----------------------------------------------------------------------------------------

    async def require_own(self, resources: Iterable[Resource], tenant: str) -> None:
        """Raises NotFound when one is an island or a machine of another tenant: it could be kept from its owner."""
        looks = {"island": self._island, "vm": self._vm}
        for one in resources:
            there = one.name in self._view.records or one.name in self._view.live
            if there and one.kind in looks and looks[one.kind](one.id)["tenant"] != tenant:
                raise NotFound(f"there is no {one.kind} {one.id}", "", f"`enisle {one.kind} ls`")

    # ---- hosts -----------------------------------------------------------------------------------------------------

    async def hosts(self) -> list[Json]:
        """Return every host that is known: it has its lease, it had one and was not removed, or a record names it."""
        view = self._view
        named = {str(one["host"]) for one in view.records.values() if one.get("host")}
        return [self._host(name) for name in sorted({*view.hosts, *view.members, *named})]

    async def host(self, name: str) -> Json:
        view = self._view
        if name in view.hosts or name in view.members or any(one.get("host") == name for one in view.records.values()):
            return self._host(name)
        raise NotFound(f"there is no host {name}", "", "`enisle host ls`")

    def _host(self, name: str) -> Json:
        view = self._view
        counts = {"task": sum(task.host == name and task.state == "running" for task in view.tasks.values())}
        for kind in ("island", "vm"):
            here = [one for key, one in view.records.items() if key.startswith(f"{kind}.") and one.get("host") == name]
            counts[kind] = len(here)
        return host_json(name, view.hosts.get(name), view.members.get(name), view.dead.get(name), counts)


def kept_output(task: Task, after: int) -> Json:
    """Return the beginning of a command's output, as its result has it."""
    result: Json = task.result if isinstance(task.result, dict) else {}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    chunks: list[Json] = []
    for number, stream in enumerate(("stdout", "stderr")):
        text = str(result.get(stream) or "")
        if text:
            data = base64.b64encode(text.encode()).decode()
            chunks.append({"n": number, "stream": stream, "data": data, "time": task.finished})
    kept = [chunk for chunk in chunks if chunk["n"] >= after]
    return {"chunks": kept, "next": 2, "ended": True, "truncated": bool(result.get("truncated"))}
