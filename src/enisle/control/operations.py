"""What the platform can be asked to do with islands, machines and hosts: each change a task, each look an answer.

Joins what was asked for with what hosts say; knows which resources an operation holds, and how. Raises InvalidRequest
for what can never be, NotFound for what is not there or another tenant's, StateError for the wrong moment. One event
loop owns it.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Sequence
from typing import Any

from enisle.control.asked import Looking
from enisle.control.shown import Json
from enisle.control.specs import (
    IslandSpec,
    VmSpec,
    check_command,
    check_environment,
    check_interaction,
    check_island,
    check_vm,
)
from enisle.errors import EnisleError, HostError, InvalidRequest, NotFound, StateError
from enisle.tasks import ENDED, EXCLUSIVE, PINNED, RETRYABLE, SHARED, WAIT, Request, Resource, Silent, Task, task_id

EXEC = "island.exec@1"
INLINE = 30 << 10
"""Bytes that travel in a task's arguments; more goes by way of the object store."""
MAX_CONTENT = 16 << 20
MAX_TIMEOUT_S = 30 * 86400.0
BEGINNING_S = 2.0
"""How long input waits for a command that was only just asked for."""
CANCELLING_S = 30.0
VIEWS = ("facts", "ps", "lsmod", "syscalls", "idt", "msr", "creds", "locks", "maps", "wx", "hashes", "check")


