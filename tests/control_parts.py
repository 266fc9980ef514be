"""A platform without its API: a real engine, dispatcher and agent as processes; the operations in the test."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from enisle.control import Operations, Places
from enisle.tasks import CONTROL, OBJECTS, PROGRESS, Engine, JetStream, Objects, Questions, State, Task, Tasks, View

SMALL = "64M"


class Platform:
    """`async with Platform(tmp_path) as platform`; `host` names its agent's host."""

    def __init__(self, state: Path, host: str = "h1", agents: bool = True) -> None:
        self.places, self.host, self._agents = Places(state), host, agents
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Platform":
        self.places.prepare()
        self.engine = self._stack.enter_context(Engine(self.places.engine))
        url = self.engine.url
        self.places.engine_url.write_text(url)
        self.store = await self._stack.enter_async_context(JetStream(url, bucket=CONTROL))
        progress = await self._stack.enter_async_context(JetStream(url, bucket=PROGRESS))
        objects = Objects(await self._stack.enter_async_context(JetStream(url, bucket=OBJECTS)))
        self.questions = await self._stack.enter_async_context(Questions(url))
        self.view = View(self.store, progress)
        following = asyncio.create_task(self.view.run())
        self._stack.callback(following.cancel)
        await self.view.ready()
        self.operations = Operations(
            lambda tenant, actor: Tasks(self.store, tenant, actor), self.view, self.questions, objects
        )
        if self._agents:
            self.start("dispatcher", "dispatcher", str(self.places.directory))
            self.start_agent()
            await self.until(lambda: self.host in self.view.hosts)
        return self

    def start(self, name: str, *words: str) -> None:
        log = open(self.places.directory / f"{name}.log", "ab")  # noqa: SIM115 - the child's
        with log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "enisle.control", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start_agent(self) -> None:
        self.start("agent", "agent", str(self.places.directory), "--host", self.host)

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            await asyncio.to_thread(process.wait, 10)
        for path in self.places.directory.glob("hosts/*/islands/*"):
            pid = keeper_pid(path)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await self._stack.aclose()

    def islands(self) -> list[Path]:
        directory = self.places.islands(self.host)
        return sorted(directory.iterdir()) if directory.exists() else []

    async def until(self, said: Callable[[], object], timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not said():
            assert time.monotonic() < deadline, self.logs()
            await asyncio.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in self.places.directory.glob("*.log"))

    def now(self, task: Task) -> Task:
        """Return a task as the view was last told of it, as it was submitted until then."""
        return self.view.tasks.get(task.id, task)

    async def end(self, submitting: Awaitable[Task], timeout_s: float = 20.0) -> Task:
        """Return a task at its end."""
        task = await submitting
        await self.until(lambda: self.now(task).finished, timeout_s)
        return self.now(task)

    async def done(self, submitting: Awaitable[Task], timeout_s: float = 20.0) -> Any:
        """Return a task's result; it must be done."""
        ended = await self.end(submitting, timeout_s)
        assert ended.state is State.DONE, (ended.failure, self.logs())
        return ended.result


def keeper_pid(path: Path) -> int:
    """Return the process that keeps an island, 0 when none does."""
    import json

    from enisle.control.keeper_client import KeeperClient

    return json.loads((path / "keeper.json").read_text())["pid"] if KeeperClient(path).alive else 0


WHO = {"tenant": "default", "actor": "test"}


@contextlib.asynccontextmanager
async def running(state: Path) -> AsyncIterator[Platform]:
    async with Platform(state) as platform:
        yield platform
