"""A platform whose store is a cluster: its leader killed while a task runs. Part of `make soak` (ENISLE_SOAK=1)."""

import asyncio
import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster, run_in
from enisle.control import Places, start_platform, stop_platform
from enisle.tasks import JetStream


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
@pytest.mark.skipif(os.environ.get("ENISLE_SOAK") != "1", reason="make soak: a platform on three engines")
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
