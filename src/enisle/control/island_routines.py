"""What tasks do to islands, on the host that has them.

Every step bears to be repeated: it asks the island's directory and keeper first what is so. What a routine acts on, its
task must hold, and be of the same tenant. Cancelling undoes: a command is killed, a half-made island removed. A routine
that is only interrupted (its agent ends, or lost its lease) leaves everything as it is.
"""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from enisle.control.commands import result_of
from enisle.control.hosting import Hosting
from enisle.control.keeper_client import KeeperClient, KeeperGone
from enisle.control.specs import (
    check_command,
    check_environment,
    check_interaction,
    check_island,
    island_spec,
    require_name,
)
from enisle.control.wire import Json, StaleToken
from enisle.errors import GuestError, InvalidRequest, NotFound, StateError
from enisle.tasks import EXCLUSIVE, Context, Routines

PLATFORM = "platform"
"""Who acts when nobody asked: never a person, or a token."""
WAIT_S = 20.0
RECORDED = ("name", "tenant", "configuration", "program", "created", "task", "token")
GENTLY_S = 4.5
"""How long a command has between SIGTERM and SIGKILL: less than a stopped task has."""


def held(context: Context, kind: str, name: object, mode: str = "") -> str:
    """Return a name of what the task holds. Raises InvalidRequest when it does not, NotFound for another tenant's."""
    text = require_name(f"a{'n' * (kind[0] in 'aeiou')} {kind}", name)
    holds = [one for one in context.resources if (one.kind, one.id) == (kind, text)]
    if not holds or (mode and holds[0].mode != mode):
        how = " alone" if mode == EXCLUSIVE else ""
        raise InvalidRequest(f"the task does not hold {kind}/{text}{how}", "it acts on it", f"hold {kind}/{text}{how}")
    record = context.records.get(f"{kind}.{text}")
    if record is not None and record.get("tenant", "default") != context.tenant:
        raise NotFound(f"there is no {kind} {text}", "", f"`enisle {kind} ls`")
    return text


def spec_of(context: Context, configuration: Json, program: list[str], name: str) -> Json:
    """Return what a keeper is to make. Raises InvalidRequest."""
    check_island(island_spec(name, configuration, program), context.tenant)
    made: Json = {"name": name, "tenant": context.tenant, "configuration": configuration, "program": program}
    return made | {"task": context.task, "token": context.token, "created": time.time()}


