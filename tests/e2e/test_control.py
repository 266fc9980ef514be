"""Islands of the platform through a real engine, dispatcher, agent and keepers: what they promise, and real deaths."""

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control_parts import SMALL, WHO, Platform, keeper_pid
from enisle.control import IslandSpec
from enisle.control.dispatcher import Adopter
from enisle.control.keeper import MAX_CONNECTIONS
from enisle.control.keeper_client import KeeperClient, KeeperGone
from enisle.control.wire import StaleToken, encode
from enisle.errors import EnisleError, InvalidRequest, NotFound, StateError
from enisle.tasks import Request, Resource, State, Tasks


def on_a_platform(body: Callable[[Platform], Awaitable[None]]) -> Callable[[Path], None]:
    """Make a test of a coroutine on a platform of its own."""

    def test(tmp_path: Path) -> None:
        async def run() -> None:
            async with Platform(tmp_path / "state") as platform:
                await body(platform)

        asyncio.run(run())

    test.__name__, test.__doc__ = body.__name__, body.__doc__
    return test


async def make(platform: Platform, name: str = "web", **more: Any) -> None:
    await platform.done(platform.operations.create_island(IslandSpec(name=name, memory=SMALL, **more), **WHO))


async def written(platform: Platform, task: str) -> AsyncIterator[tuple[float, str, bytes]]:
    """Yield what a command writes as it comes: when, where, what."""
    after = 0
    while True:
        told = await platform.operations.task_output(task, after, 5.0)
        for chunk in told["chunks"]:
            yield time.monotonic(), chunk["stream"], base64.b64decode(chunk["data"])
        after = told["next"]
        if told["ended"] and not told["chunks"]:
            return


@on_a_platform
async def test_an_island_is_made_used_stopped_started_and_removed(platform: Platform) -> None:
    ask = platform.operations
    await make(platform, env={"GREETING": "hello"})
    shown = await ask.island("web", "default")
    assert (shown["state"], shown["host"], shown["holder"]) == ("running", "h1", None)
    told = await platform.done(ask.exec_island("web", ["sh", "-c", "echo $GREETING; echo no >&2; exit 3"], **WHO))
    assert (told["exit_code"], told["stdout"], told["stderr"], told["timed_out"]) == (3, "hello\n", "no\n", False)
    told = await platform.done(ask.exec_island("web", ["tr", "a-z", "A-Z"], stdin=b"loud", **WHO))
    assert told["stdout"] == "LOUD"
    told = await platform.done(ask.exec_island("web", ["sleep", "60"], timeout_s=0.3, **WHO))
    assert (told["exit_code"], told["timed_out"]) == (137, True)
    big = os.urandom(200_000)
    await platform.done(ask.write_file("web", "/tmp/big", big, 0o700, **WHO))
    assert await ask.read_file("web", "/tmp/big", 1000, 50) == big[1000:1050]
    assert await ask.read_file("web", "/tmp/big", 200_000) == b""
    assert await ask.list_files("web", "/tmp") == [{"name": "big", "mode": "-rwx------", "size": 200_000}]
    assert (await ask.island_statistics("web"))["memory_limit"] == 48 << 20
    with pytest.raises(NotFound, match="nowhere"):
        await ask.read_file("web", "/nowhere")
    for words, code in ((["no-such-program"], 127), (["/tmp"], 126)):
        told = await platform.done(ask.exec_island("web", words, **WHO))
        assert (told["exit_code"], words[0] in told["reason"]["message"]) == (code, True)
    with pytest.raises(StateError, match="running"):
        await ask.remove_island("web", **WHO)
    sleeping = await ask.exec_island("web", ["sleep", "60"], **WHO)
    await platform.until(lambda: "island.web" in platform.view.locks)
    assert await ask.island_processes("web") is not None
    await platform.done(ask.stop_island("web", **WHO))
    assert platform.now(sleeping).state is State.CANCELLED
    assert (await ask.island("web", "default"))["state"] == "stopped"
    refused = await platform.end(ask.exec_island("web", ["true"], **WHO))
    assert refused.failure
    assert refused.failure.message == "the island web is not running"
    await platform.done(ask.start_island("web", **WHO))
    assert (await platform.done(ask.exec_island("web", ["ls", "/tmp"], **WHO)))["stdout"] == ""
    await platform.done(ask.remove_island("web", True, **WHO))
    assert await ask.islands("default") == []
    assert platform.islands() == []
    with pytest.raises(NotFound):
        await ask.island("web", "default")


