"""What a host may do at the engine, and that it may do no more: each attempt is a real one, over the wire."""

import asyncio
import contextlib
import json
import multiprocessing
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from enisle.errors import HostError, InvalidRequest, NotFound, StateError
from enisle.tasks import (
    PROGRESS,
    Conflict,
    Engine,
    Entry,
    FastLane,
    Identity,
    JetStream,
    LaneCall,
    LaneWorker,
    Outcome,
    admit_host,
    admitted,
    expel_host,
    identity_of,
    new_identity,
)
from enisle.tasks.connection import connect
from enisle.tasks.questions import Questions

ORDER = {"n": 1}
READ = "API.DIRECT.GET.KV_ctl.$KV.ctl."
FOREIGN_WRITES = [
    "$KV.ctl.asg.h5.t1",
    "$KV.ctl.task.t1",
    "$KV.ctl.lock.island.a",
    "$KV.ctl.host.h5",
    "$KV.ctl.lease.dispatcher",
    "$KV.ctl.cfg.epoch",
    "$KV.ctl.stop.h4.t1",
    "$KV.ctl.token.x",
    "$KV.ctl.res.island.a",
    "$KV.prog.prog.h5.t1",
    "$KV.prog.live.h5.island.a",
]
FOREIGN_REQUESTS = [
    READ + "asg.h5.t1",
    READ + "task.t1",
    READ + "token.x",
    "API.DIRECT.GET.KV_ctl",
    "API.STREAM.MSG.GET.KV_ctl",
    "API.STREAM.DELETE.KV_ctl",
    "API.STREAM.PURGE.KV_ctl",
    "API.STREAM.INFO.KV_ctl",
    "API.CONSUMER.NAMES.KV_ctl",
    "API.CONSUMER.CREATE.KV_ctl.x.$KV.ctl.>",
    "API.CONSUMER.CREATE.KV_ctl.h4=asg.$KV.ctl.asg.h5.>",
    "API.CONSUMER.CREATE.KV_ctl.h5=asg.$KV.ctl.asg.h4.>",
    "API.CONSUMER.DELETE.KV_ctl.h5=asg",
    "API.CONSUMER.MSG.NEXT.KV_ctl.h5=asg",
    "ask.h5",
    "run.default.acme.c1",
    "run.other.acme.c1",
    "res.other.acme.c1",
    "beg.other.acme.c1",
    "$JS.ACK.RUN.other.1.1.1.1.0",
    "$JS.ACK.KV_ctl.default.1.1.1.1.0",
    "API.CONSUMER.MSG.NEXT.RUN.other",
    "API.CONSUMER.INFO.RUN.default",
    "API.CONSUMER.CREATE.RUN.default.run.default.>",
    "API.CONSUMER.DELETE.RUN.default",
    "API.STREAM.MSG.GET.RUN",
    "API.STREAM.PURGE.RUN",
    "API.DIRECT.GET.RUN.run.default.acme.c1",
    "API.DIRECT.GET.RES.res.default.acme.c1",
    "API.DIRECT.GET.RES",
    "API.DIRECT.GET.BEG.beg.other.acme.c1",
    READ + "member.h5",
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine") as engine:
        yield engine


@contextlib.asynccontextmanager
async def joined(engine: Engine, host: str) -> AsyncIterator[tuple[JetStream, JetStream, Client, Identity]]:
    """A host that was let in: its stores, and a bare connection as it."""
    who = new_identity()
    admit_host(engine.directory, host, who.public)
    ca, bare = engine.address.ca, Client()
    async with (
        JetStream(engine.hosts_url, seed=who.seed, ca=ca, host=host) as store,
        JetStream(engine.hosts_url, seed=who.seed, ca=ca, host=host, bucket=PROGRESS) as progress,
    ):
        await connect(bare, [engine.hosts_url], who.seed, ca)
        try:
            yield store, progress, bare, who
        finally:
            await bare.close()


async def first_entries(store: JetStream, prefix: str, count: int) -> list[Entry]:
    found: list[Entry] = []
    async with asyncio.timeout(10):
        async for entry in store.watch(prefix):
            if entry:
                found.append(entry)
            if len(found) == count:
                break
    return found


def test_a_host_does_its_work_under_its_own_name(engine: Engine) -> None:
    """Orders, stops and the epoch are watched by consumers named by the host as a whole token; outcomes are guarded."""

    async def check() -> None:
        async with JetStream(engine.url) as ours, JetStream(engine.url, bucket=PROGRESS) as our_progress:
            token = await ours.cas("asg.h4.t1", ORDER, 0)
            await ours.cas("asg.h5.t1", ORDER, 0)
            await ours.cas("cfg.epoch", {"epoch": 7}, 0)
            async with joined(engine, "h4") as (store, progress, _, _):
                assert (await first_entries(store, "asg.h4.", 1))[0] == Entry("asg.h4.t1", ORDER, token)
                assert (await first_entries(store, "asg.h4.", 1))[0].revision == token  # the name is free again
                assert (await first_entries(store, "stop.h4.", 1))[0] == Entry("", None, 0)
                assert (await first_entries(store, "cfg.epoch", 1))[0].value == {"epoch": 7}
                assert (await store.get_leader("cfg.epoch")).value == {"epoch": 7}
                assert (await store.get_leader("asg.h4.t1")).revision == token
                assert (await store.get_leader("asg.h4.t2")).revision == 0
                watch = store.watch("asg.h4.")
                seen = [await anext(watch), await anext(watch)]
                done = await store.cas("asg.h4.t1", {"n": 2}, token)
                assert (seen[1], await next_change(watch)) == (
                    Entry("asg.h4.t1", ORDER, token),
                    Entry("asg.h4.t1", {"n": 2}, done),
                )
                with pytest.raises(Conflict):
                    await store.cas("asg.h4.t1", {"n": 3}, token)
                lease = await store.lease("host.h4", {"host": "h4"}, 3)
                assert (await ours.get_leader("host.h4")).value == {"host": "h4"}
                await lease.release()
                assert (await ours.get_leader("host.h4")).value is None
                await progress.cas("prog.h4.t1", {"fraction": 0.5}, 0)
                await progress.cas("live.h4.island.a", {"state": "running"}, 0)
                assert (await our_progress.get_leader("prog.h4.t1")).value == {"fraction": 0.5}

    asyncio.run(check())


async def next_change(watch: object) -> Entry:
    async with asyncio.timeout(5):
        while not (entry := await anext(watch)):  # pyright: ignore
            pass
    return entry


def test_a_host_reaches_nothing_that_is_not_its_own(engine: Engine) -> None:
    async def check() -> None:
        async with (
            JetStream(engine.url) as ours,
            JetStream(engine.url, bucket=PROGRESS),
            FastLane(ours, "other") as lane,
        ):
            await lane.submit("a.b@1", {})
            for key in ("asg.h4.t1", "asg.h5.t1", "task.t1", "token.x"):
                await ours.cas(key, ORDER, 0)
            before = await everything(ours)
            async with joined(engine, "h5"), joined(engine, "h4") as (_, _, bare, _):
                assert json.loads((await bare.request(READ + "asg.h4.t1", b"", timeout=2)).data) == ORDER
                for subject in FOREIGN_WRITES + FOREIGN_REQUESTS:
                    with pytest.raises(NoRespondersError):
                        await bare.request(subject, b"{}", timeout=2)
                wide = {"stream_name": "KV_ctl", "config": {"name": "h4=asg", "filter_subject": "$KV.ctl.>"}}
                subject = "API.CONSUMER.CREATE.KV_ctl.h4=asg.$KV.ctl.asg.h4.>"
                answer = json.loads((await bare.request(subject, json.dumps(wide).encode(), timeout=2)).data)
                assert answer["error"]["err_code"] == 10131, "a filter wider than the permission"
            assert await everything(ours) == before
            assert (await lane.figures()).waiting == 1

    asyncio.run(check())


def test_a_host_does_calls_of_its_pool_and_the_outcome_reaches_the_caller(engine: Engine) -> None:
    async def check() -> None:
        async with (
            JetStream(engine.url) as ours,
            JetStream(engine.url, bucket=PROGRESS),
            FastLane(ours, ack_wait_s=0.6) as lane,
        ):
            async with joined(engine, "h4") as (store, *_), LaneWorker(store, ack_wait_s=0.6) as worker:
                seen: list[LaneCall] = []
                await ours.cas("member.h4", {"drained": {}}, 0)
                assert (await store.get_leader("member.h4")).value == {"drained": {}}

                async def handler(call: LaneCall) -> object:
                    seen.append(call)
                    await asyncio.sleep(call.arguments["seconds"])
                    return {"did": call.id}

                working = asyncio.create_task(worker.work(handler))
                try:
                    for seconds in (0, 1.0):
                        call, outcome = await lane.run("a.b@1", {"seconds": seconds}, tenant="acme", timeout_s=10)
                        assert outcome is not None
                        assert (outcome.get(), outcome.runs) == ({"did": call}, 1)
                    assert [one.tenant for one in seen] == ["acme", "acme"]
                    assert (await lane.look(call, "acme")) == outcome, "it is kept, too"
                    async with asyncio.timeout(5):
                        while (figures := await lane.figures()).running:
                            await asyncio.sleep(0.01)
                    assert (figures.waiting, figures.done, figures.repeated) == (0, 2, 0)
                finally:
                    working.cancel()
                    await asyncio.wait([working])
                call = await lane.submit("a.b@1", {"seconds": 5})
                working = asyncio.create_task(worker.work(handler))
                while len(seen) < 3:
                    await asyncio.sleep(0.01)
                working.cancel()
                await asyncio.wait([working])
                async with LaneWorker(ours) as other:
                    working = asyncio.create_task(other.work(lambda call: asyncio.sleep(0, call.id)))
                    assert (await lane.wait(call, 5)) == Outcome(call, 1, call), "given back, and begun once for it"
                    working.cancel()
                    await asyncio.wait([working])

    asyncio.run(check())


async def everything(store: JetStream) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    async with asyncio.timeout(10):
        async for entry in store.watch(""):
            if entry:
                found[entry.key] = Entry(entry.key, entry.value, entry.revision)
                if entry.current:
                    break
    return found


def test_the_engines_answers_carry_nothing_to_where_a_host_may_not_write(engine: Engine) -> None:
    """Acknowledgements, reads and deliveries go wherever a request says, in the engine's own name."""

    async def check() -> None:
        async with (
            JetStream(engine.url) as ours,
            JetStream(engine.url, bucket=PROGRESS),
            Questions(engine.url) as asking,
        ):
            for key in ("asg.h4.t1", "asg.h5.t1", "task.t1"):
                await ours.cas(key, ORDER, 0)
            heard: list[str] = []
            async with joined(engine, "h5") as (*_, other, _), joined(engine, "h4") as (_, _, bare, _):

                async def hear(message: object) -> None:
                    heard.append(repr(message))

                await other.subscribe(">", cb=hear)
                await other.flush()
                foreign = ["$KV.ctl.task.t1", "$KV.ctl.asg.h5.t1", "$KV.prog.prog.h5.t1", "ask.h5", "_INBOX.x.1"]
                for target in foreign:
                    for subject in ("$KV.ctl.asg.h4.t1", READ + "asg.h4.t1"):
                        await bare.publish(subject, b'{"evil":1}', reply=target)
                    await push_consumer(bare, target)
                    await bare.publish("API.CONSUMER.MSG.NEXT.KV_ctl.h4=asg", b"1", reply=target)
                await bare.flush()
                await asyncio.sleep(0.5)
                with pytest.raises(StateError, match="does not answer"):
                    await asking.ask("h4", "x", {}, timeout_s=0.3)
            found = await everything(ours)
            assert found["asg.h4.t1"].value == {"evil": 1}, "what it may do was done"
            assert (found["task.t1"].value, found["asg.h5.t1"].value) == (ORDER, ORDER)
            assert not heard

    asyncio.run(check())


async def push_consumer(bare: Client, target: str) -> None:
    await bare.request("API.CONSUMER.DELETE.KV_ctl.h4=asg", b"", timeout=2)
    configuration = {
        "name": "h4=asg",
        "ack_policy": "none",
        "deliver_policy": "all",
        "filter_subject": "$KV.ctl.asg.h4.>",
        "deliver_subject": target,
        "mem_storage": True,
    }
    ask = json.dumps({"stream_name": "KV_ctl", "config": configuration}).encode()
    await bare.request("API.CONSUMER.CREATE.KV_ctl.h4=asg.$KV.ctl.asg.h4.>", ask, timeout=2)


def test_a_host_is_asked_where_it_is_and_nobody_answers_for_it(engine: Engine) -> None:
    async def check() -> None:
        async with Questions(engine.url) as asking, JetStream(engine.url), JetStream(engine.url, bucket=PROGRESS):
            async with joined(engine, "h4") as (*_, who), joined(engine, "h5") as (*_, other):

                async def echo(arguments: dict[str, object]) -> object:
                    return arguments

                async def lie(arguments: dict[str, object]) -> object:
                    return "a lie"

                async with (
                    Questions(engine.hosts_url, seed=other.seed) as liar,
                    Questions(engine.hosts_url, seed=who.seed) as host,
                ):
                    await liar.serve("h4", {"echo": lie})
                    with pytest.raises(StateError, match="h4 does not answer"):
                        await asking.ask("h4", "echo", {"a": 1}, timeout_s=0.3)
                    await host.serve("h4", {"echo": echo})
                    assert await asking.ask("h4", "echo", {"a": 1}) == {"a": 1}

    asyncio.run(check())


def test_hosts_come_and_go_while_others_work(engine: Engine) -> None:
    """The engine is told by any process of the same user; nobody else's connection breaks."""

    async def check() -> None:
        async with JetStream(engine.url) as ours, JetStream(engine.url, bucket=PROGRESS):
            connected = ours._client  # pyright: ignore
            async with joined(engine, "h4") as (store, _, bare, who):
                guest = new_identity()
                with pytest.raises(HostError, match="refuses us"):
                    async with JetStream(engine.hosts_url, seed=guest.seed, host="h5"):
                        pass
                admission = multiprocessing.get_context("spawn").Process(
                    target=admit_host, args=(engine.directory, "h5", guest.public)
                )
                admission.start()
                await asyncio.to_thread(admission.join)
                assert admission.exitcode == 0
                async with JetStream(engine.hosts_url, seed=guest.seed, host="h5") as newcomer:
                    await newcomer.cas("asg.h5.t1", ORDER, 0)
                    assert await store.cas("asg.h4.t1", ORDER, 0)
                    expel_host(engine.directory, "h5")
                    for _ in range(100):
                        if not newcomer._client.is_connected:  # pyright: ignore
                            break
                        await asyncio.sleep(0.05)
                    assert not newcomer._client.is_connected  # pyright: ignore
                assert connected.stats["reconnects"] == 0
                assert bare.stats["reconnects"] == 0
                assert admitted(engine.directory) == {"h4": who.public}
                with pytest.raises(NotFound):
                    expel_host(engine.directory, "h5")
                with pytest.raises(StateError, match="another key"):
                    admit_host(engine.directory, "h4", guest.public)
                for bad in ("", "UAAA", guest.seed, who.public + "\n", None):
                    with pytest.raises(InvalidRequest):
                        admit_host(engine.directory, "h6", bad)  # pyright: ignore
                with pytest.raises(InvalidRequest):
                    admit_host(engine.directory, "h6 } x", guest.public)
                with pytest.raises(InvalidRequest):
                    identity_of("SUAAAA")
                assert identity_of(who.seed) == who

    asyncio.run(check())


def test_hosts_are_known_again_after_a_restart(tmp_path: Path) -> None:
    who = new_identity()

    async def work(engine: Engine, expected: int) -> int:
        async with JetStream(engine.url), JetStream(engine.hosts_url, seed=who.seed, host="h4") as store:
            return await store.cas("asg.h4.t1", ORDER, expected)

    with Engine(tmp_path / "engine") as engine:
        admit_host(engine.directory, "h4", who.public)
        first = asyncio.run(work(engine, 0))
    with Engine(tmp_path / "engine") as engine:
        assert asyncio.run(work(engine, first)) > first


def test_beyond_loopback_all_is_encrypted_and_the_engine_shows_who_it_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="without encryption"):
        Engine(tmp_path / "engine", listen="0.0.0.0", tls=False)
    with Engine(tmp_path / "engine", listen="0.0.0.0", advertise="127.0.0.1") as engine:
        assert engine.url.startswith("tls://")
        assert engine.hosts_url == f"tls://127.0.0.1:{engine.port}"

        async def check() -> None:
            async with JetStream(engine.url) as ours, JetStream(engine.url, bucket=PROGRESS):
                async with joined(engine, "h4") as (store, _, _, who):
                    await store.cas("asg.h4.t1", ORDER, 0)
                    assert (await ours.get_leader("asg.h4.t1")).value == ORDER
                    assert (ours.lease_ttl_s, store.lease_ttl_s) == (3.0, 3.0), "one engine with many addresses"
                    with pytest.raises(HostError, match=r"certificate|CERTIFICATE"):
                        async with JetStream(engine.hosts_url, seed=who.seed, host="h4"):  # the system's authorities
                            pass
                    with pytest.raises(HostError):
                        async with JetStream(engine.hosts_url.replace("tls:", "nats:"), seed=who.seed, host="h4"):
                            pass

        asyncio.run(check())
        with socket.create_connection(("127.0.0.1", engine.port), 2) as plain:
            plain.recv(4096)
            plain.sendall(b'CONNECT {"user":"x"}\r\nPING\r\n')
            assert b"PONG" not in plain.recv(4096)
        for name in ("ca.key", "server.key", "engine.json", "accounts.conf", "nats.conf", "hosts.json"):
            assert (engine.directory / name).stat().st_mode & 0o777 == 0o600
        authority = (engine.directory / "ca.pem").read_bytes()
    with Engine(tmp_path / "engine", listen="0.0.0.0", advertise="127.0.0.1") as engine:
        assert (engine.directory / "ca.pem").read_bytes() == authority
