"""The Python client, sync and async, against the app on a socket: values, errors, retries, events."""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import enisle
from api_parts import LOCAL, Platform
from enisle.api import AsyncPlatform, Event, TaskFailed, changed_contexts
from enisle.api import Platform as Client
from enisle.api.results import require_done
from enisle.errors import EnisleError, HostError, InvalidRequest, NotFound, StateError

ISLAND = [("island", "a")]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Platform(tmp_path_factory.mktemp("state")).in_thread() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, LOCAL) as client:
        yield client


def test_the_package_offers_both_clients() -> None:
    assert enisle.Platform is Client
    assert enisle.AsyncPlatform is AsyncPlatform


def test_a_task_is_submitted_waited_for_listed_and_cancelled(client: Client) -> None:
    task = client.tasks.submit("platform.sleep@1", {"seconds": 0.1}, ISLAND)
    assert task.state in ("queued", "running")
    assert client.tasks.wait(task.id, timeout=10).result == 0.1
    assert next(iter(client.tasks.list())).id == task.id
    long = client.tasks.submit("platform.sleep@1", {"seconds": 30.0}, [("island", "a", "shared")])
    with pytest.raises(TimeoutError):
        client.tasks.wait(long.id, timeout=0.3)
    assert client.tasks.resources()[0].holders == [long.id]
    client.tasks.cancel(long.id, "enough")
    ended = client.tasks.wait(long.id, timeout=10)
    assert ended.failure
    assert (ended.state, ended.failure.why) == ("cancelled", "enough")
    assert client.tasks.retry(long.id).id != long.id
    assert "platform.sleep@1" in [one.name for one in client.tasks.routines()]


def test_errors_come_back_as_the_kinds_they_were(client: Client) -> None:
    kinds: list[tuple[type[EnisleError], Any]] = [
        (NotFound, lambda: client.tasks.get("none")),
        (NotFound, lambda: client.islands.get("none")),
        (NotFound, lambda: client.tokens.revoke("none")),
        (InvalidRequest, lambda: client.tasks.submit("platform.fly@1")),
        (InvalidRequest, lambda: client.tasks.submit("platform.sleep@1", {"seconds": 1.0}, [("island", "../x")])),
        (StateError, lambda: client.tasks.unlock("island", "free", "why not")),
        (InvalidRequest, lambda: Client("http://127.0.0.1", "enisle_x").tasks if 0 else Client("ftp://x", "y")),
    ]
    for kind, act in kinds:
        with pytest.raises(kind) as caught:
            act()
        assert caught.value.message
    with Client(client.url, "enisle_none") as stranger, pytest.raises(InvalidRequest) as refused:
        stranger.tasks.get("x")
    assert "token" in refused.value.message
    assert "enisle token new" in refused.value.hint


def test_who_would_not_wait_learns_the_holder_from_the_error(client: Client) -> None:
    holder = client.tasks.submit("platform.sleep@1", {"seconds": 1.0}, [("island", "busy")])
    with pytest.raises(StateError) as blocked:
        client.tasks.submit("platform.sleep@1", {"seconds": 0.0}, [("island", "busy")], if_blocked="fail")
    extras: Any = blocked.value.extras  # pyright: ignore[reportAttributeAccessIssue]
    assert extras["holder"] == holder.id


def test_an_island_is_made_used_and_removed(client: Client) -> None:
    with client.islands.create(name="demo", memory="256M", env={"A": "1"}) as island:
        assert island.seen.state == "running"
        assert [one.name for one in client.islands.list()] == ["demo"]
        pieces: list[bytes] = []
        result = island.exec(["0.1"], on_stdout=pieces.append)
        assert (result.exit_code, result.stdout, b"".join(pieces)) == (0, "hi\n" * 3, b"hi\n" * 3)
        island.files.write("/x", "text", 0o600)
        assert island.files.read("/x") == b"text"
        with pytest.raises(NotFound):
            island.files.read("/y")
        assert island.files.list("/")
        assert island.processes() == [{"pid": 1}]
        assert island.statistics() == {"calls": 1}
        assert b"".join(island.logs()) == b"hi\n" * 3


def test_a_failure_of_a_task_is_an_error_with_its_words(client: Client) -> None:
    task = client.tasks.submit("test.noisy@1", {"count": "three"})
    ended = client.tasks.wait(task.id, 10)
    with pytest.raises(TaskFailed) as failed:
        require_done(ended)
    assert failed.value.task.id == task.id


def test_tokens_are_made_and_revoked(client: Client) -> None:
    made = client.tokens.create("ci", ["read"], expires_s=60)
    with Client(client.url, str(made.token)) as reader:
        assert reader.hosts.list()[0].name == "h1"
        with pytest.raises(InvalidRequest, match="scope write"):
            reader.tasks.submit("platform.sleep@1", {"seconds": 0.0})
    client.tokens.revoke(made.id)
    assert made.id not in [one.id for one in client.tokens.list()]


def test_a_host_is_drained_and_given_work_again(client: Client) -> None:
    assert client.hosts.drain("h1", "a new disk").state == "draining"
    assert client.hosts.undrain("h1", "it is in").state == "live"
    with pytest.raises(NotFound, match="no host h9"):
        client.hosts.drain("h9", "it is not there")


