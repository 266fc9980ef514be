"""Health, safe mode and figures."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from api_parts import LOCAL, Platform
from enisle.api.services import Health

Body = Callable[[Platform, httpx.AsyncClient], Awaitable[None]]
TASK = {"routine": "platform.sleep@1", "arguments": {"seconds": 0.0}}


def run(state: Path, body: Body, token: str = LOCAL) -> None:
    async def main() -> None:
        platform = Platform(state)
        async with platform.running(), platform.client(token) as client:
            await body(platform, client)

    asyncio.run(main())


def test_health_is_told_to_everybody_with_its_reasons(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).json() == {"ok": True, "reasons": []}
        platform.healthy = Health(("no dispatcher leads",))
        sick = await client.get("/healthz")
        assert (sick.status_code, sick.json()) == (503, {"ok": False, "reasons": ["no dispatcher leads"]})

    run(tmp_path, body, token="")


def test_in_safe_mode_nothing_is_done_and_the_reason_is_told(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        platform.healthy = Health((), "the store is gone")
        before = dict(platform.store.entries)
        for answer in (await client.post("/v1/tasks", json=TASK), await client.get("/v1/islands")):
            problem = answer.json()
            assert (answer.status_code, problem["kind"]) == (503, "host-error")
            assert "safe mode" in problem["detail"]
            assert problem["why"] == "the store is gone"
            assert "--accept-store" in problem["hint"]
        assert not [key for key in platform.store.entries.keys() - before.keys() if key.startswith("task.")]
        assert (await client.get("/healthz")).json()["reasons"] == ["safe mode: the store is gone"]

    run(tmp_path, body)


def test_figures_are_in_the_format_of_prometheus_and_count(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        for _number in range(3):
            task = (await client.post("/v1/tasks", json=TASK)).json()["id"]
            await client.get(f"/v1/tasks/{task}", params={"wait": 5})
        await client.get("/v1/tasks/none")
        answer = await client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        line = re.compile(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[0-9.e+-]+\Z')
        assert [text for text in answer.text.splitlines() if not line.match(text)] == []
        assert 'enisle_tasks{state="done"} 3' in answer.text
        assert 'enisle_api_answers_total{method="POST",path="/v1/tasks",status="202"} 3' in answer.text
        assert 'enisle_api_answers_total{method="GET",path="/v1/tasks/{task}",status="404"} 1' in answer.text
        buckets = re.findall(
            r'request_seconds_bucket\{method="POST",path="/v1/tasks",le="([^"]+)"\} (\d+)', answer.text
        )
        counts = [int(count) for _, count in buckets]
        assert counts == sorted(counts)
        assert buckets[-1] == ("+Inf", "3")
        declared = re.findall(r"# TYPE (\w+)", answer.text)
        assert len(declared) == len(set(declared))

    run(tmp_path, body)
