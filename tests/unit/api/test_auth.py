"""Who may do what: tokens, scopes, sign-in codes, cookies, names that are not ours, too many failures."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from api_parts import LOCAL, Platform
from enisle.api import sign_in_code
from enisle.api.auth import MAX_FAILURES, WINDOW_S, Failures, host_of, neighbourhood
from enisle.api.server import bind, require_private
from enisle.api.tokens import TokenBook, local_token
from enisle.errors import InvalidRequest
from memory_store import MemoryStore

Body = Callable[[Platform, httpx.AsyncClient], Awaitable[None]]
TASK = {"routine": "platform.sleep@1", "arguments": {"seconds": 0.0}}


def run(state: Path, body: Body, token: str = LOCAL) -> None:
    async def main() -> None:
        platform = Platform(state)
        async with platform.running(), platform.client(token) as client:
            await body(platform, client)

    asyncio.run(main())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def tasks_of(platform: Platform) -> list[str]:
    return [key for key in platform.store.entries if key.startswith("task.")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("x"),
        bearer("enisle_000000000000_" + "a" * 43),
        bearer("enisle_*_>"),
        bearer(LOCAL[:-1]),
        bearer(LOCAL + "x"),
        {"Authorization": "Basic YTpi"},
        {"Authorization": f"Basic {LOCAL}"},
        {"Cookie": "enisle=x"},
        {"Cookie": "enisle=x", "X-Enisle": "1"},
    ],
)
def test_a_forged_submission_is_refused_and_changes_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/tasks", json=TASK, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert tasks_of(platform) == []

    run(tmp_path, body, token="")


def test_a_scope_reaches_as_far_as_it_says(tmp_path: Path) -> None:
    reach = {
        "read": (200, 403, 403, 403),
        "write": (200, 202, 403, 403),
        "admin": (200, 202, 200, 201),
        "join": (403, 403, 403, 201),
    }

    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        for scope, expected in reach.items():
            made = await client.post("/v1/tokens", json={"name": scope, "scopes": [scope]})
            assert made.status_code == 201
            headers = bearer(made.json()["token"])
            joining = {"name": "h9", "public_key": "UABC"}
            found = (
                (await client.get("/v1/tasks", headers=headers)).status_code,
                (await client.post("/v1/tasks", json=TASK, headers=headers)).status_code,
                (await client.get("/v1/tokens", headers=headers)).status_code,
                (await client.post("/v1/hosts", json=joining, headers=headers)).status_code,
            )
            assert found == expected, scope

    run(tmp_path, body)


def test_a_token_is_kept_as_a_hash_and_ends_when_revoked_or_expired(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        made = (await client.post("/v1/tokens", json={"name": "ci", "scopes": ["read"]})).json()
        secret, identity = made["token"], made["id"]
        assert secret not in str(platform.store.entries)
        assert [one["name"] for one in (await client.get("/v1/tokens")).json()["items"]] == ["ci"]
        assert (await client.get("/v1/hosts", headers=bearer(secret))).status_code == 200
        assert (await client.delete(f"/v1/tokens/{identity}")).status_code == 204
        assert (await client.get("/v1/hosts", headers=bearer(secret))).status_code == 401
        assert (await client.delete(f"/v1/tokens/{identity}")).status_code == 404
        brief = (await client.post("/v1/tokens", json={"name": "b", "scopes": ["read"], "expires_s": 0.3})).json()
        assert (await client.get("/v1/hosts", headers=bearer(brief["token"]))).status_code == 200
        await asyncio.sleep(0.35)
        assert (await client.get("/v1/hosts", headers=bearer(brief["token"]))).status_code == 401

    run(tmp_path, body)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_token_expires_by_the_clock_of_the_platform(hours: int) -> None:
    async def main() -> None:
        ahead = [0.0]
        book = TokenBook(MemoryStore(), LOCAL, now=lambda: time.time() + ahead[0])
        _, secret = await book.create("a", ["read"], "default", 1800)
        ahead[0] = hours * 3600.0
        assert (book.find_known(secret) is None) == (hours > 0)

    asyncio.run(main())


def test_a_token_made_elsewhere_a_moment_ago_is_found_at_the_engine(tmp_path: Path) -> None:
    async def main() -> None:
        store = MemoryStore()
        _, secret = await TokenBook(store, LOCAL).create("a", ["write"], "blue")
        other = TokenBook(store, LOCAL)
        assert other.find_known(secret) is None
        found = await other.find(secret)
        assert found
        assert (found.tenant, found.scopes) == ("blue", {"write", "read"})
        assert await other.find(secret[:-1] + "?") is None

    asyncio.run(main())


def test_a_code_signs_in_once_and_its_cookie_needs_our_page(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        code = sign_in_code(tmp_path)
        answer = await client.get("/", params={"code": code})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await client.get("/v1/sessions")).json()["scopes"] == ["admin", "join", "read", "write"]
        ours = {"X-Enisle": "1"}
        for headers in ({}, {"X-Enisle": "0"}, ours | {"Origin": "https://evil.example"}, ours | {"Origin": "null"}):
            assert (await client.post("/v1/tasks", json=TASK, headers=headers)).status_code == 403
        assert tasks_of(platform) == []
        same = ours | {"Origin": "http://127.0.0.1"}
        assert (await client.post("/v1/tasks", json=TASK, headers=same)).status_code == 202
        assert (await client.delete("/v1/sessions", headers=ours)).status_code == 204
        assert (await client.get("/v1/sessions")).status_code == 401
        client.cookies.clear()
        for again in (code, "x" * 32, "../token"):
            assert (await client.post("/v1/sessions", json={"code": again})).status_code == 401
        assert (await client.post("/v1/sessions", json={"code": sign_in_code(tmp_path)})).status_code == 201

    run(tmp_path, body, token="")


def test_an_old_code_is_worth_nothing(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        code = sign_in_code(tmp_path)
        (file,) = (tmp_path / "codes").iterdir()
        os.utime(file, (time.time() - 3600,) * 2)
        assert (await client.post("/v1/sessions", json={"code": code})).status_code == 401

    run(tmp_path, body, token="")


def test_many_failures_are_slowed_down_and_what_is_valid_passes(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        guess = bearer("enisle_000000000000_" + "b" * 43)
        statuses = [(await client.get("/v1/tasks", headers=guess)).status_code for _ in range(MAX_FAILURES + 5)]
        assert statuses == [401] * MAX_FAILURES + [429] * 5
        assert (await client.post("/v1/sessions", json={"code": "guess"})).status_code == 429
        assert (await client.get("/v1/tasks", headers=bearer(LOCAL))).status_code == 200

    run(tmp_path, body, token="")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("192.0.2.7:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_ours_is_not_answered_to(tmp_path: Path, host: str, status: int) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/hosts", headers={"Host": host})).status_code == status

    run(tmp_path, body)


def test_hosts_are_read_from_headers_as_they_are_written() -> None:
    written = {"A.b:80": "a.b", "[::1]:80": "::1", "[::1]": "::1", "::1": "::1", "x": "x", " x:1 ": "x"}
    assert {given: host_of(given) for given in written} == written


def test_the_local_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = local_token(path)
    assert local_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) > 50


def test_loopback_is_left_only_with_tls_or_when_told_so() -> None:
    for listen in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        require_private(listen, False, False)
    for listen in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(InvalidRequest, match="TLS"):
            require_private(listen, False, False)
        require_private(listen, True, False)
        require_private(listen, False, True)


def test_small_answers_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY only on sockets that say they are TCP: without, an answer waits 40 ms for an ACK."""
    with bind("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_the_console_is_served_with_a_policy_and_known_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "console").mkdir()
    (tmp_path / "console" / "index.html").write_text("<!doctype html><title>x</title>")
    (tmp_path / "console" / "a.js").write_text("1")
    (tmp_path / "console" / "__init__.py").write_text("")

    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        page = await client.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        script = await client.get("/console/a.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert script.headers["cache-control"] == "no-cache"
        lasting = await client.get("/console/a.js", params={"v": script.headers["etag"].strip('"')})
        assert "immutable" in lasting.headers["cache-control"]
        assert (await client.get("/console/__init__.py")).status_code == 404

    run(tmp_path, body, token="")


def test_a_token_tells_when_it_was_last_used_at_the_price_of_a_write_a_minute(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        made = (await client.post("/v1/tokens", json={"name": "ci", "scopes": ["read"]})).json()
        assert made["used"] is None
        before = platform.store.now(f"token.{made['id']}").revision
        for _ in range(20):
            assert (await client.get("/v1/tasks", headers=bearer(made["token"]))).status_code == 200
        (told,) = (await client.get("/v1/tokens")).json()["items"]
        assert told["used"] == pytest.approx(time.time(), abs=5)
        assert platform.store.now(f"token.{made['id']}").revision == before
        keeping = asyncio.create_task(platform.book.keep_used(0.02))
        try:
            async with asyncio.timeout(5):
                while not (entry := platform.store.now(f"token.{made['id']}")).value.get("used"):
                    await asyncio.sleep(0.01)
            assert entry.value["used"] == told["used"]
            assert entry.value["sha256"]
        finally:
            keeping.cancel()

    run(tmp_path, body)


def test_who_came_in_who_made_tokens_and_who_was_refused_is_in_the_audit(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        made = (await client.post("/v1/tokens", json={"name": "ci", "scopes": ["write"], "tenant": "acme"})).json()
        await client.delete(f"/v1/tokens/{made['id']}")
        await client.post("/v1/sessions", json={"code": sign_in_code(tmp_path)})
        await client.delete("/v1/sessions", headers={"Authorization": "", "X-Enisle": "1"})
        for _ in range(MAX_FAILURES + 5):
            await client.get("/v1/tasks", headers=bearer("x"))
        await asyncio.sleep(0.05)  # the view hears of it
        acts = (await client.get("/v1/audit")).json()["items"]
        told = [(one["action"], one["actor"], one["tenant"], one["about"].get("name")) for one in reversed(acts)]
        assert told == [
            ("create-token", "local", "acme", "ci"),
            ("revoke-token", "local", "acme", "ci"),
            ("sign-in", "session:console", "default", "console"),
            ("sign-out", "session:console", "default", "console"),
            ("refused", "", "", None),
            ("refused", "", "", None),
        ]
        assert [one["about"]["failures"] for one in acts[:2]] == [MAX_FAILURES, 1]
        assert all(one["address"] == "127.0.0.1" and made["token"] not in str(one) for one in acts)
        first = (await client.get("/v1/audit", params={"limit": 4})).json()
        rest = (await client.get("/v1/audit", params={"limit": 4, "cursor": first["next"]})).json()
        assert (first["items"] + rest["items"], rest["next"]) == (acts, None)
        (only,) = (await client.get("/v1/audit", params={"action": "sign-in"})).json()["items"]
        assert only == acts[3]
        assert (await client.get("/v1/audit", params={"action": "sign-in", "cursor": first["next"]})).status_code == 400

    run(tmp_path, body)


def test_failures_are_counted_by_what_one_client_can_choose_from() -> None:
    assert neighbourhood("192.0.2.7") == "192.0.2.7"
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:1") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("fe80::1%eth0")
    assert neighbourhood("no address") == "no address"
    failures = Failures()
    for number in range(10_000):
        failures.add(str(number))
    assert len(failures._counts) == 4096


def test_failures_are_forgotten_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(at=100.0, monotonic=lambda: clock.at)
    monkeypatch.setattr("enisle.api.auth.time", clock)
    failures = Failures()
    for _ in range(MAX_FAILURES):
        assert not failures.too_many("192.0.2.7")
        failures.add("192.0.2.7")
        clock.at += 1
    assert failures.too_many("192.0.2.7")
    assert not failures.too_many("192.0.2.8")
    assert failures.left_s("192.0.2.7") == pytest.approx(WINDOW_S - MAX_FAILURES)
    clock.at = 100.0 + WINDOW_S
    assert not failures.too_many("192.0.2.7")
    assert failures.add("192.0.2.7") == 1, "a new minute is counted from one"


def test_who_guesses_costs_the_engine_nothing_more(tmp_path: Path) -> None:
    """After too many failures only tokens that are known here are looked for."""

    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        asked: list[str] = []
        read = platform.store.get_leader

        async def counted(key: str) -> object:
            asked.append(key)
            return await read(key)

        platform.store.get_leader = counted
        guesses = [bearer(f"enisle_{number:012x}_" + "b" * 43) for number in range(2 * MAX_FAILURES)]
        for guess in guesses:
            await client.get("/v1/tasks", headers=guess)
        assert len([key for key in asked if key.startswith("token.")]) == MAX_FAILURES

    run(tmp_path, body, token="")
