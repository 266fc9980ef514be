"""What runs on this host: the islands' directories, who keeps them, and the telling of it to the platform.

Adopts what it finds when it begins: an island is never ended because nobody remembers why it is there. Owned by the
agent's event loop.
"""

import asyncio
import base64
import binascii
import contextlib
import os
import subprocess
import time
from pathlib import Path

import enisle
from enisle.control.keeper_client import KeeperClient, KeeperGone
from enisle.control.live import LiveBoard
from enisle.control.places import Places
from enisle.control.wire import Json
from enisle.errors import EnisleError, StateError
from enisle.tasks import Objects

LOOK_S = 2.0
TOLD = ("name", "tenant", "configuration", "program", "created", "state", "exit_code", "reason", "backend", "notes")
FIGURES = ("task", "token", "memory_used", "memory_limit", "processes", "commands", "started", "ended", "pid")


class Hosting:
    """The islands of one host. `objects` carries what is too large for a task's arguments."""

    def __init__(self, places: Places, host: str, board: LiveBoard, objects: Objects | None = None) -> None:
        self.places, self.host, self.board, self.objects = places, host, board, objects
        self.islands = places.islands(host)
        self._monitors: dict[str, asyncio.Task[None]] = {}
        self._keepers: list[subprocess.Popen[bytes]] = []

    def client(self, name: str) -> KeeperClient:
        return KeeperClient(self.islands / name)

    # ---- the agent's beginning and end -----------------------------------------------------------------------------

    async def adopt(self) -> list[str]:
        """Find what is kept or was, and tell it; return the islands that run."""
        self.islands.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: list[str] = []
        for path in sorted(self.islands.iterdir()):
            client = KeeperClient(path)
            if client.alive:
                found.append(path.name)
                self.watch(path.name)
            elif client.about() or client.end():
                (path / "keeper.sock").unlink(missing_ok=True)
                await self._tell_end(client)
        return found

    async def run(self) -> None:
        """Collect keepers that ended, so that none stays as a zombie, and tell again what others may have missed."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._keepers = [process for process in self._keepers if process.poll() is None]
            for path in await asyncio.to_thread(self._unwatched):
                await self._tell_end(KeeperClient(path))

    def _unwatched(self) -> list[Path]:
        """Return the directories of islands that have ended."""
        return [
            path
            for path in sorted(self.islands.iterdir())
            if path.name not in self._monitors and ((path / "keeper.json").exists() or (path / "end.json").exists())
        ]

    # ---- islands ---------------------------------------------------------------------------------------------------

    async def make(self, name: str, spec: Json) -> Json:
        """Start a keeper and wait until its island is made; return what it says. Joins one that is there already."""
        client = self.client(name)
        process = None
        if not client.alive:
            process = await asyncio.to_thread(client.spawn, spec)
            self._keepers.append(process)
        about = await client.wait_until_ready(process)
        self.watch(name)
        await self._tell(name, about)
        return about

    async def stop(self, name: str, why: str, token: int) -> None:
        """End an island and wait until its end was told. Raises StaleToken, HostError."""
        client = self.client(name)
        await client.stop(why, token)
        await self._end_monitor(name)
        if client.directory.exists():
            await self._tell_end(client)

    async def remove(self, name: str) -> None:
        """Forget an island that has ended."""
        client = self.client(name)
        await self._end_monitor(name)
        await asyncio.to_thread(client.remove)
        await self.board.put("island", name, None)

    async def _end_monitor(self, name: str) -> None:
        monitor = self._monitors.pop(name, None)
        if monitor:
            monitor.cancel()
            await asyncio.wait([monitor])

    # ---- telling ---------------------------------------------------------------------------------------------------

    def watch(self, name: str) -> None:
        """Follow an island to its end, and tell how it is."""
        if name not in self._monitors:
            self._monitors[name] = asyncio.create_task(self._follow(name), name=f"island {name}")

    async def _follow(self, name: str) -> None:
        client = self.client(name)
        seen = -1
        while True:
            try:
                async with client.connection() as keeper:
                    while True:
                        about = await keeper.ask("watch", seen=seen, wait_s=LOOK_S)
                        seen = int(about["changes"])
                        await self._tell(name, about)
            except KeeperGone:
                if not client.alive:
                    break
            except EnisleError:
                pass  # it hangs, or ends just now
            await asyncio.sleep(0.1)
        if self._monitors.get(name) is asyncio.current_task():
            del self._monitors[name]
        if client.directory.exists():
            await self._tell_end(client)

    async def _tell(self, name: str, about: Json) -> None:
        told = {key: about[key] for key in (*TOLD, *FIGURES) if key in about}
        await self.board.put("island", name, told | {"host": self.host})

    async def _tell_end(self, client: KeeperClient) -> None:
        if not client.alive:
            await self._tell(client.name, client.fate())

    async def close(self) -> None:
        """Let go of everything; the islands go on."""
        monitors, self._monitors = self._monitors, {}
        for monitor in monitors.values():
            monitor.cancel()
        if monitors:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(list(monitors.values()))

    async def content(self, carried: Json) -> bytes:
        """Return bytes that came with a task: {"base64": …} or the name of an object."""
        if isinstance(carried.get("base64"), str):
            try:
                return base64.b64decode(carried["base64"], validate=True)
            except binascii.Error:
                raise StateError("what came with the task cannot be read", "it is no base64", "") from None
        if self.objects is None:
            raise StateError("this host has no objects", "what came with the task is too large", "")
        return await self.objects.get(carried)


def facts(address: str = "") -> Json:
    """Return what a host says of itself in its lease."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "version": enisle.__version__,
        "started": time.time(),
        "address": address,
        "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK),
    }
