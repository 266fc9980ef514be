"""What a host answers when it is asked of its islands: output, files, processes; and what it passes on to them: input.

Only looks, but for `input`: what is typed into a command that runs is no task of its own.
"""

import asyncio
import base64
from pathlib import Path
from typing import Any

from enisle.control import output
from enisle.control.commands import PROGRAM, read_json
from enisle.control.hosting import Hosting
from enisle.control.keeper_client import KeeperClient, KeeperGone
from enisle.control.specs import require_name
from enisle.control.wire import Json
from enisle.errors import EnisleError, HostError, NotFound, StateError
from enisle.tasks import require_token

MAX_WAIT_S = 25.0
MAX_READ = 512 << 10


class Answers:
    """`Answers(hosting).handlers()` for `Questions.serve`."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def handlers(self) -> dict[str, Any]:
        return {
            "output": self.output,
            "input": self.input,
            "log": self.log,
            "files.read": self.read,
            "files.list": self.listing,
            "processes": self.processes,
            "statistics": self.statistics,
        }

    def _client(self, asked: Json) -> KeeperClient:
        client = self._hosting.client(require_name("an island", asked.get("island")))
        if not client.directory.is_dir():
            raise NotFound(f"there is no island {client.name} on this host", "", "`enisle island ls`")
        return client

    # ---- output ----------------------------------------------------------------------------------------------------

    async def output(self, asked: Json) -> Json:
        client = self._client(asked)
        task = require_token("a task", asked.get("task"))
        directory = client.directory / "output" / task
        if not directory.is_dir():
            raise NotFound(f"nothing was kept of task {task}", "it has not begun, or was long ago", "")
        after, tail = int(asked.get("after") or 0), max(0, int(asked.get("tail") or 0))
        return await self._read(client, task, directory, after, tail, float(asked.get("wait_s") or 0))

    async def input(self, asked: Json) -> Json:
        """Pass on what was typed ({"task", "writer", "offset", "data", "end"}) or a size ({"task", "resize"})."""
        client = self._client(asked)
        words = {name: asked[name] for name in ("writer", "offset", "end", "resize") if asked.get(name) is not None}
        task = require_token("a task", asked.get("task"))
        try:
            return await client.ask("input", base64.b64decode(asked.get("data") or ""), task=task, **words)
        except KeeperGone as gone:
            if client.alive:
                raise HostError(f"the island {client.name} is asked too much at once", "", "ask again") from None
            raise StateError("the command takes no input", gone.message, gone.hint) from None

    async def log(self, asked: Json) -> Json:
        client = self._client(asked)
        after, tail = max(0, int(asked.get("after") or 0)), max(0, int(asked.get("tail") or 0))
        if not (client.spec() or {}).get("program"):
            return {"chunks": [], "next": after, "ended": True, "truncated": False}
        return await self._read(
            client, PROGRAM, client.directory / PROGRAM, after, tail, float(asked.get("wait_s") or 0)
        )

    async def _read(
        self, client: KeeperClient, task: str, directory: Path, after: int, tail: int, wait_s: float
    ) -> Json:
        """Read the files; when there is nothing new, wait for the keeper to say so and read again."""
        ended = self._has_ended(client, directory)
        told = await asyncio.to_thread(output.read, str(directory), after, tail)
        if not told["chunks"] and not ended and wait_s > 0:
            wait_s = min(MAX_WAIT_S, wait_s)
            try:
                await client.ask("output", task=task, after=after, wait_s=wait_s, within_s=wait_s + 5)
            except KeeperGone:
                pass  # the files tell the rest
            except EnisleError:
                await asyncio.sleep(0.05)
            ended = self._has_ended(client, directory)
            told = await asyncio.to_thread(output.read, str(directory), after, tail)
        more = bool(told["chunks"]) and await asyncio.to_thread(output.next_number, str(directory)) > told["next"]
        return told | {"ended": ended and not more}

    def _has_ended(self, client: KeeperClient, directory: Path) -> bool:
        """Whether no more will be written. Asked before reading: what is written after it is not missed."""
        return bool((read_json(str(directory / "command.json")) or {}).get("ended")) or not client.alive

    # ---- files and figures -----------------------------------------------------------------------------------------

    async def read(self, asked: Json) -> str:
        limit = max(1, min(MAX_READ, int(asked.get("limit") or MAX_READ)))
        offset = max(0, int(asked.get("offset") or 0))
        content: bytes = await self._ask(asked, "read", path=str(asked.get("path")), offset=offset, limit=limit)
        return base64.b64encode(content).decode()

    async def listing(self, asked: Json) -> list[Json]:
        return await self._ask(asked, "list", path=str(asked.get("path")))

    async def processes(self, asked: Json) -> list[Json]:
        return await self._ask(asked, "processes")

    async def statistics(self, asked: Json) -> Json:
        return await self._ask(asked, "statistics")

    async def _ask(self, asked: Json, verb: str, **words: Any) -> Any:
        client = self._client(asked)
        try:
            return await client.ask(verb, **words)
        except KeeperGone as gone:
            raise StateError(gone.message, gone.why, gone.hint) from None
        except FileNotFoundError:
            raise NotFound(f"there is no {words.get('path')}", f"on the island {client.name}", "") from None
        except OSError as error:
            raise StateError(f"cannot read {words.get('path')}", error.strerror or str(error), "") from None
