"""Tasks on a cluster: three engines on this computer, replicated, synced always, as an operator would run them."""

import contextlib
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.tasks_parts import Figures, Parts, burst, latencies, percentile
from enisle.tasks.server import die_with, find_server, free_port

CONFIGURATION = """\
server_name: n{n}
listen: "127.0.0.1:{port}"
authorization {{ user: enisle, password: secret }}
cluster {{ name: three, listen: "127.0.0.1:{inner}", routes: [{routes}] }}
jetstream {{ store_dir: "{store}", sync_interval: always, max_memory_store: 64MB, max_file_store: 1GB }}
"""


@contextlib.contextmanager
def three(directory: Path) -> Iterator[str]:
    """Run three engines; yield their URL."""
    ports, inner = [free_port("127.0.0.1") for _ in range(3)], [free_port("127.0.0.1") for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in inner)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for n in range(3):
            text = CONFIGURATION.format(n=n, port=ports[n], inner=inner[n], routes=routes, store=directory / f"n{n}")
            (directory / f"n{n}.conf").write_text(text)
            command = [find_server(), "-c", str(directory / f"n{n}.conf")]
            with open(directory / f"n{n}.log", "wb") as log:
                servers.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with(os.getpid())))
        yield "nats://enisle:secret@" + ",".join(f"127.0.0.1:{port}" for port in ports)
    finally:
        for server in servers:
            server.kill()
            server.wait()


async def cluster(parts: Parts) -> Figures:
    """Tasks that hold a resource each, on three engines: one at a time, then all at once."""
    with three(parts.directory) as parts.url:
        async with parts.platform():
            taken = await latencies(parts, 30 if parts.quick else 200)
            rate = await burst(parts, 200 if parts.quick else 500)
    return {
        "cluster locked p50 ms": statistics.median(taken) * 1e3,
        "cluster locked p99 ms": percentile(taken, 99) * 1e3,
        "cluster locked burst /s": rate,
    }