class Operations(Looking):
    """`Operations(tasks, view, questions, objects, history)`; `tasks(tenant, actor)` gives the tasks of one tenant."""

    # ---- islands ---------------------------------------------------------------------------------------------------

    async def create_island(self, spec: IslandSpec, tenant: str, actor: str, key: str = "") -> Task:
        """Make an island and start its program, if it has one."""
        check_island(spec, tenant)
        name = spec.name or f"island-{task_id(tenant, key)[:6]}" if key else spec.named()
        if not key and f"island.{name}" in self._view.records:
            raise StateError(f"there is an island {name} already", "a name is one island's", "choose another")
        arguments = {"name": name, "configuration": spec.configuration(), "program": list(spec.program)}
        placement = PINNED if spec.host else RETRYABLE
        request = Request(
            "island.create@1", arguments, (Resource("island", name),), host=spec.host, placement=placement, key=key
        )
        return await self._tasks(tenant, actor).submit(request)

    async def exec_island(
        self,
        name: str,
        argv: list[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str = "",
        stdin: bytes = b"",
        timeout_s: float = 0.0,
        input: str = "",
        terminal: Sequence[int] = (),
        tenant: str,
        actor: str,
        key: str = "",
        if_blocked: str = WAIT,
    ) -> Task:
        """Run a command on an island; several may run on it at once.

        `input` "open": more comes by `task_input`. `terminal`: (rows, columns) of one of its own.
        """
        await self.island(name, tenant)
        arguments: Json = {"island": name, "argv": check_command(argv)}
        if env:
            arguments["env"] = check_environment(env)
        if cwd:
            if not cwd.startswith("/"):
                raise InvalidRequest(f"the working directory {cwd!r} is not absolute", "it is a path of the island", "")
            arguments["cwd"] = cwd
        if timeout_s:
            if not 0 < timeout_s <= MAX_TIMEOUT_S:
                raise InvalidRequest(f"a command cannot have {timeout_s} seconds", f"at most {MAX_TIMEOUT_S:g}", "")
            arguments["timeout_s"] = float(timeout_s)
        given = check_interaction(input, list(terminal), bool(stdin))
        arguments |= {word: value for word, value in given.items() if value}
        if stdin:
            arguments["stdin"] = await self._carried(stdin, "the input")
        held = (Resource("island", name, SHARED),)
        return await self._tasks(tenant, actor).submit(Request(EXEC, arguments, held, if_blocked=if_blocked, key=key))

    async def task_input(self, task: str, writer: str, offset: int, content: bytes, end: bool = False) -> Json:
        """Give a command that runs a writer's bytes from `offset` on, `end`: the last; return {"next", "later"}.

        Asked again after an answer was lost, nothing is doubled (`control.typed`). Raises StateError when it takes no
        more, HostError while its host is away.
        """
        data = base64.b64encode(content).decode()
        asked: Json = {"writer": writer, "offset": offset, "data": data, "end": end}
        told = await self._tell_command(task, asked)
        return told if told is not None else {"next": offset, "later": True}

    async def resize_terminal(self, task: str, rows: int, columns: int) -> None:
        """Change the size of the terminal of a command that runs. Raises StateError, HostError."""
        check_interaction("", [rows, columns], False)
        if await self._tell_command(task, {"resize": [rows, columns]}) is None:
            raise StateError("the command has no terminal", "it has not begun", "ask again")

    async def _tell_command(self, identity: str, asked: Json) -> Json | None:
        """Return what the host of a running command answers, None when the command has not begun yet."""
        deadline = asyncio.get_running_loop().time() + BEGINNING_S
        while (told := await self._tell_begun(identity, asked)) is None:
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(0.02)
        return told

    async def _tell_begun(self, identity: str, asked: Json) -> Json | None:
        task = await self._task(identity)
        if task.routine != EXEC:
            raise StateError(f"task {identity} takes no input", f"{task.routine} is no command", "")
        if task.state in ENDED:
            raise StateError(f"the command of task {identity} takes no input", f"it is {task.state}", "")
        if not task.attempt:
            return None
        try:
            return await self._ask_island(str(task.arguments["island"]), "input", {"task": identity, **asked})
        except NotFound:
            return None
        except Silent as silent:
            raise HostError(silent.message, silent.why, "it is asked again when its agent is back") from None

    async def _carried(self, content: bytes, what: str) -> Json:
        """Return how bytes travel with a task."""
        if len(content) > MAX_CONTENT:
            raise InvalidRequest(f"{what} is too large", f"{len(content)} bytes, at most {MAX_CONTENT}", "mount a file")
        if len(content) <= INLINE:
            return {"base64": base64.b64encode(content).decode()}
        return await self._objects.put(content)

    async def start_island(self, name: str, *, tenant: str, actor: str, key: str = "", if_blocked: str = WAIT) -> Task:
        """Start an island that has stopped or exited, afresh."""
        return await self._on_island("island.start@1", name, {}, tenant, actor, key, if_blocked)

    async def stop_island(self, name: str, *, tenant: str, actor: str, key: str = "", if_blocked: str = WAIT) -> Task:
        """Stop an island; commands that run on it are cancelled first."""
        task = await self._on_island("island.stop@1", name, {}, tenant, actor, key, if_blocked)
        await self._cancel_commands(name, task, tenant, actor, f"the island {name} is being stopped")
        return task

    async def remove_island(
        self, name: str, force: bool = False, *, tenant: str, actor: str, key: str = "", if_blocked: str = WAIT
    ) -> Task:
        """Remove an island; one that runs only with `force`, commands and all."""
        found = await self.island(name, tenant)
        if found["state"] == "running" and not force:
            raise StateError(f"the island {name} is running", "", "stop it first, or force it")
        task = await self._on_island("island.remove@1", name, {"force": force}, tenant, actor, key, if_blocked)
        if force:
            await self._cancel_commands(name, task, tenant, actor, f"the island {name} is being removed")
        return task

    async def write_file(
        self,
        name: str,
        path: str,
        content: bytes,
        mode: int | None = None,
        *,
        tenant: str,
        actor: str,
        key: str = "",
        if_blocked: str = WAIT,
    ) -> Task:
        """Make `content` the whole of a file of an island."""
        arguments: Json = {"path": path, "content": await self._carried(content, "the file")}
        if mode is not None:
            arguments["mode"] = mode
        return await self._on_island("island.write@1", name, arguments, tenant, actor, key, if_blocked, SHARED)

    async def _on_island(
        self,
        routine: str,
        name: str,
        more: Json,
        tenant: str,
        actor: str,
        key: str,
        if_blocked: str,
        mode: str = EXCLUSIVE,
    ) -> Task:
        found = await self.island(name, tenant)
        recorded = f"island.{name}" in self._view.records
        # One without a record is where it was found; the others' records say where they are.
        request = Request(
            routine,
            {"island": name, **more},
            (Resource("island", name, mode),),
            host="" if recorded else found["host"],
            placement=RETRYABLE if recorded else PINNED,
            if_blocked=if_blocked,
            key=key,
        )
        return await self._tasks(tenant, actor).submit(request)

    async def _cancel_commands(self, name: str, task: Task, tenant: str, actor: str, why: str) -> None:
        """Cancel what shares the island, now and as long as `task` waits for it: some may have begun just now."""
        await self._cancel_holders(name, tenant, actor, why, set())
        helper = asyncio.create_task(self._cancel_later(name, task, tenant, actor, why))
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)

    async def _cancel_later(self, name: str, task: Task, tenant: str, actor: str, why: str) -> None:
        asked: set[str] = set()
        for _ in range(round(CANCELLING_S / 0.2)):
            await asyncio.sleep(0.2)
            seen = self._view.tasks.get(task.id)
            if seen is not None and (seen.started or seen.finished):
                return
            await self._cancel_holders(name, tenant, actor, why, asked)

    async def _cancel_holders(self, name: str, tenant: str, actor: str, why: str, asked: set[str]) -> None:
        lock = self._view.locks.get(f"island.{name}")
        for holder in lock.holders if lock and lock.mode == SHARED else ():
            if holder not in asked:
                asked.add(holder)
                with contextlib.suppress(EnisleError):  # it has just ended
                    await self._tasks(tenant, actor).cancel(holder, why)

    # ---- machines --------------------------------------------------------------------------------------------------

    async def run_vm(self, spec: VmSpec, *, tenant: str, actor: str, key: str = "") -> Task:
        """Boot a full Linux machine."""
        check_vm(spec, tenant)
        name = spec.name or (f"vm-{task_id(tenant, key)[:6]}" if key else spec.named())
        request = Request(
            "vm.run@1",
            {"name": name, "configuration": spec.configuration()},
            (Resource("vm", name),),
            host=spec.host,
            placement=PINNED if spec.host else RETRYABLE,
            key=key,
        )
        return await self._tasks(tenant, actor).submit(request)

    async def stop_vm(self, name: str, timeout_s: float = 10.0, **asked: Any) -> Task:
        return await self._on_vm("vm.stop@1", name, {"timeout_s": float(timeout_s)}, **asked)

    async def pause_vm(self, name: str, **asked: Any) -> Task:
        return await self._on_vm("vm.pause@1", name, {}, **asked)

    async def resume_vm(self, name: str, **asked: Any) -> Task:
        return await self._on_vm("vm.resume@1", name, {}, **asked)

    async def remove_vm(self, name: str, force: bool = False, **asked: Any) -> Task:
        """Forget a machine; one that runs only with `force`."""
        return await self._on_vm("vm.remove@1", name, {"force": force}, **asked)

    async def introspect_vm(self, name: str, view: str, **asked: Any) -> Task:
        """Look into a machine's kernel from outside; the task's result has the rows."""
        await self.vm(name, asked["tenant"])
        if view not in VIEWS:
            raise InvalidRequest(f"there is no view {view!r:.60}", f"views: {', '.join(VIEWS)}", "")
        return await self._on_vm("introspect.look@1", name, {"view": view}, **asked)

    async def whole(self, result: Any) -> Any:
        """Return a task's result; one that is large was kept as an object. Raises NotFound when that is gone."""
        if isinstance(result, dict) and set(result) == {"object", "size"}:  # pyright: ignore[reportUnknownArgumentType]
            return json.loads(await self._objects.get(result))  # pyright: ignore[reportUnknownArgumentType]
        return result  # pyright: ignore[reportUnknownVariableType]

    async def _on_vm(self, routine: str, name: str, more: Json, *, tenant: str, actor: str, key: str = "") -> Task:
        found = await self.vm(name, tenant)
        recorded = f"vm.{name}" in self._view.records
        request = Request(
            routine,
            {"vm": name, **more},
            (Resource("vm", name),),
            host="" if recorded else found["host"],
            placement=RETRYABLE if recorded else PINNED,
            key=key,
        )
        return await self._tasks(tenant, actor).submit(request)
