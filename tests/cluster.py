"""Three engines as an operator would run them, each in a network namespace of its own, joined by a bridge in a fourth.

Needs root and `ip`. A link is cut by taking the bridge's end of it down; clients are threads that entered a namespace.
"""

import asyncio
import ctypes
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from enisle.tasks.probe import greeting
from enisle.tasks.server import find_server

CLONE_NEWNET = 0x4000_0000
NUMBERS = itertools.count()
NODES = (1, 2, 3)
USERS = "authorization { user: enisle, password: secret }"
CONFIGURATION = """\
server_name: n{n}
listen: "10.98.0.{n}:4222"
{users}
cluster {{ name: three, listen: "10.98.0.{n}:6222", routes: [{routes}] }}
jetstream {{ store_dir: "{store}", sync_interval: {sync}, max_memory_store: 64MB, max_file_store: 1GB }}
"""


class Cluster:
    """`with Cluster(path) as cluster`. Node n is 10.98.0.n in the namespace `node(n)`; clients live in `hub`."""

    def __init__(self, directory: Path, sync: str = "always", users: str = USERS) -> None:
        self._directory, self._sync, self._users = directory, sync, users
        self._name = f"enisle-{os.getpid()}-{next(NUMBERS)}"
        self._servers: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def hub(self) -> str:
        return f"{self._name}-hub"

    def node(self, n: int) -> str:
        return f"{self._name}-{n}"

    @property
    def url(self) -> str:
        return "nats://enisle:secret@" + ",".join(f"10.98.0.{n}:4222" for n in NODES)

    def __enter__(self) -> "Cluster":
        try:
            self._make_network()
            for n in NODES:
                self._configure(n)
                self.start(n)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for n in list(self._servers):
            self.kill(n)
        for name in (*map(self.node, NODES), self.hub):
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def _make_network(self) -> None:
        ip("netns add", self.hub)
        ip("-n", self.hub, "link set lo up")
        ip("-n", self.hub, "link add bridge type bridge")
        ip("-n", self.hub, "addr add 10.98.0.254/24 dev bridge")
        ip("-n", self.hub, "link set bridge up")
        for n in NODES:
            ip("netns add", self.node(n))
            ip("-n", self.hub, f"link add p{n} type veth peer name eth0 netns", self.node(n))
            ip("-n", self.hub, f"link set p{n} master bridge up")
            ip("-n", self.node(n), "link set lo up")
            ip("-n", self.node(n), f"addr add 10.98.0.{n}/24 dev eth0")
            ip("-n", self.node(n), "link set eth0 up")

    def _configure(self, n: int) -> None:
        routes = ", ".join(f'"nats://10.98.0.{one}:6222"' for one in NODES if one != n)
        store = self._directory / f"store{n}"
        text = CONFIGURATION.format(n=n, routes=routes, store=store, sync=self._sync, users=self._users)
        (self._directory / f"n{n}.conf").write_text(text)

    # ---- faults ----------------------------------------------------------------------------------------------------

    def start(self, n: int) -> None:
        command = ["ip", "netns", "exec", self.node(n), find_server(), "-c", self._directory / f"n{n}.conf"]
        with open(self._directory / f"n{n}.log", "ab") as log:
            self._servers[n] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, n: int) -> None:
        server = self._servers.pop(n)  # `ip netns exec` became the server: execvp(3)
        server.kill()
        server.wait()

    def cut(self, n: int) -> None:
        ip("-n", self.hub, f"link set p{n} down")

    def mend(self, n: int) -> None:
        ip("-n", self.hub, f"link set p{n} up")

    def wait_until_up(self) -> None:
        def look() -> None:
            for n in NODES:
                while greeting(f"10.98.0.{n}", 4222) is None:
                    time.sleep(0.01)

        run_in(self.hub, look)


def ip(*words: str) -> None:
    subprocess.run(["ip", *itertools.chain(*(word.split() for word in words))], check=True)


def run_in(namespace: str, work: Callable[[], Any]) -> Any:
    """Call `work` in a thread whose sockets belong to a network namespace; return or raise what it does (setns(2))."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(descriptor)
            outcome.extend((work(), None))
        except BaseException as error:
            outcome[:] = [None, error]

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if outcome[1]:
        raise outcome[1]
    return outcome[0]


def run_async_in(namespace: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return run_in(namespace, lambda: asyncio.run(work()))
