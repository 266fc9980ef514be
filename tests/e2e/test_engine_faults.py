"""The engine killed, stopped, starved, outdated, mistaken for another: what its owner and its clients see."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.errors import EnisleError, HostError, InvalidRequest, StateError
from enisle.tasks import (
    CONTROL,
    Engine,
    Entry,
    JetStream,
    StoreGuard,
    Unavailable,
    admit_host,
    engine_address,
    new_identity,
)
from enisle.tasks.admission import find_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine") as engine:
        yield engine


def kill(engine: Engine) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    while engine.running:
        time.sleep(0.002)


def test_a_killed_engine_is_back_on_its_port_with_all_it_acknowledged(engine: Engine) -> None:
    """Writers never learn of it but by waiting: each goes on with the revision it had."""

    async def write(store: JetStream, key: str, until: float, acknowledged: dict[str, int]) -> None:
        revision = 0
        while time.monotonic() < until:
            revision = await store.cas(key, {"n": revision}, revision)
            acknowledged[key] = revision

    async def check() -> None:
        acknowledged: dict[str, int] = {}
        async with JetStream(engine.url) as store:
            port, end = engine.port, time.monotonic() + 2
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(write(store, f"res.x.{number}", end, acknowledged))
                for _ in range(2):
                    await asyncio.sleep(0.4)
                    kill(engine)
                    begin = time.monotonic()
                    engine.start()
                    await store.cas(f"res.after.{begin}".replace(".", "-", 3), {}, 0)
                    assert time.monotonic() - begin < 5
            assert engine.port == port
            assert len(acknowledged) == 8
            for key, revision in acknowledged.items():
                assert (await store.get_leader(key)).revision == revision

    asyncio.run(check())


def test_a_watch_goes_on_after_the_engines_death_and_tells_no_older_news(engine: Engine) -> None:
    async def check() -> None:
        async with JetStream(engine.url) as store:
            first = await store.cas("res.a", {"n": 1}, 0)
            seen: list[Entry] = []

            async def follow() -> None:
                async for entry in store.watch("res."):
                    if entry and entry.key:
                        seen.append(entry)

            following = asyncio.create_task(follow())
            async with asyncio.timeout(10):
                while not seen:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(kill, engine)
                engine.start()
                second = await store.cas("res.a", {"n": 2}, first)
                begin = time.monotonic()
                while seen[-1].revision < second:
                    await asyncio.sleep(0.01)
            assert time.monotonic() - begin < 3
            assert [entry.revision for entry in seen] == sorted({first, second})
            following.cancel()
            await asyncio.wait([following])

    asyncio.run(check())


def test_a_stopped_engine_is_waited_for_no_longer_than_patience_and_then_served_on(engine: Engine) -> None:
    async def check() -> None:
        async with JetStream(engine.url) as store:
            revision = await store.cas("res.a", {"n": 1}, 0)
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                begin = time.monotonic()
                assert not await asyncio.to_thread(engine.responds, 0.3)
                assert not await asyncio.to_thread(engine.heal), "a stopped engine is not a broken one"
                writing = asyncio.create_task(store.cas("res.a", {"n": 2}, revision))
                await asyncio.sleep(1.5)
                assert not writing.done()
            finally:
                os.kill(engine.pid, signal.SIGCONT)
            done = await writing
            assert time.monotonic() - begin < 10
            assert (await store.get_leader("res.a")).revision == done > revision
            assert engine.responds()

    asyncio.run(check())


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


async def write_much(store: JetStream, kept: dict[str, int]) -> None:
    for number in range(200):
        kept[f"res.x.{number}"] = await store.cas(f"res.x.{number}", {"p": "x" * 100_000}, 0)


@pytest.mark.root
def test_a_full_disk_is_named_and_room_is_all_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enisle.tasks.jetstream.PATIENCE_S", 2.0)

    async def fill(engine: Engine, disk: Path) -> None:
        kept: dict[str, int] = {}
        async with JetStream(engine.url) as store:
            with pytest.raises(Unavailable, match="is full") as refusal:
                await write_much(store, kept)
            assert "make room" in refusal.value.hint
            assert not engine.heal(), "there is no room yet"
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            assert engine.heal()
            assert not engine.heal(), "it is well now"
            assert await store.cas("res.y", {}, 0) > max(kept.values())
            for key, revision in kept.items():
                assert (await store.get_leader(key)).revision == revision

    with small_disk(tmp_path / "disk", "8m") as disk, Engine(disk / "engine") as engine:
        asyncio.run(fill(engine, disk))


@pytest.mark.root
def test_a_disk_without_any_room_refuses_a_platform(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "filler").write_bytes(b"x" * (60 << 10))
        with pytest.raises(HostError) as refusal, Engine(disk / "engine"):
            pass
        assert "space" in refusal.value.why or "full" in str(refusal.value)


def fake_server(path: Path, version: str) -> str:
    """Make a program that greets as a nats-server of another version."""
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, re, socket, sys\n"
        "port = int(re.search(r':(\\d+)\"', open(sys.argv[2]).read()).group(1))\n"
        "door = socket.create_server(('127.0.0.1', port))\n"
        "while True:\n"
        "    guest, _ = door.accept()\n"
        f"    guest.sendall(b'INFO ' + json.dumps({{'version': {version!r}}}).encode() + b'\\r\\n')\n"
    )
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("version", ["2.11.9", "1.4.0", "nonsense", ""])
def test_an_engine_too_old_is_refused(version: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(HostError, match="too old") as refusal:
        with Engine(tmp_path / "engine", server=fake_server(tmp_path / "old", version)):
            pass
    assert "2.12" in refusal.value.hint
    assert time.monotonic() - begin < 5


def test_a_program_that_is_no_engine_is_refused(tmp_path: Path) -> None:
    for words in ("exit 3", "echo what shall I do >&2; exit 1"):
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o700)
        with (
            pytest.raises(HostError, match="does not start") as refusal,
            Engine(tmp_path / "engine", server=str(program)),
        ):
            pass
        assert "echo" not in words or refusal.value.why == "what shall I do"
    with pytest.raises(HostError, match="cannot run"):
        Engine(tmp_path / "engine", server=str(tmp_path))


DAMAGED = ["", "{", "[]", '{"port": "x"}', '{"port": 1e99}', "\x00" * 100, '{"port": -5}']


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_memory_of_the_address_is_made_anew_and_what_is_stored_stays(content: str, tmp_path: Path) -> None:
    async def put(engine: Engine) -> int:
        async with JetStream(engine.url) as store:
            return await store.cas("res.a", {"n": 1}, 0)

    async def get(engine: Engine) -> int:
        async with JetStream(engine.url) as store:
            return (await store.get_leader("res.a")).revision

    with Engine(tmp_path / "engine") as engine:
        revision = asyncio.run(put(engine))
    (tmp_path / "engine" / "engine.json").write_text(content)
    with pytest.raises(StateError, match="cannot be read"):
        engine_address(tmp_path / "engine")
    with Engine(tmp_path / "engine") as engine:
        assert asyncio.run(get(engine)) == revision
    with pytest.raises(StateError, match="there is no engine"):
        engine_address(tmp_path / "nowhere")


def test_stale_locks_and_numbers_of_processes_stop_nobody(tmp_path: Path) -> None:
    """The lock is the kernel's, not the file; a process that only has the number is not signalled."""
    directory = tmp_path / "engine"
    with Engine(directory):
        pass
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            (directory / "lock").write_text(f"{bystander.pid}\n")
            (directory / "nats.pid").write_text(f"{bystander.pid}\n")
            assert find_engine(directory) is None
            admit_host(directory, "h4", new_identity().public)
            time.sleep(0.1)
            assert bystander.poll() is None, "SIGHUP reached a stranger"
            with Engine(directory) as engine:
                assert find_engine(directory) == engine.pid
        finally:
            bystander.kill()


