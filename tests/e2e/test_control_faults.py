"""The whole platform and real faults: its supervisor, engine and agent killed or stopped, its places taken or full."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_parts import SMALL, WHO, Platform, keeper_pid
from enisle.control import IslandSpec, Places, PlatformInfo, platform_info, start_platform, stop_platform
from enisle.control.keeper_client import KeeperClient, stop_all
from enisle.errors import HostError, InvalidRequest, StateError
from enisle.tasks import State


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    places = Places(tmp_path / "state")
    yield places
    try:
        stop_platform(places)
    except StateError:
        pass  # the test has ended it
    for directory in (places.directory / "hosts").glob("*/islands"):
        stop_all(directory)


def ask(places: Places, info: PlatformInfo, method: str, path: str, body: Any = None) -> Any:
    """Return what the API answers."""
    host, port = info.url.removeprefix("http://").rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Authorization": f"Bearer {places.token.read_text().strip()}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    told = json.loads(answer.read() or b"null")
    connection.close()
    assert answer.status < 300, told
    return told


def done(places: Places, info: PlatformInfo, path: str, body: Any, within_s: float = 30.0) -> Any:
    """Have something done; return the task at its end."""
    task = ask(places, info, "POST", path, body)
    deadline = time.monotonic() + within_s
    while not task["finished"]:
        assert time.monotonic() < deadline, (task, places.log.read_text()[-2000:])
        try:
            task = ask(places, info, "GET", f"/v1/tasks/{task['id']}?wait=2")
        except (OSError, http.client.HTTPException, AssertionError):
            time.sleep(0.1)  # the API comes again
    return task


def gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_platform_comes_up_once_survives_deaths_and_its_islands_survive_it(places: Places) -> None:
    info = start_platform(places)
    assert platform_info(places) == info
    assert os.stat(places.directory).st_mode & 0o777 == 0o700
    for private in (places.platform, places.engine_url, places.token):
        assert os.stat(private).st_mode & 0o777 == 0o600
    with pytest.raises(StateError, match="up already"):
        start_platform(places)
    made = done(places, info, "/v1/islands", {"name": "web", "memory": SMALL})
    assert made["state"] == "done", made
    island = places.islands(info.host) / "web"
    keeper = keeper_pid(island)

    # Each part dies and comes again; a command that ran meanwhile ends once.
    running = ask(
        places, info, "POST", "/v1/islands/web/exec", {"argv": ["sh", "-c", "echo x >> /tmp/n; sleep 3; cat /tmp/n"]}
    )
    while not ask(places, info, "GET", f"/v1/tasks/{running['id']}")["started"]:
        time.sleep(0.02)
    time.sleep(0.3)
    for part in ("engine", "agent", "dispatcher", "api"):
        os.kill(info.parts[part], signal.SIGKILL)
    ended = done_again(places, info, running["id"])
    assert (ended["state"], ended["attempt"], ended["result"]["stdout"]) == ("done", 1, "x\n"), ended
    again = platform_info(places)
    assert set(again.parts) == set(info.parts)
    assert not set(again.parts.values()) & set(info.parts.values())

    # The supervisor is killed: all it started dies, but no island; its file and its lock do not stop the next one.
    os.kill(info.pid, signal.SIGKILL)
    assert all(gone(pid) for pid in again.parts.values())
    assert keeper_pid(island) == keeper
    assert places.platform.exists()
    with pytest.raises(StateError, match="not up"):
        platform_info(places)
    info = start_platform(places)
    shown = ask(places, info, "GET", "/v1/islands/web")
    assert (shown["state"], shown["age"] > 3) == ("running", True)
    assert done(places, info, "/v1/islands/web/exec", {"argv": ["cat", "/tmp/n"]})["result"]["stdout"] == "x\n"
    stop_platform(places)
    assert all(gone(pid) for pid in (info.pid, *info.parts.values()))
    assert keeper_pid(island) == keeper
    info = start_platform(places)
    stop_platform(places, islands=True)
    assert not KeeperClient(island).alive
    assert gone(keeper)


def done_again(places: Places, info: PlatformInfo, task: str) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            found = ask(places, info, "GET", f"/v1/tasks/{task}?wait=2")
            if found["finished"]:
                return found
        except (OSError, http.client.HTTPException, AssertionError):
            time.sleep(0.1)
    raise AssertionError(places.log.read_text()[-3000:])


def test_what_stands_in_the_way_is_told(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1:{port}"):
            start_platform(places, port=port)
    with pytest.raises(HostError, match="cannot run the engine /nonexistent"):
        start_platform(places, server="/nonexistent")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(HostError, match="engine"):
        start_platform(places, server=str(broken))
    with pytest.raises(HostError, match="cannot reach the engine"):
        start_platform(places, engine_url="nats://127.0.0.1:1", agent=False)
    with pytest.raises(InvalidRequest, match="no engine"):
        start_platform(places, engine_url="localhost")
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot use"):
        start_platform(Places(tmp_path / "file" / "state"))
    with pytest.raises(StateError, match="not up"):
        stop_platform(places)
    assert not places.platform.exists()


def test_an_agent_that_slept_too_long_goes_on_where_it_was(tmp_path: Path) -> None:
    async def check() -> None:
        async with Platform(tmp_path / "state") as platform:
            operations = platform.operations
            await platform.done(operations.create_island(IslandSpec(name="web", memory=SMALL), **WHO))
            count = "echo x >> /tmp/n; sleep 2; cat /tmp/n"
            task = await operations.exec_island("web", ["sh", "-c", count], **WHO)
            await platform.until(lambda: (told := platform.view.tasks.get(task.id)) and told.started)
            await asyncio.sleep(0.3)
            agent = platform.processes["agent"]
            agent.send_signal(signal.SIGSTOP)
            await platform.until(lambda: platform.now(task).state is State.INTERRUPTED, 10)
            waiting = await operations.exec_island("web", ["echo", "later"], **WHO)
            shown = await operations.island("web", "default")
            assert "is not connected" in shown["notes"][0]
            await platform.until(lambda: (told := platform.view.tasks.get(waiting.id)) and told.blocked)
            blocked = platform.now(waiting).blocked
            assert blocked
            assert blocked.resource == "host/h1"
            agent.send_signal(signal.SIGCONT)
            for one, text in ((task, "x\n"), (waiting, "later\n")):
                await platform.until(lambda one=one: platform.now(one).finished)
                ended = platform.now(one)
                assert (ended.state, ended.attempt) == (State.DONE, 1), (ended.failure, platform.logs())
                assert ended.result["stdout"] == text

    asyncio.run(check())


FULL = """
import asyncio, sys
from pathlib import Path
from enisle.control.keeper_client import KeeperClient
async def main():
    client = KeeperClient(Path(sys.argv[1]) / "web")
    process = client.spawn({"name": sys.argv[2], "configuration": {"memory": "64M"}, "program": []})
    await client.wait_until_ready(process)
    await client.ask("start", task="much", token=5, argv=["sh", "-c", "yes | head -c 3000000; echo end >&2"])
    print(await client.ask("wait", task="much", wait_s=20))
    await client.ask("start", task="more", token=6, argv=["echo", "more"])
    print(await client.ask("wait", task="more", wait_s=20))
    await client.stop("done", token=7)
    process.wait(5)
asyncio.run(main())
"""


@pytest.mark.root
def test_a_full_disk_costs_output_and_no_command(tmp_path: Path) -> None:
    tmp_path.joinpath("full").mkdir()
    mounting = f'mount -t tmpfs -o size=200k none {tmp_path}/full && exec "$@"'
    words = [sys.executable, "-c", FULL, f"{tmp_path}/full", f"full-{os.getpid()}"]
    found = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounting, "sh", *words], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    much, more = (eval(line) for line in found.stdout.splitlines())
    assert (much["exit_code"], much["truncated"], len(much["stdout"]), much["stderr"]) == (0, True, 16 << 10, "end\n")
    assert (more["exit_code"], more["stdout"]) == (0, "more\n")
