"""What is typed into commands over HTTP: taken, bounded, and nobody else's; on a store in memory, without a network."""

import asyncio
from pathlib import Path

import httpx
import pytest

from api_parts import Platform
from enisle.api.lines import LINES

OCTETS = {"Content-Type": "application/octet-stream"}
SLEEP = {"routine": "platform.sleep@1", "arguments": {"seconds": 5.0}, "resources": [{"kind": "island", "id": "a"}]}


async def begun(client: httpx.AsyncClient) -> str:
    task = (await client.post("/v1/tasks", json=SLEEP)).json()["id"]
    while (await client.get(f"/v1/tasks/{task}")).json()["state"] != "running":
        await asyncio.sleep(0.01)
    return f"/v1/tasks/{task}"


def test_input_is_taken_from_its_tenant_bounded_and_checked(tmp_path: Path) -> None:
    async def main() -> None:
        platform = Platform(tmp_path)
        async with platform.running(), platform.client() as client:
            path = await begun(client)
            taken = await client.post(f"{path}/input", params={"offset": 7, "writer": "w"}, content=b"abc")
            assert (taken.status_code, taken.json()) == (200, {"next": 10, "later": False})
            assert (await client.post(f"{path}/terminal", json={"rows": 24, "columns": 80})).status_code == 204
            large = await client.post(f"{path}/input", content=b"x" * (64 * 1024 + 1), headers=OCTETS)
            assert large.status_code == 413
            for query in ({"offset": -1}, {"offset": "x"}, {"writer": "a b"}, {"end": "perhaps"}, {"at": 1}):
                assert (await client.post(f"{path}/input", params=query, content=b"x")).status_code == 422, query
            for size in ({"rows": 0, "columns": 80}, {"rows": 24}, {"rows": 24, "columns": 1001}, {}):
                assert (await client.post(f"{path}/terminal", json=size)).status_code == 422, size
            made = await client.post("/v1/tokens", json={"name": "blue", "scopes": ["write"], "tenant": "blue"})
            looks = await client.post("/v1/tokens", json={"name": "looks", "scopes": ["read"]})
            for token, status in ((made, 404), (looks, 403)):
                async with platform.client(token.json()["token"]) as other:
                    assert (await other.post(f"{path}/input", content=b"x")).status_code == status
                    assert (await other.post(f"{path}/terminal", json={"rows": 2, "columns": 2})).status_code == status
            await client.post(f"{path}/cancel", json={})
            while (await client.get(path, params={"wait": 5})).json()["state"] != "cancelled":
                pass
            assert (await client.post(f"{path}/input", content=b"x")).status_code == 409
            assert (await client.post("/v1/tasks/none/input", content=b"x")).status_code == 404

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/tasks/{task}/input", "/v1/tasks/{task}/terminal"])
def test_typing_needs_the_right_to_change(path: str) -> None:
    assert [line.scope for line in LINES if line.path == path] == ["write"]
