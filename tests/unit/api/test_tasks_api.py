"""Tasks over HTTP: submitted, found, blocked, paged, cancelled; on a store in memory, without a network."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_parts import Platform

Body = Callable[[Platform, httpx.AsyncClient], Awaitable[None]]


def run(state: Path, body: Body) -> None:
    async def main() -> None:
        platform = Platform(state)
        async with platform.running(), platform.client() as client:
            await body(platform, client)

    asyncio.run(main())


def sleep(seconds: float, island: str = "a", **more: Any) -> dict[str, Any]:
    resources = [{"kind": "island", "id": island}]
    return {"routine": "platform.sleep@1", "arguments": {"seconds": seconds}, "resources": resources, **more}


async def ended(client: httpx.AsyncClient, task: str) -> Any:
    while True:
        told = (await client.get(f"/v1/tasks/{task}", params={"wait": 10})).json()
        if told["state"] in ("done", "failed", "cancelled"):
            return told


def test_a_submission_is_answered_at_once_and_its_end_can_be_waited_for(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/tasks", json=sleep(0.2))
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert answer.headers["location"] == f"/v1/tasks/{answer.json()['id']}"
        told = await ended(client, answer.json()["id"])
        assert (told["state"], told["result"], told["attempt"]) == ("done", 0.2, 1)

    run(tmp_path, body)


def test_who_would_not_wait_is_told_the_holder_and_its_progress(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        first = (await client.post("/v1/tasks", json=sleep(1.0))).json()
        while not (await client.get(f"/v1/tasks/{first['id']}")).json()["progress"]:
            await asyncio.sleep(0.02)
        refused = await client.post("/v1/tasks", json=sleep(0.1, if_blocked="fail"))
        problem = refused.json()
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        assert (problem["holder"], problem["resource"]) == (first["id"], "island/a")
        assert 0 < problem["progress"]["fraction"] < 1
        waiting = (await client.post("/v1/tasks", json=sleep(0.1))).json()
        blocked = (await client.get(f"/v1/tasks/{waiting['id']}", params={"wait": 0.2})).json()["blocked"]
        assert (blocked["resource"], blocked["by"]) == ("island/a", first["id"])
        (held,) = (await client.get("/v1/resources")).json()["items"]
        assert (held["holders"], held["waiting"]) == ([first["id"]], [waiting["id"]])
        assert (await ended(client, waiting["id"]))["state"] == "done"

    run(tmp_path, body)


def test_fifty_submissions_with_one_key_are_one_task_and_another_body_is_refused(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        key = {"Idempotency-Key": "once"}
        answers = await asyncio.gather(*(client.post("/v1/tasks", json=sleep(0.1), headers=key) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        other = await client.post("/v1/tasks", json=sleep(0.2), headers=key)
        assert (other.status_code, other.json()["kind"]) == (422, "key-taken")

    run(tmp_path, body)


def test_pages_hold_every_task_once_newest_first_also_those_in_history(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        made = [(await client.post("/v1/tasks", json=sleep(0.0, str(n)))).json()["id"] for n in range(25)]
        for task in made:
            await ended(client, task)
        for task in made[:15]:  # as the dispatcher does after an hour
            platform.history.kept[task] = platform.view.tasks[task]
            entry = await platform.store.get_leader(f"task.{task}")
            await platform.store.cas(entry.key, None, entry.revision)
        await asyncio.sleep(0.05)
        found: list[str] = []
        cursor = ""
        while True:
            page = (await client.get("/v1/tasks", params={"limit": 4, "cursor": cursor})).json()
            assert len(page["items"]) <= 4
            found += [task["id"] for task in page["items"]]
            if not (cursor := page["next"]):
                break
        assert found == made[::-1]
        assert (await client.get(f"/v1/tasks/{made[0]}")).json()["state"] == "done"
        only = (await client.get("/v1/tasks", params={"resource": "island/3"})).json()["items"]
        assert [task["id"] for task in only] == [made[3]]
        assert not (await client.get("/v1/tasks", params={"state": "running"})).json()["items"]

    run(tmp_path, body)


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "ZGVhZGJlZWYgMSAy", "=" * 9])
def test_what_is_no_cursor_leads_nowhere(tmp_path: Path, cursor: str) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        answer = await client.get("/v1/tasks", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["detail"]) == (400, "this cursor leads nowhere")

    run(tmp_path, body)


def test_a_cursor_of_another_list_leads_nowhere(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        for number in range(3):
            await client.post("/v1/tasks", json=sleep(0, str(number)))
        await asyncio.sleep(0.1)
        cursor = (await client.get("/v1/tasks", params={"limit": 1})).json()["next"]
        assert (await client.get("/v1/tasks", params={"cursor": cursor})).status_code == 200
        other = await client.get("/v1/tasks", params={"cursor": cursor, "routine": "platform.sleep"})
        assert other.status_code == 400

    run(tmp_path, body)


def test_a_task_is_cancelled_once_and_an_ended_one_is_tried_again(tmp_path: Path) -> None:
    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        task = (await client.post("/v1/tasks", json=sleep(30))).json()["id"]
        assert (await client.post(f"/v1/tasks/{task}/retry")).status_code == 409
        answer = await client.post(f"/v1/tasks/{task}/cancel", json={"why": "enough"})
        assert (answer.status_code, answer.json()["cancel"]) == (202, "enough")
        told = await ended(client, task)
        assert (told["state"], told["failure"]["why"]) == ("cancelled", "enough")
        assert (await client.post(f"/v1/tasks/{task}/cancel")).status_code == 409
        again = await client.post(f"/v1/tasks/{task}/retry")
        assert again.status_code == 202
        assert again.json()["id"] != task

    run(tmp_path, body)


def test_the_task_of_another_tenant_is_not_there(tmp_path: Path) -> None:
    async def body(platform: Platform, client: httpx.AsyncClient) -> None:
        task = (await client.post("/v1/tasks", json=sleep(30))).json()["id"]
        made = await client.post("/v1/tokens", json={"name": "blue", "scopes": ["write"], "tenant": "blue"})
        blue = {"Authorization": f"Bearer {made.json()['token']}"}
        for method, path in (
            ("GET", ""),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("GET", "/output"),
        ):
            assert (await client.request(method, f"/v1/tasks/{task}{path}", headers=blue)).status_code == 404, path
        assert (await client.get("/v1/tasks", headers=blue)).json()["items"] == []
        assert (await client.get("/v1/resources", headers=blue)).json()["items"] == []
        refused = await client.post("/v1/tasks", json=sleep(0.1, if_blocked="fail"), headers=blue)
        assert refused.status_code == 409
        assert task not in refused.text, "who holds it is another tenant's affair"
        assert platform.view.tasks[task].cancel == ""

    run(tmp_path, body)


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_client_means_nothing(tmp_path: Path, hours: int) -> None:
    """Deadlines count from the server's clock when it takes the task; what a client believes of time is not asked."""
    import time
    from email.utils import formatdate

    async def body(_: Platform, client: httpx.AsyncClient) -> None:
        date = {"Date": formatdate(time.time() + hours * 3600, usegmt=True)}
        answer = await client.post("/v1/tasks", json=sleep(30, deadline_s=0.5), headers=date)
        task = answer.json()
        assert abs(task["deadline"] - task["submitted"] - 0.5) < 0.01
        assert abs(task["submitted"] - time.time()) < 5
        told = await ended(client, task["id"])
        assert told["state"] == "failed"
        assert "deadline" in told["failure"]["message"] + told["failure"]["why"]

    run(tmp_path, body)
