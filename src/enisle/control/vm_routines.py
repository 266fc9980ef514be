"""What tasks do to full Linux machines, on the host that has them.

Machines have guardians of their own, which outlive the agent; what the platform runs is marked in a directory, so that
a new agent knows its own. The work is done by `vm_work`, in a process that may be killed.
"""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from enisle.control.commands import read_json, write_json
from enisle.control.hosting import Hosting
from enisle.control.images import vm_configuration
from enisle.control.island_routines import held
from enisle.control.wire import Json, raised
from enisle.errors import HostError, InvalidRequest, NotFound, StateError
from enisle.tasks import EXCLUSIVE, Context, Routines

LONGEST_S = 600.0
LOOK_S = 2.0


async def work(action: str, **words: Any) -> Any:
    """Have one thing done to a machine in a process of its own. Raises what it raised."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "enisle.control", "vm"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LONGEST_S):
            answer, words_of_error = await process.communicate(json.dumps({"action": action, **words}).encode())
    except TimeoutError:
        raise HostError("the machine's host does not get done", f"{action} took {LONGEST_S:g} s", "") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        told: Json = json.loads(answer)
    except ValueError:
        raise HostError("the machine's host could not do it", words_of_error.decode(errors="replace")[-500:]) from None
    if "error" in told:
        raise raised(told["error"])
    return told["ok"]


def _statuses(names: list[str]) -> Json:
    from enisle.control.vm_work import status

    return status({"names": names})


class VmRoutines:
    """The routines `vm.*` and `introspect.look` of one host, and the telling of how its machines are."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    @property
    def _marks(self) -> Path:
        return self._hosting.places.host(self._hosting.host) / "vms"

    def add_to(self, routines: Routines) -> None:
        routines.add("vm.run@1", self.run, name=str, configuration=dict)
        routines.add("vm.stop@1", self.stop, vm=str, timeout_s=(float, False))
        for name, body in (("pause", self.pause), ("resume", self.resume)):
            routines.add(f"vm.{name}@1", body, vm=str)
        routines.add("vm.remove@1", self.remove, vm=str, force=(bool, False))
        routines.add("introspect.look@1", self.look, vm=str, view=str)

    def _mark(self, name: str) -> Path:
        return self._marks / f"{name}.json"

    # ---- routines --------------------------------------------------------------------------------------------------

    async def run(self, context: Context) -> Json:
        name = held(context, "vm", context.arguments["name"], EXCLUSIVE)
        if f"vm.{name}" in context.records:
            raise StateError(f"there is a machine {name} already", "a name is one machine's", "choose another")
        configuration: Json = context.arguments["configuration"]
        images = self._hosting.places.images(self._hosting.host, context.tenant)
        made_of = await asyncio.to_thread(vm_configuration, configuration, context.tenant, images)
        told: Json = {"name": name, "tenant": context.tenant, "configuration": configuration, "task": context.task}
        told |= {"created": time.time(), "host": context.host}
        context.on_cancel(lambda: self._discard(name))
        context.progress(0.05, "starting the machine")
        found: Json = await context.step("run", lambda: self._start(name, told, made_of))
        self._record(context, name, told, found)
        return {
            "name": name,
            "host": context.host,
            "accelerator": found["accelerator"],
            "notes": found.get("notes", []),
        }

    async def _start(self, name: str, told: Json, made_of: Json) -> Json:
        mark = read_json(str(self._mark(name)))
        if (mark or {}).get("task") != told["task"] and (await work("status", names=[name]))[name] is not None:
            raise StateError(f"there is a machine {name} on this host", "it is not the platform's", "`enisle vm ps`")
        self._marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not write_json(str(self._mark(name)), told):
            raise HostError(f"cannot write to {self._marks}", "its disk takes no more", "make room on that disk")
        try:
            found: Json = await work("run", name=name, configuration=made_of)
        except Exception:
            self._mark(name).unlink(missing_ok=True)
            raise
        await self._tell(name, found)
        return found

    async def _discard(self, name: str) -> None:
        if self._mark(name).exists():
            await work("remove", name=name, force=True, timeout_s=0.0)
            await self._forget(name)

    def _record(self, context: Context, name: str, told: Json, found: Json) -> None:
        record: Json = {key: told.get(key) for key in ("name", "tenant", "configuration", "created")}
        known: Json = {key: found.get(key) for key in ("state", "accelerator", "memory", "processors", "kernel")}
        context.put_record("vm", name, record | known | {"host": context.host, "notes": found.get("notes", [])})

    async def stop(self, context: Context) -> Json:
        timeout_s = float(context.arguments.get("timeout_s", 10.0))
        if not 0 <= timeout_s <= LONGEST_S / 2:
            raise InvalidRequest(f"a machine cannot be given {timeout_s:g} seconds", "0 to 300", "10")
        return await self._change(context, "stop", "asking the machine to end", timeout_s=timeout_s)

    async def pause(self, context: Context) -> Json:
        return await self._change(context, "pause", "pausing the machine")

    async def resume(self, context: Context) -> Json:
        return await self._change(context, "resume", "resuming the machine")

    async def _change(self, context: Context, action: str, phase: str, **more: Any) -> Json:
        name = held(context, "vm", context.arguments["vm"], EXCLUSIVE)
        mark = self._require(name, context)
        context.progress(0.1, phase)
        found: Json = await context.step(action, lambda: work(action, name=name, **more))
        record = {**mark, **context.records.get(f"vm.{name}", {}), **found}
        self._record(context, name, record, record)
        await self._tell(name, record)
        return {"name": name, "state": found["state"], "reason": found.get("reason", "")}

    async def remove(self, context: Context) -> Json:
        name = held(context, "vm", context.arguments["vm"], EXCLUSIVE)
        force = bool(context.arguments.get("force"))
        context.progress(0.1, "removing the machine")
        if self._mark(name).exists():  # a machine of that name that is not the platform's stays
            self._require(name, context)
            await context.step("remove", lambda: work("remove", name=name, force=force))
        await self._forget(name)
        context.put_record("vm", name, None)
        return {"name": name}

    async def look(self, context: Context) -> Json:
        name = held(context, "vm", context.arguments["vm"])
        self._require(name, context)
        context.progress(0.0, f"looking: {context.arguments['view'][:40]}")
        return await work("look", name=name, view=context.arguments["view"])

    def _require(self, name: str, context: Context) -> Json:
        """Return what is known here of a machine: whose it is, too, whatever became of its record."""
        mark = read_json(str(self._mark(name)))
        if mark is None or mark.get("tenant", "default") != context.tenant:
            raise NotFound(f"there is no machine {name} on this host", "", "`enisle --context NAME vm ls`")
        return mark

    # ---- telling ---------------------------------------------------------------------------------------------------

    async def _tell(self, name: str, found: Json) -> None:
        mark = read_json(str(self._mark(name))) or {}
        known = ("state", "accelerator", "memory", "processors", "kernel", "reason")
        told: Json = {key: found.get(key) for key in known} | {"host": self._hosting.host}
        told |= {key: mark.get(key) for key in ("tenant", "configuration", "created") if key in mark}
        await self._hosting.board.put("vm", name, told | {"started": time.time() - float(found.get("seconds") or 0)})

    async def _forget(self, name: str) -> None:
        self._mark(name).unlink(missing_ok=True)
        await self._hosting.board.put("vm", name, None)

    async def run_telling(self) -> None:
        """Tell how the marked machines are, for ever."""
        last: dict[str, Any] = {}
        while True:
            names = sorted(path.stem for path in self._marks.glob("*.json")) if self._marks.is_dir() else []
            if names:
                with contextlib.suppress(Exception):  # told again in two seconds
                    found: Json = await asyncio.to_thread(_statuses, names)
                    for name, told in found.items():
                        state = told or {"state": "lost", "reason": "nothing of it is on its host"}
                        key = {**state, "seconds": 0}
                        if last.get(name) != key:
                            await self._tell(name, state)
                            last[name] = key
            await asyncio.sleep(LOOK_S)