@on_a_platform
async def test_output_comes_as_it_is_written_and_a_program_ends_its_island(platform: Platform) -> None:
    ask = platform.operations
    await make(platform)
    task = await ask.exec_island("web", ["sh", "-c", "echo 1; sleep 0.5; echo 2 >&2; sleep 0.5; echo 3"], **WHO)
    seen = [piece async for piece in written(platform, task.id)]
    assert [(stream, text) for _, stream, text in seen] == [("stdout", b"1\n"), ("stderr", b"2\n"), ("stdout", b"3\n")]
    assert 0.6 < seen[-1][0] - seen[0][0] < 3
    much = await platform.done(ask.exec_island("web", ["sh", "-c", "yes | head -c 3000000"], **WHO))
    assert (len(much["stdout"]), much["truncated"]) == (16 << 10, True)
    last = sorted(task.id for task in platform.view.tasks.values() if task.finished)
    whole = [piece for one in last async for piece in written(platform, one)]
    assert sum(len(text) for _, _, text in whole) == 3_000_000 + 6
    await make(platform, "job", program=("sh", "-c", "echo begin; sleep 0.5; echo end; exit 5"))
    await platform.until(lambda: platform.view.live["island.job"]["state"] == "exited")
    shown = await ask.island("job", "default")
    assert (shown["state"], shown["exit_code"]) == ("exited", 5)
    log = await ask.logs("job")
    assert b"".join(base64.b64decode(one["data"]) for one in log["chunks"]) == b"begin\nend\n"
    assert log["ended"]
    assert [base64.b64decode(one["data"]) for one in (await ask.logs("job", tail=1))["chunks"]] == [b"end\n"]
    await platform.done(ask.remove_island("job", **WHO))
    await platform.done(ask.remove_island("web", True, **WHO))
    kept = await ask.task_output(task.id)
    assert [base64.b64decode(one["data"]) for one in kept["chunks"]] == [b"1\n3\n", b"2\n"]


@on_a_platform
async def test_an_agents_death_ends_no_command_and_each_is_done_once(platform: Platform) -> None:
    ask = platform.operations
    await make(platform)
    before = keeper_pid(platform.islands()[0])
    count = "echo x >> /tmp/count; sleep 2; cat /tmp/count"
    older = await ask.exec_island("web", ["sh", "-c", count], **WHO)
    await platform.until(lambda: (told := platform.view.tasks.get(older.id)) and told.started)
    newer = await ask.exec_island("web", ["sh", "-c", "sleep 2.5; echo newer"], **WHO)
    await platform.until(lambda: (told := platform.view.tasks.get(newer.id)) and told.started)
    await asyncio.sleep(0.4)
    platform.processes["agent"].kill()
    platform.processes["agent"].wait()
    assert keeper_pid(platform.islands()[0]) == before
    platform.start_agent()
    for task, text in ((older, "x\n"), (newer, "newer\n")):
        await platform.until(lambda task=task: platform.now(task).finished, 25)
        ended = platform.now(task)
        assert (ended.state, ended.attempt) == (State.DONE, 1), (ended.failure, platform.logs())
        assert ended.result["stdout"] == text
    assert keeper_pid(platform.islands()[0]) == before
    assert (await ask.island("web", "default"))["state"] == "running"


