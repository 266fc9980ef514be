"""Tasks whose store is a cluster: its leader killed, a host killed. Part of `make soak` (ENISLE_SOAK=1)."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster, run_in
from enisle.control import Places, start_platform, stop_platform
from enisle.tasks import Dispatcher, JetStream, Request, Resource, State, Tasks

AGENT = Path(__file__).parents[1] / "task_agent.py"
soak = pytest.mark.skipif(os.environ.get("ENISLE_SOAK") != "1", reason="make soak: tasks on three engines")


class Api:
    """The platform's door, from inside the clients' namespace."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token

    def call(self, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        payload = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url + path, payload, headers), timeout=40) as answer:
            return json.loads(answer.read())

    def sleep(self, seconds: float) -> str:
        return self.call("/v1/tasks", {"routine": "platform.sleep@1", "arguments": {"seconds": seconds}})["id"]

    def end_of(self, task: str) -> tuple[str, int]:
        found = self.call(f"/v1/tasks/{task}?wait=30")
        return found["state"], found["attempt"]


async def find_leader(url: str) -> int:
    async with JetStream(url) as store:
        answer = await store._ask("STREAM.INFO.KV_ctl", {})  # pyright: ignore
        assert answer["config"]["num_replicas"] == 3
        return int(answer["cluster"]["leader"][1:])


@pytest.mark.root
@pytest.mark.network
@soak
def test_a_dead_leader_delays_the_next_task_and_moves_no_running_one(tmp_path: Path) -> None:
    def check(cluster: Cluster) -> None:
        places = Places(tmp_path / "state")
        info = start_platform(places, engine_url=cluster.url)
        try:
            api = Api(info.url, places.token.read_text().strip())
            assert api.end_of(api.sleep(0.1))[0] == "done"
            running = api.sleep(15)
            time.sleep(1)
            cluster.kill(asyncio.run(find_leader(cluster.url)))
            begin = time.monotonic()
            assert api.end_of(api.sleep(0.1))[0] == "done"
            assert time.monotonic() - begin <= 10
            assert api.end_of(running) == ("done", 1)
        finally:
            stop_platform(places)

    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster") as cluster:
        run_in(cluster.hub, lambda: check(cluster))


@pytest.mark.root
@pytest.mark.network
@pytest.mark.timeout(180)
@soak
def test_a_killed_hosts_task_runs_elsewhere_within_13_seconds(tmp_path: Path) -> None:
    def start(url: str, host: str) -> "subprocess.Popen[bytes]":
        words = (url, host, f"{tmp_path}/{host}.db", f"{tmp_path}/{host}.log")
        return subprocess.Popen([sys.executable, AGENT, *words], stdin=subprocess.DEVNULL)

    async def check(url: str) -> None:
        async with JetStream(url) as store, asyncio.TaskGroup() as group:
            dispatcher = group.create_task(Dispatcher(store, "d1", store.lease_ttl_s).run())
            tasks = Tasks(store)
            first, second = start(url, "h1"), None
            try:
                held = (Resource("island", "web"),)
                task = await tasks.submit(Request("test.steps@1", {"count": 200, "seconds": 0.1}, held))
                await begun(tmp_path / "h1.log", 3)
                second = start(url, "h2")
                await asyncio.sleep(3)  # until its lease is known
                first.kill()
                killed = time.time()
                assert await begun(tmp_path / "h2.log", 1) - killed <= 13
                ended = await tasks.wait(task.id, 60)
                assert (ended.state, ended.host, ended.attempt) == (State.DONE, "h2", 2)
            finally:
                for one in filter(None, (first, second)):
                    one.kill()
                    one.wait()
            dispatcher.cancel()

    with Cluster(tmp_path) as cluster:
        cluster.wait_until_up()
        run_in(cluster.hub, lambda: asyncio.run(check(cluster.url)))


async def begun(log: Path, count: int) -> float:
    """Return when a host has begun its step number `count`."""
    async with asyncio.timeout(40):
        while not log.exists() or len(lines := log.read_text().splitlines()) < count:
            await asyncio.sleep(0.01)
    return float(lines[count - 1].split()[1])
