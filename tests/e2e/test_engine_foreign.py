"""Hosts on servers of an operator's own: let in by accounts that Enisle prints, and by nothing else."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster, run_in
from enisle.control import Places, start_platform, stop_platform
from enisle.tasks import cluster_accounts, new_identity
from enisle.tasks.probe import greeting
from enisle.tasks.server import find_server
from upplatform import up, wait_until

SERVER = """\
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{store}", sync_interval: always }}
include "accounts.conf"
"""


class Server:
    """A server as its operator runs it: what Enisle prints is all it knows of hosts."""

    def __init__(self, directory: Path, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.directory, self.port, self.process = directory, port, process

    @property
    def platform_url(self) -> str:
        return f"nats://enisle:secret@127.0.0.1:{self.port}?questions=questions"

    def take(self, accounts: str) -> None:
        """Reload with other accounts, as the documents say: twice."""
        (self.directory / "accounts.conf").write_text(accounts)
        for count in (1, 2):
            self.process.send_signal(signal.SIGHUP)
            wait_until(lambda count=count: self._log().count("Reloaded server configuration") >= count)

    def _log(self) -> str:
        return (self.directory / "log").read_text()


@contextmanager
def server(directory: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (directory / "accounts.conf").write_text(cluster_accounts({}))
    (directory / "nats.conf").write_text(SERVER.format(port=port, store=directory / "store"))
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            [find_server(), "-c", directory / "nats.conf"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "ENISLE_PASSWORD": "secret"},
        )
    try:
        wait_until(lambda: greeting("127.0.0.1", port))
        yield Server(directory, port, process)
    finally:
        process.kill()
        process.wait()


def test_a_host_joins_by_the_accounts_that_are_printed_for_it(tmp_path: Path) -> None:
    with server(tmp_path) as engine, up("--nats", engine.platform_url, "--no-agent") as platform, up("not") as host:
        url = json.loads(platform.ok("status", "--json"))["url"]
        token = platform.ok("token", "new", "j", "--scope", "join", "-q").strip()
        refused = host.enisle("join", url, "--name", "two", ENISLE_TOKEN=token)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 3), refused.stderr
        (named,) = re.findall(r"`enisle (host permissions two=U[A-Z2-7]{55})`", refused.stderr)
        at_the_servers = ("join", url, "--nats", f"nats://127.0.0.1:{engine.port}", "--name", "two", "--detach")
        stranger = host.enisle(*at_the_servers)
        assert (stranger.returncode, "refuses us" in stranger.stderr) == (5, True), stranger.stderr
        assert named in stranger.stderr
        engine.take(platform.ok(*named.split()))
        assert host.enisle(*at_the_servers).returncode == 0
        wait_until(lambda: json.loads(platform.ok("host", "show", "--json", "two"))["state"] == "live", 10)
        platform.ok("island", "create", "--memory", "64M", "--host", "two", "far")
        assert platform.ok("island", "exec", "far", "--", "echo", "from there") == "from there\n"  # asked and answered
        refused = platform.enisle("host", "rm", "two")
        assert (refused.returncode, "is live" in refused.stderr) == (4, True)
        platform.ok("island", "rm", "--force", "far")


class Api:
    """The platform's door, from inside the clients' namespace."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token

    def call(self, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        payload = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url + path, payload, headers), timeout=40) as answer:
            return json.loads(answer.read())

    def done(self, path: str, body: object) -> Any:
        task = self.call(path, body)
        for _ in range(3):
            if (task := self.call(f"/v1/tasks/{task['id']}?wait=30"))["finished"]:
                break
        assert task["state"] == "done", task
        return task["result"]


@pytest.mark.root
@pytest.mark.skipif(os.environ.get("ENISLE_SOAK") != "1", reason="make soak: hosts on three engines")
def test_a_joined_host_works_on_three_servers_and_when_one_of_them_is_gone(tmp_path: Path) -> None:
    who = new_identity()
    agreed = tmp_path / "two" / "joined.json"

    def check(cluster: Cluster) -> None:
        places, theirs = Places(tmp_path / "state"), Places(tmp_path / "two")
        info = start_platform(places, engine_url=f"{cluster.url}?questions=questions", agent=False)
        try:
            hosts_url = cluster.url.replace("enisle:secret@", "")
            theirs.prepare()
            agreed.write_text(json.dumps({"url": info.url, "engine_url": hosts_url, "ca": "", "seed": who.seed}))
            start_platform(theirs, host="two", joined=str(agreed), api=False)
            api = Api(info.url, places.token.read_text().strip())
            api.done("/v1/islands", {"name": "far", "memory": "64M", "host": "two"})
            ask = {"argv": ["echo", "there"]}
            assert api.done("/v1/islands/far/exec", ask)["stdout"] == "there\n"
            assert api.call("/v1/islands/far/listing?path=/tmp")["items"] == []
            cluster.kill(1)
            time.sleep(1)
            assert api.done("/v1/islands/far/exec", ask)["stdout"] == "there\n"
            assert [one["state"] for one in api.call("/v1/hosts")["items"]] == ["live"]
        finally:
            stop_platform(theirs, islands=True)
            stop_platform(places)

    (tmp_path / "cluster").mkdir()
    accounts = cluster_accounts({"two": who.public}).replace("$ENISLE_PASSWORD", "secret")
    with Cluster(tmp_path / "cluster", users=accounts) as cluster:
        run_in(cluster.hub, lambda: check(cluster))