def test_events_are_an_iterator(client: Client) -> None:
    task = client.tasks.submit("platform.sleep@1", {"seconds": 0.0})
    seen: list[Event] = []
    for event in client.events():
        seen.append(event)
        if event.name == "task" and event.id == task.id and event.value["state"] == "done":
            break
    assert "host" in {event.name for event in seen}


def test_the_async_client_does_the_same(url: str) -> None:
    async def main() -> None:
        async with AsyncPlatform(url, LOCAL) as platform:
            async with await platform.islands.create(name="async") as island:
                results = await asyncio.gather(*(island.exec(["0.05"]) for _ in range(3)))
                assert {result.stdout for result in results} == {"hi\n" * 3}
                await island.files.write("/x", b"1")
                assert await island.files.read("/x") == b"1"
            task = await platform.tasks.submit("platform.sleep@1", {"seconds": 0.0})
            assert (await platform.tasks.wait(task.id)).state == "done"
            assert [one.id async for one in platform.tasks.list(routine="platform.sleep")]
            with pytest.raises(NotFound):
                await platform.islands.get("none")
            async for event in platform.events():
                if event.name == "current":
                    break

    asyncio.run(main())


class Unsteady(http.server.BaseHTTPRequestHandler):
    """Breaks connections, says that it is not ready, then answers; notes the keys it was asked with."""

    seen: list[tuple[str, str | None]]
    answers: list[int]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, self.headers.get("Idempotency-Key")))
        status = self.answers.pop(0) if self.answers else 200
        if status == 0:
            self.connection.close()
            return
        body = json.dumps({"detail": "not now", "kind": "host-error"} | ({} if status != 200 else TOLD)).encode()
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


TOLD: dict[str, Any] = {
    "id": "t",
    "routine": "r@1",
    "arguments": {},
    "resources": [],
    "state": "queued",
    "host": "",
    "placement": "retryable",
    "attempt": 0,
    "attempts": 1,
    "submitted": 1.0,
    **dict.fromkeys(("started", "finished", "deadline", "blocked", "result", "failure", "progress")),
    "cancel": "",
    "actor": "",
    "tenant": "",
    "trace": "",
}


@pytest.fixture
def unsteady() -> Iterator[tuple[str, type[Unsteady]]]:
    handler = type("Handler", (Unsteady,), {"seen": [], "answers": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_what_has_a_key_is_asked_again_until_it_is_answered(unsteady: tuple[str, type[Unsteady]]) -> None:
    url, handler = unsteady
    handler.answers[:] = [0, 503, 502]
    with Client(url, "t") as client:
        assert client.tasks.submit("r@1").id == "t"
    assert len(handler.seen) == 4
    assert len({key for _, key in handler.seen}) == 1


def test_what_has_no_key_is_asked_once(unsteady: tuple[str, type[Unsteady]]) -> None:
    url, handler = unsteady
    handler.answers[:] = [0]
    with Client(url, "t") as client, pytest.raises(HostError, match="does not answer"):
        client.tasks.cancel("x")
    assert len(handler.seen) == 1


def test_nobody_there_is_told_soon_enough() -> None:
    begin = time.monotonic()
    with Client("http://127.0.0.1:9", "t") as client, pytest.raises(HostError, match="does not answer"):
        client.tasks.cancel("x")
    assert time.monotonic() - begin < 2


def test_a_client_finds_its_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("ENISLE_STATE", str(tmp_path / "state"))
    for name in ("ENISLE_URL", "ENISLE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StateError, match="no platform is known"):
        Client()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "platform.json").write_text(json.dumps({"url": url}))
    (tmp_path / "state" / "token").write_text(LOCAL)
    with Client() as client:
        assert client.hosts.list()
    with changed_contexts() as known:
        known["contexts"]["there"] = {"url": "http://192.0.2.1:1", "token": "t", "ca": ""}
        known["current"] = "there"
    with Client() as client:
        assert client.url == "http://192.0.2.1:1"
    monkeypatch.setenv("ENISLE_URL", url)
    monkeypatch.setenv("ENISLE_TOKEN", LOCAL)
    with Client() as client:
        assert client.hosts.list()


def test_an_administrator_works_in_a_tenant_and_reads_who_did_what(url: str) -> None:
    with Client(url, LOCAL, tenant="acme") as acme, Client(url, LOCAL, tenant="*") as every, Client(url, LOCAL) as own:
        task = acme.tasks.submit("platform.sleep@1", {"seconds": 0.0})
        assert (task.tenant, acme.tasks.wait(task.id, timeout=10).state) == ("acme", "done")
        assert [one.id for one in acme.tasks.list()] == [task.id]
        assert {"acme", "default"} == {one.tenant for one in every.tasks.list()}
        assert every.tasks.get(task.id).id == task.id
        with pytest.raises(NotFound):
            own.tasks.get(task.id)
        with pytest.raises(InvalidRequest, match="tenant"):
            every.tasks.submit("platform.sleep@1", {"seconds": 0.0})
        (act,) = own.audit(tenant="acme")
        assert (act.action, act.actor, act.about["task"]) == ("submit", "local", task.id)
        assert [one.id for one in acme.audit()] == [act.id]
        assert own.version().version == enisle.__version__

    async def check() -> None:
        async with AsyncPlatform(url, LOCAL, tenant="acme") as platform:
            assert [one.id async for one in platform.tasks.list()] == [task.id]
            assert [one.id async for one in platform.audit(action="submit")] == [act.id]
            assert (await platform.version()).api == "v1"

    asyncio.run(check())
