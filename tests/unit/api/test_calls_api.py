"""Calls over the API and its clients: at once, later, refused, and nobody else's."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_parts import LOCAL, Platform
from enisle.api import AsyncPlatform, CallFailed
from enisle.api import Platform as Client
from enisle.api.services import Health
from enisle.errors import InvalidRequest, StateError


def on_an_app(body: Callable[[Platform, httpx.AsyncClient], Awaitable[None]]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        async def run() -> None:
            platform = Platform(tmp_path)
            async with platform.running(), platform.client() as client:
                await body(platform, client)

        asyncio.run(run())

    test.__name__ = body.__name__
    return test


@on_an_app
async def test_the_outcome_comes_at_once_or_is_asked_for(platform: Platform, client: httpx.AsyncClient) -> None:
    done = await client.post("/v1/calls", json={"argv": ["cat"], "stdin": "hi"})
    assert (done.status_code, done.json()["state"], done.json()["result"]["stdout"]) == (200, "done", "hi")
    later = await client.post("/v1/calls", params={"wait": 0.05}, json={"argv": ["sleep", "0.4"]})
    assert (later.status_code, later.json()["state"], later.json()["result"]) == (202, "waiting", None)
    where = later.headers["location"]
    assert (await client.get(where)).json()["state"] == "waiting"
    assert (await client.get(where, params={"wait": 5})).json()["state"] == "done"
    failed = (await client.post("/v1/calls", json={"argv": ["deadly"]})).json()
    assert (failed["state"], failed["failure"]["message"]) == ("failed", "the call ends its worker")
    text = (await client.get("/metrics")).text
    assert 'enisle_calls{state="waiting"} 0\n' in text
    assert 'enisle_calls_ended_total{state="done"} 3\n' in text


@on_an_app
async def test_one_key_is_one_call_and_another_tenants_is_not_there(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    asked: dict[str, Any] = {"json": {"argv": ["true"]}, "headers": {"Idempotency-Key": "k"}}
    first, second = [(await client.post("/v1/calls", **asked)).json()["id"] for _ in range(2)]
    assert first == second
    secret = (await platform.book.create("t", ["read", "write"], "acme"))[1]
    foreign = {"Authorization": f"Bearer {secret}"}
    assert (await client.get(f"/v1/calls/{first}", headers=foreign)).status_code == 404
    assert (await client.get("/v1/calls/unknown")).status_code == 404
    theirs = (await client.post("/v1/calls", json={"argv": ["true"]}, headers=foreign)).json()["id"]
    assert (await client.get(f"/v1/calls/{theirs}")).status_code == 404
    for tenant in ("acme", "*"):
        assert (await client.get(f"/v1/calls/{theirs}", params={"tenant": tenant})).status_code == 200
    refused = await client.post("/v1/calls", json={"argv": ["true"], "network": "host"}, headers=foreign)
    assert (refused.status_code, "acme" in refused.json()["detail"]) == (400, True)


@on_an_app
async def test_a_full_queue_is_429_and_safe_mode_503(platform: Platform, client: httpx.AsyncClient) -> None:
    platform.calls.full = True
    full = await client.post("/v1/calls", json={"argv": ["true"]})
    assert (full.status_code, full.headers["retry-after"], full.json()["kind"]) == (429, "5", "too-many")
    platform.healthy = Health(safe_mode="the store is gone")
    assert (await client.post("/v1/calls", json={"argv": ["true"]})).status_code == 503


@on_an_app
async def test_what_cannot_be_is_refused(platform: Platform, client: httpx.AsyncClient) -> None:
    wrong: list[tuple[Any, int]] = [
        ({}, 422),
        ({"argv": []}, 422),
        ({"argv": ["x"], "timeout_s": 61}, 422),
        ({"argv": ["x"], "mounts": ["/:/"]}, 422),
        ({"argv": ["x"], "encoding": "rot13"}, 422),
        ({"argv": ["x"], "cwd": "here"}, 400),
        ({"argv": ["x"], "memory": "lots"}, 400),
        ({"argv": ["x"], "stdin": "?", "encoding": "base64"}, 400),
        ({"argv": ["x"], "stdin": "x" * (200 << 10)}, 400),
    ]
    for body, status in wrong:
        answer = await client.post("/v1/calls", json=body)
        assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), body
    assert not platform.calls.ends


def test_both_clients_run_a_program_and_say_why_not(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    with platform.in_thread() as url:
        with Client(url, LOCAL) as client:
            result = client.run(["cat"], stdin=b"\xffhi", timeout=5, memory="64M")
            assert (result.exit_code, result.stdout, result.ok) == (0, "�hi", True)
            with pytest.raises(CallFailed, match="ends its worker") as failed:
                client.run(["deadly"])
            assert failed.value.call.state == "failed"
            with pytest.raises(InvalidRequest):
                client.run(["x"], timeout=61)

            async def also() -> None:
                async with AsyncPlatform(url, LOCAL) as one:
                    told = await asyncio.gather(*(one.run(["cat"], stdin=str(number)) for number in range(5)))
                    assert [result.stdout for result in told] == ["0", "1", "2", "3", "4"]

            asyncio.run(also())
            platform.calls.full = True
            with pytest.raises(StateError, match="full"):
                client.run(["x"])