@on_a_platform
async def test_a_keepers_death_is_the_islands_and_told_with_its_reason(platform: Platform) -> None:
    ask = platform.operations
    await make(platform)
    island = platform.islands()[0]
    about = KeeperClient(island).about()
    assert about
    task = await ask.exec_island("web", ["sleep", "60"], **WHO)
    await platform.until(lambda: (told := platform.view.tasks.get(task.id)) and told.started)
    await asyncio.sleep(0.3)
    os.kill(keeper_pid(island), signal.SIGKILL)
    await platform.until(lambda: platform.now(task).finished)
    ended = platform.now(task)
    assert ended.state is State.FAILED
    assert ended.failure
    assert ended.failure.message == "the island web ended while the command ran"
    assert "keeper died" in ended.failure.why
    await platform.until(lambda: not Path(f"/proc/{about['island']}").exists())
    await platform.until(lambda: platform.view.live["island.web"]["state"] == "lost")
    assert "its keeper died" in (await ask.island("web", "default"))["notes"][0]
    await platform.done(ask.start_island("web", **WHO))
    assert (await platform.done(ask.exec_island("web", ["echo", "again"], **WHO)))["stdout"] == "again\n"
    # What ends the island's own process is the island's end, too: its keeper says how.
    about = KeeperClient(island).about()
    assert about
    os.kill(about["island"], signal.SIGSEGV)
    await platform.until(lambda: platform.view.live["island.web"]["state"] == "lost")
    assert "SIGSEGV" in (await ask.island("web", "default"))["notes"][0]
    platform.processes["agent"].kill()
    platform.processes["agent"].wait()
    platform.start_agent()
    await asyncio.sleep(1)
    assert (await ask.island("web", "default"))["state"] == "lost"


@on_a_platform
async def test_cancelling_asks_then_kills_and_removes_what_is_half_made(platform: Platform) -> None:
    ask, tasks = platform.operations, Tasks(platform.store)
    await make(platform)
    gentle = await ask.exec_island("web", ["sh", "-c", "trap 'echo bye; exit 0' TERM; sleep 60 & wait"], **WHO)
    stubborn = await ask.exec_island("web", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], **WHO)
    await platform.until(lambda: all(platform.now(one).started for one in (gentle, stubborn)))
    await asyncio.sleep(0.5)
    for task, least, most in ((gentle, 0, 2.0), (stubborn, 3.0, 7.0)):
        began = time.monotonic()
        await tasks.cancel(task.id, "enough")
        await platform.until(lambda task=task: platform.now(task).finished)
        assert platform.now(task).state is State.CANCELLED
        assert least <= time.monotonic() - began < most
    assert [text async for _, _, text in written(platform, gentle.id)] == [b"bye\n"]
    assert await ask.island_processes("web") == []
    coming = await ask.create_island(IslandSpec(name="half", memory=SMALL), **WHO)
    await platform.until(lambda: (told := platform.view.tasks.get(coming.id)) and told.started)
    assert (await ask.island("half", "default"))["state"] in ("creating", "running")
    try:
        await tasks.cancel(coming.id, "not wanted")
    except StateError:
        return  # it was faster
    await platform.until(lambda: platform.now(coming).finished)
    if platform.now(coming).state is State.CANCELLED:
        assert [path.name for path in platform.islands()] == ["web"]
        assert [one["name"] for one in await ask.islands("default")] == ["web"]