def test_a_taken_port_is_named_when_asked_for_and_avoided_when_remembered(tmp_path: Path) -> None:
    with Engine(tmp_path / "engine") as engine:
        port = engine.port
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(HostError, match=f"port {port}"), Engine(tmp_path / "engine", port=port):
            pass
        with Engine(tmp_path / "engine") as engine:
            assert engine.port != port
    for listen in ("localhost", "", "300.1.1.1", "127.0.0.1:4222"):
        with pytest.raises(InvalidRequest):
            Engine(tmp_path / "engine", listen=listen)


def test_damaged_lists_of_hosts_and_marks_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "engine"
    with Engine(directory):
        pass
    for content in ("{", "[]", '{"h 1": "U"}', '{"h1": 5}'):
        (directory / "hosts.json").write_text(content)
        with pytest.raises(EnisleError), Engine(directory):
            pass
    (directory / "hosts.json").unlink()
    (directory / "mark").mkdir(exist_ok=True)
    (directory / "mark" / "watermark.db").write_bytes(b"no database" * 1000)
    with Engine(directory) as engine:

        async def look() -> None:
            async with JetStream(engine.url):
                pass

        with pytest.raises(HostError, match="high-water mark") as refusal:
            asyncio.run(look())
        assert "remove it" in refusal.value.hint


def test_nobody_there_is_told_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enisle.tasks.connection.CONNECT_S", 1.5)

    async def look(url: str) -> None:
        async with JetStream(url):
            pass

    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in ("nats://127.0.0.1:1", f"nats://127.0.0.1:{silent.getsockname()[1]}"):
            begin = time.monotonic()
            with pytest.raises(HostError, match="cannot reach the engine") as refusal:
                asyncio.run(look(url))
            assert time.monotonic() - begin < 5
            assert "enisle up" in refusal.value.hint
    with Engine(tmp_path / "engine") as engine, pytest.raises(HostError, match="refuses us"):
        asyncio.run(look(f"nats://enisle:wrong@127.0.0.1:{engine.port}"))


def test_what_the_state_directory_holds_is_its_owners_alone(engine: Engine) -> None:
    async def use() -> None:
        async with JetStream(engine.url, bucket=CONTROL) as store:
            guard = asyncio.create_task(StoreGuard(store, engine.directory).run())
            await store.cas("res.a", {}, 0)
            await asyncio.sleep(0.7)
            guard.cancel()
            await asyncio.wait([guard])

    asyncio.run(use())
    assert engine.directory.stat().st_mode & 0o777 == 0o700
    secret = json.loads((engine.directory / "engine.json").read_text())["password"]
    for path in engine.directory.iterdir():
        if path.is_file() and secret.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path
    assert secret not in Path(f"/proc/{engine.pid}/cmdline").read_text()
