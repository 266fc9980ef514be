"""A power cut, as an engine's disk meets it: what was acknowledged is on the disk, whatever the host's memory held.

The store lies on a file system in an image behind a loop device. Right after the engine was killed under load the
image is copied: it has what the file system had written to its device, and nothing that was only in memory. The copy
is mounted (its journal replays, as after a cut) and an engine started on it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import NODES, Cluster, run_async_in
from enisle.tasks import Change, Engine, JetStream, StoreGuard, Unavailable

SOAK = os.environ.get("ENISLE_SOAK") == "1"
SECONDS = 10.0 if SOAK else 1.5
SIZE = 256 << 20 if SOAK else 64 << 20


class Load:
    """Writers of tasks and takers of locks; what was acknowledged is noted."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.over = False

    async def write(self, store: JetStream, name: int) -> None:
        number = 0
        while not self.over:
            task, lock = f"task.{name}x{number}", f"lock.island.{name}x{number}"
            try:
                if number % 2:
                    self.acknowledged[task] = await store.cas(task, {"n": number, "padding": "x" * 300}, 0)
                else:
                    last = await store.batch([Change(lock, {"holders": [task]}, 0), Change(task, {"n": number}, 0)])
                    self.acknowledged |= {lock: last - 1, task: last}
            except Unavailable:
                return
            number += 1

    async def until_killed(self, store: JetStream, kill: Callable[[], None]) -> None:
        writers = [asyncio.create_task(self.write(store, name)) for name in range(6)]
        await asyncio.sleep(SECONDS)
        kill()
        self.over = True
        for writer in writers:
            writer.cancel()
        await asyncio.wait(writers)

    async def require_kept(self, store: JetStream) -> None:
        found: dict[str, int] = {}
        async with asyncio.timeout(20):
            async for entry in store.watch(""):
                if entry and entry.key and entry.value is not None:
                    found[entry.key] = entry.revision
                if entry and entry.current:
                    break
        lost = [key for key, revision in self.acknowledged.items() if found.get(key) != revision]
        print(f"\n{len(self.acknowledged)} acknowledged, {len(lost)} lost")
        assert not lost
        assert len(self.acknowledged) > 50


@contextlib.contextmanager
def mounted(image: Path, on: Path) -> Iterator[Path]:
    on.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, on], check=True)
    try:
        yield on
    finally:
        subprocess.run(["umount", "-l", on], check=True)


def make_image(path: Path) -> Path:
    with open(path, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


@pytest.mark.root
def test_a_power_cut_loses_no_acknowledged_task_or_lock(tmp_path: Path) -> None:
    load = Load()
    image, copy = make_image(tmp_path / "disk"), tmp_path / "after"

    async def use(engine: Engine) -> None:
        def kill() -> None:
            os.kill(engine.pid, signal.SIGKILL)
            shutil.copyfile(image, copy)

        async with JetStream(engine.url) as store:
            guarding = asyncio.create_task(StoreGuard(store, engine.directory).run())
            await asyncio.sleep(0.2)
            await load.until_killed(store, kill)
            guarding.cancel()
            await asyncio.wait([guarding])

    async def look(engine: Engine) -> None:
        async with JetStream(engine.url) as store:
            await load.require_kept(store)
            guard = StoreGuard(store, engine.directory)
            guarding = asyncio.create_task(guard.run())
            async with asyncio.timeout(10):
                while not guard.ok:
                    assert "being checked" in guard.reason, "a power cut is no damage"
                    await asyncio.sleep(0.01)
            guarding.cancel()
            await asyncio.wait([guarding])

    with mounted(image, tmp_path / "mnt") as disk, Engine(disk / "engine") as engine:
        asyncio.run(use(engine))
    with mounted(copy, tmp_path / "mnt2") as disk, Engine(disk / "engine") as engine:
        asyncio.run(look(engine))


def lose_power(cluster: Cluster, image: Path, copy: Path) -> None:
    for n in NODES:
        cluster.kill(n)
    shutil.copyfile(image, copy)


@pytest.mark.root
@pytest.mark.skipif(not SOAK, reason="make soak: three engines that lose power together")
@pytest.mark.timeout(120)
def test_a_cluster_that_loses_power_as_a_whole_loses_nothing_acknowledged(tmp_path: Path) -> None:
    load = Load()
    image, copy = make_image(tmp_path / "disk"), tmp_path / "after"

    async def use(cluster: Cluster) -> None:
        async with JetStream(cluster.url) as store:
            await load.until_killed(store, lambda: lose_power(cluster, image, copy))

    async def look(cluster: Cluster) -> None:
        async with JetStream(cluster.url) as store:
            await load.require_kept(store)

    with mounted(image, tmp_path / "mnt") as disk, Cluster(disk) as cluster:
        run_async_in(cluster.hub, lambda: use(cluster))
    with mounted(copy, tmp_path / "mnt2") as disk, Cluster(disk) as cluster:
        run_async_in(cluster.hub, lambda: look(cluster))