@on_a_platform
async def test_only_who_holds_an_island_acts_on_it_and_another_tenant_sees_nothing(platform: Platform) -> None:
    ask, tasks = platform.operations, Tasks(platform.store)
    await make(platform)
    raw = {"island": "web", "argv": ["true"]}
    for held in ((), (Resource("island", "other"),)):
        ended = await platform.end(tasks.submit(Request("island.exec@1", raw, held)))
        assert ended.failure
        assert "does not hold island/web" in ended.failure.message
    theirs = Tasks(platform.store, "guests")
    ended = await platform.end(theirs.submit(Request("island.exec@1", raw, (Resource("island", "web"),))))
    assert ended.failure
    assert ended.failure.message == "there is no island web"
    assert await ask.islands("guests") == []
    for attempt in (ask.island("web", "guests"), ask.stop_island("web", tenant="guests", actor="x")):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(StateError, match="already"):
        await ask.create_island(IslandSpec(name="web"), **WHO)
    with pytest.raises(InvalidRequest):
        await ask.exec_island("web", [], **WHO)
    unknown = await platform.end(ask.create_island(IslandSpec(name="odd", cpu=("no-such",)), **WHO))
    assert unknown.failure
    assert "no-such" in unknown.failure.message
    assert [path.name for path in platform.islands()] == ["web"]
    once = [await ask.create_island(IslandSpec(memory=SMALL), **WHO, key="one") for _ in range(2)]
    assert once[0].id == once[1].id
    await platform.until(lambda: platform.now(once[0]).finished)


@on_a_platform
async def test_an_island_whose_record_is_lost_is_adopted_and_never_ended(platform: Platform) -> None:
    ask = platform.operations
    await make(platform)
    keeper = keeper_pid(platform.islands()[0])
    entry = await platform.store.get_leader("res.island.web")
    await platform.store.cas("res.island.web", None, entry.revision)
    await platform.until(lambda: "island.web" not in platform.view.records)
    shown = await ask.island("web", "default")
    assert (shown["state"], shown["host"], "record is missing" in shown["notes"][0]) == ("running", "h1", True)
    assert (await platform.done(ask.exec_island("web", ["echo", "here"], **WHO)))["stdout"] == "here\n"
    adopter = Adopter(platform.store, platform.view, SimpleNamespace(leads=True), after_s=0.2)
    adopting = asyncio.create_task(adopter.run())
    await platform.until(lambda: "island.web" in platform.view.records)
    adopting.cancel()
    shown = await ask.island("web", "default")
    assert (shown["state"], shown["configuration"], shown["notes"]) == ("running", {"memory": SMALL}, [])
    assert keeper_pid(platform.islands()[0]) == keeper


@on_a_platform
async def test_what_a_lost_attempt_made_is_ended_and_another_island_of_that_name_is_not(platform: Platform) -> None:
    ask = platform.operations
    making = await ask.create_island(IslandSpec(name="web", memory=SMALL), **WHO)
    lock = platform.places.islands("h1") / "web" / "lock"
    await platform.until(lock.exists)  # its keeper works; its agent dies before it can tell anybody
    platform.processes["agent"].kill()
    spec = {
        "name": "db",
        "tenant": "default",
        "configuration": {"memory": SMALL},
        "program": [],
        "task": "old",
        "token": 1,
    }
    orphan = KeeperClient(platform.places.islands("h1") / "db").spawn(spec)
    platform.start("second", "agent", str(platform.places.directory), "--host", "h2")
    await platform.until(lambda: platform.now(making).finished, 25.0)
    assert (await ask.island("web", "default"))["host"] == "h2", platform.logs()
    await make(platform, "db", host="h2")
    stray, other = (KeeperClient(platform.places.islands("h1") / name) for name in ("web", "db"))
    assert stray.alive
    platform.processes["agent"].wait(10)
    platform.start_agent()
    await platform.until(lambda: len(platform.view.duplicates().get("island.db", {})) == 1)
    assert "duplicate: host h1" in (await ask.island("db", "default"))["notes"][-1]
    await platform.until(lambda: not stray.directory.exists())
    shown = await ask.island("web", "default")
    assert (shown["state"], shown["host"], other.alive) == ("running", "h2", True)
    refused = Request("island.discard@1", {"island": "db", "made": "old"}, (Resource("stray", "db"),), host="h1")
    failed = await platform.end(Tasks(platform.store, "default", "local").submit(refused))
    assert failed.failure
    assert "only the platform" in failed.failure.message
    await platform.done(ask.remove_island("db", force=True, **WHO))
    await platform.until(lambda: "island.db" in platform.view.live)
    assert ((await ask.island("db", "default"))["host"], other.alive) == ("h1", True)
    await other.stop("the test is over")
    orphan.wait(10)