class IslandRoutines:
    """The routines `island.*` of one host."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def add_to(self, routines: Routines) -> None:
        anything = (dict, False)
        routines.add("island.create@1", self.create, name=str, configuration=anything, program=(list, False))
        routines.add("island.start@1", self.start, island=str)
        routines.add(
            "island.exec@1",
            self.exec,
            island=str,
            argv=list,
            env=anything,
            cwd=(str, False),
            stdin=anything,
            timeout_s=(float, False),
            input=(str, False),
            terminal=(list, False),
        )
        routines.add("island.stop@1", self.stop, island=str)
        routines.add("island.remove@1", self.remove, island=str, force=(bool, False))
        routines.add("island.write@1", self.write, island=str, path=str, content=dict, mode=(int, False))
        routines.add("island.adopt@1", self.adopt, island=str)
        routines.add("island.discard@1", self.discard, island=str, made=str)

    def _held(self, context: Context, given: object, mode: str = "") -> str:
        """As `held`; without a record this host knows whose an island is. Raises InvalidRequest, NotFound."""
        name = held(context, "island", given, mode)
        if f"island.{name}" not in context.records:
            kept = self._hosting.client(name).spec()
            if kept is not None and kept.get("tenant", "default") != context.tenant:
                raise NotFound(f"there is no island {name}", "", "`enisle island ls`")
        return name

    # ---- life ------------------------------------------------------------------------------------------------------

    async def create(self, context: Context) -> Json:
        name = held(context, "island", context.arguments["name"], EXCLUSIVE)
        if f"island.{name}" in context.records:
            raise StateError(f"there is an island {name} already", "a name is one island's", "choose another")
        spec = spec_of(
            context, context.arguments.get("configuration") or {}, context.arguments.get("program") or [], name
        )
        client = self._hosting.client(name)
        context.on_cancel(lambda: self._discard(client, context))
        context.progress(0.05, "making the island")
        about = await context.step("make", lambda: self._make(client, spec, context))
        context.progress(0.95, "running")
        self._record(context, name, spec, about)
        return {"name": name, "host": context.host, "backend": about["backend"], "notes": about["notes"]}

    async def _make(self, client: KeeperClient, spec: Json, context: Context) -> Json:
        there = client.spec()
        if there is not None and there.get("task") != context.task:
            if client.alive:
                why = "the platform knows nothing of it; it is adopted when it is asked for"
                raise StateError(f"an island {client.name} runs on this host already", why, "choose another name")
            await self._hosting.remove(client.name)  # what an island of that name left, and no record tells of
        elif there is not None and not client.alive and client.end():
            # Made by the attempt before us, and ended since: its program is done, or it could not be made.
            about = client.about()
            if about is not None:
                return _kept(about)
        try:
            return _kept(await self._hosting.make(client.name, there if client.alive and there else spec))
        except (Exception, asyncio.CancelledError) as error:
            if not isinstance(error, asyncio.CancelledError) and not client.alive:
                await self._hosting.remove(client.name)
            raise

    async def _discard(self, client: KeeperClient, context: Context) -> None:
        """Remove what was made of an island: its task was cancelled."""
        there = client.spec()
        if there is not None and there.get("task") == context.task:
            await self._hosting.stop(client.name, "its making was cancelled", context.token)
            await self._hosting.remove(client.name)

    def _record(self, context: Context, name: str, spec: Json, about: Json, state: str = "running") -> None:
        record: Json = {key: spec.get(key) for key in RECORDED}
        told = {
            "host": context.host,
            "state": state,
            "backend": about.get("backend", ""),
            "notes": about.get("notes", []),
        }
        context.put_record("island", name, record | told)

    async def start(self, context: Context) -> Json:
        name = self._held(context, context.arguments["island"], EXCLUSIVE)
        record = self._recorded(context, name)
        spec = spec_of(context, record.get("configuration") or {}, record.get("program") or [], name)
        spec["created"] = record.get("created") or spec["created"]
        context.progress(0.05, "starting the island")
        about = await context.step("make", lambda: self._start_again(name, spec))
        self._record(context, name, spec, about)
        return {"name": name, "host": context.host, "backend": about["backend"]}

    async def _start_again(self, name: str, spec: Json) -> Json:
        client = self._hosting.client(name)
        there = client.spec()
        if not client.alive and there is not None and there.get("task") == spec["task"] and (about := client.about()):
            return _kept(about)  # started by this task before its agent died, and ended since
        return _kept(await self._hosting.make(name, spec))

    async def stop(self, context: Context) -> Json:
        name = self._held(context, context.arguments["island"], EXCLUSIVE)
        client = self._hosting.client(name)
        context.progress(0.1, "stopping the island")
        await context.step("stop", lambda: self._hosting.stop(name, "", context.token))
        record = context.records.get(f"island.{name}") or client.spec()
        if record is not None:
            self._record(context, name, record, client.about() or {}, "stopped")
        return {"name": name, "state": "stopped"}

    async def remove(self, context: Context) -> Json:
        name = self._held(context, context.arguments["island"], EXCLUSIVE)
        client = self._hosting.client(name)
        if client.alive and not context.arguments.get("force"):
            raise StateError(f"the island {name} is running", "", "stop it first, or force it")
        context.progress(0.1, "removing the island")
        await context.step("stop", lambda: self._hosting.stop(name, "it is being removed", context.token))
        await context.step("remove", lambda: self._hosting.remove(name))
        context.put_record("island", name, None)
        return {"name": name}

    async def adopt(self, context: Context) -> Json:
        """Write the record of an island that was found running and has none."""
        name = self._held(context, context.arguments["island"], EXCLUSIVE)
        client = self._hosting.client(name)
        spec = client.spec()
        if spec is None:
            raise NotFound(f"there is no island {name} on this host", "", "")
        if f"island.{name}" not in context.records:
            self._record(context, name, spec, client.about() or {}, "running" if client.alive else "stopped")
        return {"name": name}

    async def discard(self, context: Context) -> Json:
        """End what an earlier attempt made here, now that a later one has made the island elsewhere."""
        name = held(context, "stray", context.arguments["island"], EXCLUSIVE)
        if context.actor != PLATFORM:
            raise InvalidRequest("only the platform discards islands", "it knows which is the older", "remove it")
        client = self._hosting.client(name)
        spec = client.spec()
        if spec is None:
            return {"name": name}  # it went meanwhile
        if (spec.get("task"), spec.get("tenant", "default")) != (context.arguments["made"], context.tenant):
            raise StateError(f"the island {name} here is another one", "it was not made by that task", "")
        why = "another host made it after this one was lost"
        await context.step("stop", lambda: self._hosting.stop(name, why, context.token))
        await context.step("remove", lambda: self._hosting.remove(name))
        return {"name": name}

    def _recorded(self, context: Context, name: str) -> Json:
        record = context.records.get(f"island.{name}") or self._hosting.client(name).spec()
        if record is None:
            raise NotFound(f"there is no island {name}", "", "`enisle island ls`")
        return record

    # ---- commands and files ----------------------------------------------------------------------------------------

    async def exec(self, context: Context) -> Json:
        given = context.arguments
        name = self._held(context, given["island"])
        asked: Json = {"argv": check_command(given["argv"]), "env": check_environment(given.get("env") or {})}
        asked |= {"cwd": given.get("cwd") or "", "timeout_s": float(given.get("timeout_s") or 0)}
        asked |= check_interaction(given.get("input") or "", given.get("terminal") or [], bool(given.get("stdin")))
        stdin = await self._hosting.content(given["stdin"]) if given.get("stdin") else b""
        command = RunningTask(self._hosting.client(name), context, asked, stdin)
        context.on_cancel(command.kill)
        context.progress(0.0, f"running {Path(asked['argv'][0]).name[:80]}")
        return await context.step("run", command.run)

    async def write(self, context: Context) -> Json:
        given = context.arguments
        name = self._held(context, given["island"])
        content, path = await self._hosting.content(given["content"]), given["path"]
        if not path.startswith("/") or "\0" in path:
            raise InvalidRequest(f"the path {path!r:.200} is not absolute", "it is one of the island's", "")
        client = self._hosting.client(name)
        mode: Json = {"mode": int(given["mode"]) & 0o7777} if "mode" in given else {}
        shared = not any(one.id == name and one.mode == EXCLUSIVE for one in context.resources)

        async def act() -> int:
            try:
                return await client.ask("write", content, token=context.token, shared=shared, path=path, **mode)
            except FileNotFoundError:
                raise NotFound(f"there is no directory for {path}", f"on the island {name}", "make it first") from None
            except OSError as error:
                raise StateError(f"cannot write {path}", error.strerror or str(error), "") from None

        context.progress(0.1, "writing")
        return {"path": path, "size": await context.step("write", act)}


class RunningTask:
    """One command of a task: started once, whichever agent asks, followed to its end."""

    def __init__(self, client: KeeperClient, context: Context, asked: Json, stdin: bytes) -> None:
        self._client, self._context, self._asked, self._stdin = client, context, asked, stdin
        alone = any(one.kind == "island" and one.mode == EXCLUSIVE for one in context.resources)
        self._right: Json = {"task": context.task, "token": context.token, "shared": not alone}

    async def run(self) -> Json:
        try:
            await self._client.ask("start", self._stdin, **self._right, **self._asked)
            while True:
                told: Json = await self._client.ask(
                    "wait", task=self._context.task, wait_s=WAIT_S, within_s=WAIT_S + 15
                )
                if told.pop("ended"):
                    return told
        except KeeperGone as gone:
            return self._after_the_end(gone)

    def _after_the_end(self, gone: KeeperGone) -> Json:
        """Return what became of a command whose island has ended. Raises StateError, GuestError."""
        kept = self._client.kept_command(self._context.task)
        if kept and kept.get("ended") and not kept.get("error"):
            return result_of(kept)
        if kept is None:
            raise StateError(gone.message, gone.why, gone.hint)
        raise GuestError(f"the island {self._client.name} ended while the command ran", gone.why, gone.hint)

    async def kill(self) -> None:
        """End the command: it is asked to, then made to."""
        # A shell at a terminal heeds no SIGTERM; it ends when that hangs up, and so does what was stopped there.
        gently = (signal.SIGHUP, signal.SIGCONT) if self._asked.get("terminal") else (signal.SIGTERM,)
        for signals, seconds in ((gently, GENTLY_S), ((signal.SIGKILL,), 5.0)):
            try:
                for signo in signals:
                    await self._client.ask("kill", **self._right, signal=int(signo))
                told: Json = await self._client.ask("wait", task=self._context.task, wait_s=seconds)
            except (KeeperGone, NotFound, StaleToken):
                return  # it never began, has ended with its island, or is another's now
            if told["ended"]:
                return
        raise GuestError("the command does not end", "even after SIGKILL", "stop its island")


def _kept(about: Any) -> Json:
    """Return what a task's journal keeps of an island."""
    return {"backend": about.get("backend", ""), "notes": about.get("notes") or [], "pid": about.get("pid")}
