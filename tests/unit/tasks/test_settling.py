"""Refusals that are wrong, answers that never come, replicas that lag: a change is settled by what the leader has."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from enisle.tasks import Change, Conflict, Entry, JetStream, Unavailable
from enisle.tasks.leases import ABANDONED_TTLS, RenewedLease
from enisle.tasks.requests import Requests
from memory_store import MemoryStore

WRONG = {"error": {"err_code": 10164, "description": "wrong last sequence"}}


class Scripted(JetStream):
    """A store whose engine answers by a script; None: not at all. It keeps what it took."""

    def __init__(
        self, script: Sequence[Any], entries: dict[str, tuple[int, str]] | None = None, host: str = ""
    ) -> None:
        super().__init__("nats://127.0.0.1:1", host=host, seed="S" if host else None)
        self.script, self.entries = list(script), entries or {}
        self.published = 0

    async def _publish(self, changes: Sequence[Change], ttl_s: float, mark: str) -> Any:
        self.published += 1
        answer = self.script.pop(0)
        if answer == "taken, unanswered":
            self.entries[changes[-1].key] = (77, mark)
        if answer is None or answer == "taken, unanswered":
            raise Unavailable("the engine does not answer", "TimeoutError")
        if answer == "taken":
            return {"seq": 78}
        return answer

    async def _read(self, key: str) -> tuple[Entry, str]:
        revision, mark = self.entries.get(key, (0, ""))
        return Entry(key, {} if revision else None, revision), mark


def put(store: JetStream, expected: int = 5) -> int:
    return asyncio.run(store.cas("a", {"n": 1}, expected))


def test_a_refusal_with_the_right_revision_is_tried_again() -> None:
    store = Scripted([WRONG, WRONG, "taken"], {"a": (5, "another's")})
    assert (put(store), store.published) == (78, 3)


def test_a_refusal_with_another_revision_is_a_conflict_at_once() -> None:
    store = Scripted([WRONG], {"a": (6, "another's")})
    with pytest.raises(Conflict) as conflict:
        put(store)
    assert (conflict.value.expected, conflict.value.found) == (5, 6)


def test_a_change_that_was_made_but_not_answered_is_known_by_its_mark_and_made_once() -> None:
    store = Scripted(["taken, unanswered"], {"a": (5, "another's")})
    assert (put(store), store.published) == (77, 1)


def test_a_batch_that_is_made_while_we_look_is_ours() -> None:
    """Its last key was read before it was made, the others after."""

    class Late(Scripted):
        async def _read(self, key: str) -> tuple[Entry, str]:
            found = await super()._read(key)
            self.entries |= {name: (50 + number, self.mark) for number, name in enumerate("abc")}
            return found

        async def _publish(self, changes: Sequence[Change], ttl_s: float, mark: str) -> Any:
            self.mark = mark
            return await super()._publish(changes, ttl_s, mark)

    store = Late([None])
    assert asyncio.run(store.batch([Change(name, {}, 0) for name in "abc"])) == 52
    assert store.published == 1


def test_the_same_value_by_another_is_not_taken_for_ours() -> None:
    store = Scripted([None], {"a": (6, "another's, with our value")})
    with pytest.raises(Conflict):
        put(store)


def test_a_lagging_replica_does_not_make_a_host_give_up_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older than expected is no news; newer is another's, at once; older for good is believed in the end."""
    monkeypatch.setattr("enisle.tasks.jetstream.LAG_S", 0.1)
    late = Scripted([WRONG, "taken"], {"a": (3, "another's")}, host="h4")
    assert put(late) == 78
    fenced = Scripted([WRONG], {"a": (9, "another's")}, host="h4")
    with pytest.raises(Conflict):
        put(fenced)
    gone = Scripted([WRONG] * 100, {"a": (0, "")}, host="h4")
    begin = time.monotonic()
    with pytest.raises(Conflict):
        put(gone)
    assert 0.1 <= time.monotonic() - begin < 2


def test_an_engine_that_refuses_for_another_reason_is_unavailable_not_a_conflict() -> None:
    store = Scripted([{"error": {"err_code": 10023, "description": "insufficient resources"}}], {"a": (5, "")})
    with pytest.raises(Unavailable) as refusal:
        put(store)
    assert refusal.value.why == "insufficient resources"


class Slow:
    """A store that takes its time to renew."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def batch(self, changes: list[Change], ttl_s: float = 0) -> int:
        await asyncio.sleep(self.seconds)
        return 1

    async def get_leader(self, key: str) -> Entry:
        return Entry(key, None, 0)


def test_a_lease_is_ours_from_the_start_of_its_renewal_not_from_its_answer() -> None:
    """The engine's clock began some time in between: the holder must stop before anybody else may begin."""

    async def check() -> None:
        lease = RenewedLease(Slow(0.4), "lease.x", {}, 1.0)
        begin = time.monotonic()
        await lease.take()
        assert lease.left_s() <= 1.0 - (time.monotonic() - begin) + 0.01
        left = lease.left_s()
        async with asyncio.timeout(5):
            while (now := lease.left_s()) <= left:  # until it is renewed
                left = now
                await asyncio.sleep(0.005)
        assert now <= 1.0 - 0.4
        await lease.release()

    asyncio.run(check())


def test_a_lease_that_is_renewed_before_our_eyes_is_not_taken_however_long_we_look() -> None:
    async def check() -> None:
        store = MemoryStore()
        theirs = await store.lease("lease.x", {"who": "they"}, 0.2)
        begin = time.monotonic()
        while time.monotonic() - begin < 0.2 * (ABANDONED_TTLS + 2):
            with pytest.raises(Conflict):
                await store.lease("lease.x", {"who": "we"}, 0.2)
            await asyncio.sleep(0.02)
        assert theirs.held
        await theirs.release()

    asyncio.run(check())


def test_a_lease_that_was_lost_to_another_is_not_ours_for_the_time_it_had_left() -> None:
    async def check() -> None:
        store = MemoryStore()
        lease = await store.lease("lease.x", {"who": "we"}, 0.6)
        await store.cas("lease.x", {"who": "they"}, store.now("lease.x").revision)
        async with asyncio.timeout(5):
            await lease.lost.wait()
        assert not lease.held
        assert lease.left_s() < 0

    asyncio.run(check())


def test_a_request_nobody_answers_ends_by_the_clock_and_is_forgotten() -> None:
    class Mute:
        async def publish(self, *_: object, **__: object) -> None: ...

    async def check() -> None:
        requests = Requests(Mute(), 0.05)  # pyright: ignore
        with pytest.raises(Unavailable):
            await requests.ask("x", b"")
        assert not requests._waiting  # pyright: ignore

    asyncio.run(check())