def test_a_keeper_refuses_an_older_token_and_whoever_talks_nonsense(tmp_path: Path) -> None:
    async def check() -> None:
        client = KeeperClient(tmp_path / "web")
        spec = {"name": f"fence-{os.getpid()}", "configuration": {"memory": SMALL}, "program": []}
        process = client.spawn(spec)
        about = await client.wait_until_ready(process)
        try:
            start: dict[str, Any] = {"argv": ["sh", "-c", "echo done >> /tmp/x"]}
            await client.ask("start", task="new", token=8, **start)
            for verb, words in (
                ("start", {"task": "old", **start}),
                ("kill", {"task": "new", "signal": 9}),
                ("write", {"path": "/tmp/y"}),
                ("stop", {"why": "an old wish"}),
            ):
                with pytest.raises(StaleToken):
                    await client.ask(verb, token=7, **words)
            with pytest.raises(StaleToken):
                await client.ask("write", token=7, shared=True, path="/tmp/y")
            for _ in range(3):
                await client.ask("start", task="new", token=8, **start)
            assert (await client.ask("wait", task="new", wait_s=5))["exit_code"] == 0
            assert await client.ask("read", path="/tmp/x", offset=0, limit=100) == b"done\n"
            assert [one["name"] for one in await client.ask("list", path="/tmp")] == ["x"]
            for verb, words in (("nothing", {}), ("read", {}), ("start", {"task": "../x", "token": 9, "argv": ["a"]})):
                with pytest.raises((EnisleError, OSError)):
                    await client.ask(verb, **words)
            assert os.stat(tmp_path / "web" / "keeper.sock").st_mode & 0o777 == 0o600
            for noise in (b"\xff" * 64, b"\x05\0\0\0\0\0\0\0nojso"):
                async with client.connection() as keeper:
                    keeper._writer.write(noise)
                    await keeper._writer.drain()
                    keeper._writer.write_eof()
                    with contextlib.suppress(ConnectionResetError):
                        await asyncio.wait_for(keeper._reader.read(), 5)
            for _ in range(MAX_CONNECTIONS + 6):  # a place is free again when its connection has ended
                assert (await client.ask("about"))["state"] == "running"
            if os.geteuid() == 0:  # whatever the file's permissions say
                os.chmod(tmp_path / "web", 0o711)
                os.chmod(tmp_path / "web" / "keeper.sock", 0o666)
                assert (_answered_to(0, tmp_path / "web"), _answered_to(12345, tmp_path / "web")) == (True, False)
            assert _memory(about["pid"]) < 24 << 20
        finally:
            await client.stop("done")
        process.wait(5)
        assert not Path(f"/proc/{about['island']}").exists()
        with pytest.raises(KeeperGone):
            await client.ask("about")

    asyncio.run(check())


STRANGER = """
import os, socket, sys
question = sys.stdin.buffer.read()
os.setresuid(*[int(sys.argv[1])] * 3)
with socket.socket(socket.AF_UNIX) as door:
    door.connect("keeper.sock")
    door.settimeout(5)
    try:
        door.sendall(question)
        print(len(door.recv(100)))
    except OSError:
        print(0)
"""


def _answered_to(user: int, island: Path) -> bool:
    """Whether the keeper of an island says anything to a process of this user."""
    words = [sys.executable, "-I", "-S", "-c", STRANGER, str(user)]
    told = subprocess.run(words, cwd=island, input=encode({"verb": "about"}, b""), capture_output=True, check=True)
    return int(told.stdout) > 0


def _memory(pid: int) -> int:
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmRSS:") + 1]) << 10
