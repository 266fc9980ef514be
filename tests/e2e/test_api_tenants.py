"""What is a tenant's is nobody else's: every line of the API's table, asked by another tenant, with whatever it takes.

Made from the table: a new line is asked too, and one that this test cannot name another's thing for fails it.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from api_parts import LOCAL, Platform
from enisle.api.events import Events
from enisle.api.lines import LINES
from enisle.api.openapi import description
from enisle.api.paths import TENANTS
from enisle.api.table import OPEN, Line
from enisle.control import IslandSpec, Operations, VmSpec
from enisle.errors import HostError
from enisle.tasks import EVERY, Request, Resource, Tasks

EXAMPLES = 100 if os.environ.get("ENISLE_SOAK") else 4
SHARED = ("/v1/hosts/{name}",)
"""What is everybody's to look at."""
MARK = "acme"
"""In the name of all that is the tenant acme's."""


class NoHost:
    async def ask(self, host: str, verb: str, *_: object) -> Any:
        raise HostError("a host was asked", verb, "")


class Two(Platform):
    """A platform with the true operations, on which the tenant acme has one of everything."""

    things: dict[str, list[dict[str, str]]]
    tokens: dict[str, str]

    def _services(self) -> Any:
        services = super()._services()
        operations: Any = Operations(services.tasks, self.view, NoHost(), None, self.history)  # pyright: ignore[reportArgumentType]
        return replace(services, operations=operations, island_spec=IslandSpec, vm_spec=VmSpec)

    async def furnish(self) -> None:
        tasks = Tasks(self.store, MARK, "acme-actor")
        for kind, name in (("island", "acme-web"), ("vm", "acme-vm")):
            record = {"name": name, "host": "h1", "tenant": MARK, "state": "running", "created": time.time()}
            await self.store.cas(f"res.{kind}.{name}", record, 0)
        live = {"host": "h1", "tenant": MARK, "state": "running"}
        await self.progress.cas("live.h1.island.acme-stray", live, 0)
        nap = {"seconds": 0.0}
        over = await tasks.submit(Request("platform.sleep@1", nap))
        while (await tasks.get(over.id)).state != "done":
            await asyncio.sleep(0.02)
        old = replace(await tasks.get(over.id), id="acmeold0000000000000000f")
        self.history.kept[old.id] = old
        held = (Resource("island", "acme-web"), Resource("vm", "acme-vm"))
        runs = await tasks.submit(Request("platform.sleep@1", {"seconds": 600.0}, held))
        while (await tasks.get(runs.id)).state != "running":
            await asyncio.sleep(0.02)
        waits = await tasks.submit(Request("platform.sleep@1", nap, held[:1]))
        while not (await tasks.get(waits.id)).blocked:
            await asyncio.sleep(0.02)
        self.things = {
            "/v1/tasks/{task}": [{"task": one.id} for one in (over, old, runs, waits)],
            "/v1/calls/{call}": [{"call": (await self.calls.run({"argv": ["true"]}, MARK))[0]}],
            "/v1/resources/{kind}/{id}": [{"kind": one.kind, "id": one.id} for one in held],
            "/v1/islands/{name}": [{"name": "acme-web"}, {"name": "acme-stray"}],
            "/v1/vms/{name}": [{"name": "acme-vm"}],
        }
        self.tokens = {"admin": LOCAL}
        for tenant, scope in (("globex", "write"), (MARK, "write")):
            self.tokens[tenant] = (await self.book.create(tenant, [scope], tenant))[1]

    def named(self, line: Line) -> list[dict[str, str]]:
        """Return what of acme's a line can be asked for; nothing for one that names nothing."""
        if "{" not in line.path:
            return []
        begins = [things for path, things in self.things.items() if line.path.startswith(path)]
        assert begins or line.path in SHARED or line.scope == "admin", f"say here what is another tenant's: {line.path}"
        return begins[0] if begins else []

    def holdings(self) -> dict[str, Any]:
        fleeting = ("host.", "lease.")
        return {key: one.value for key, one in self.store.entries.items() if one.value and not key.startswith(fleeting)}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("state"))
    with two.in_thread() as two.url:
        asyncio.run_coroutine_threadsafe(two.furnish(), two.loop).result(20)
        yield two


def lines() -> list[Any]:
    table = {(line.method, line.path): line for line in LINES if line.scope != OPEN}
    schema = schemathesis.openapi.from_dict(description())
    found = [one.ok() for one in schema.get_all_operations()]
    return [(table[key], one) for one in found if (key := (one.method.upper(), one.path)) in table]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


WITH_NAMES = [(line, one) for line, one in lines() if "{" in line.path]


@pytest.mark.parametrize(("line", "operation"), WITH_NAMES, ids=lambda one: getattr(one, "label", ""))
def test_what_is_anothers_is_not_there_and_stays_as_it_is(line: Line, operation: Any, platform: Two) -> None:
    things, before, seen = platform.named(line), platform.holdings(), set[int]()

    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
              derandomize=not os.environ.get("ENISLE_SOAK"))  # fmt: skip
    def check(case: Any) -> None:
        for thing in things:
            case.path_parameters = dict(thing)
            case.query = {key: value for key, value in (case.query or {}).items() if key not in ("tenant", "wait")}
            answer = case.call(base_url=platform.url, headers=bearer(platform.tokens["globex"]), timeout=10)
            seen.add(answer.status_code)
            assert answer.status_code in (403, 404, 400, 422), answer.text
            assert platform.tokens[MARK] not in answer.text
            assert "acme-actor" not in answer.text

    check()
    assert not things or seen & {403, 404}
    assert platform.holdings() == before


def test_lists_and_events_tell_a_tenant_nothing_of_another(platform: Two) -> None:
    with httpx.Client(base_url=platform.url, headers=bearer(platform.tokens["globex"])) as client:
        for line, _ in lines():
            if line.method == "GET" and "{" not in line.path and not line.also:
                answer = client.get(line.path)
                assert answer.status_code == (403 if line.scope == "admin" else 200)
                assert MARK not in answer.text.replace("--tenant acme", ""), line.path

    async def first(tenant: str) -> bytes:
        told = b""
        async for piece in Events(platform.services, tenant, None, False).stream():
            told += piece
            if b"event: current" in told:
                return told
        raise AssertionError

    def events(tenant: str) -> bytes:
        return asyncio.run_coroutine_threadsafe(first(tenant), platform.loop).result(10)

    assert MARK.encode() not in events("globex")
    for tenant in (MARK, EVERY):
        assert all(name in events(tenant) for name in (b"acme-web", b"acme-stray", b"acme-vm"))


def test_nobody_makes_something_of_what_is_anothers(platform: Two) -> None:
    before = platform.holdings()
    held = {"routine": "platform.sleep@1", "arguments": {"seconds": 0.0}}
    with httpx.Client(base_url=platform.url, headers=bearer(platform.tokens["globex"])) as client:
        for kind, name in (("island", "acme-web"), ("island", "acme-stray"), ("vm", "acme-vm")):
            answer = client.post("/v1/tasks", json={**held, "resources": [{"kind": kind, "id": name}]})
            assert answer.status_code == 404
        assert client.post("/v1/islands", json={"name": "acme-web"}).status_code == 409
        assert client.post("/v1/vms", json={"kernel": "/etc/passwd"}).status_code == 400
        assert client.post("/v1/vms", json={"kernel": "../acme/vmlinuz"}).status_code == 400
    assert platform.holdings() == before


def test_naming_a_tenant_is_for_administrators(platform: Two) -> None:
    before = platform.holdings()
    with httpx.Client(base_url=platform.url) as client:
        for line, _ in lines():
            if not line.path.startswith(TENANTS):
                continue
            for thing in platform.named(line) or [{}]:
                path = line.path.format(**thing)
                for tenant in (MARK, *([EVERY] if line.anywhere or not line.changes else [])):
                    headers = bearer(platform.tokens["globex"])
                    answer = client.request(line.method, path, params={"tenant": tenant}, headers=headers)
                    assert answer.status_code in (403, 422), (line.method, path)  # 422: a needed parameter is missing
                    assert "another tenant" in answer.text or answer.status_code == 422 or line.scope == "admin"
                if line.changes and not line.anywhere:
                    answer = client.request(line.method, path, params={"tenant": "*"}, headers=bearer(LOCAL))
                    assert answer.status_code == 422
        assert platform.holdings() == before
        admin = bearer(LOCAL)
        assert not client.get("/v1/islands", headers=admin).json()["items"]
        for tenant in (MARK, EVERY):
            named = {"tenant": tenant}
            seen = client.get("/v1/islands", params=named, headers=admin).json()["items"]
            assert [one["name"] for one in seen] == ["acme-stray", "acme-web"]
            assert len(client.get("/v1/tasks", params=named, headers=admin).json()["items"]) == 4
            assert client.get("/v1/vms/acme-vm", params=named, headers=admin).json()["tenant"] == MARK
            for thing in platform.things["/v1/tasks/{task}"]:
                assert client.get(f"/v1/tasks/{thing['task']}", params=named, headers=admin).status_code == 200
        own = client.get("/v1/tasks", params={"tenant": MARK}, headers=bearer(platform.tokens[MARK]))
        assert len(own.json()["items"]) == 4


def test_an_administrator_acts_in_a_tenant_and_is_told_who_is_in_the_way(platform: Two) -> None:
    """The last: it changes what acme has."""
    with httpx.Client(base_url=platform.url, headers=bearer(LOCAL)) as client:
        runs = platform.things["/v1/tasks/{task}"][2]["task"]
        held = {"routine": "platform.sleep@1", "arguments": {"seconds": 0.0}, "if_blocked": "fail"}
        held["resources"] = [{"kind": "island", "id": "acme-web"}]
        refused = client.post("/v1/tasks", json=held, params={"tenant": MARK})
        assert (refused.status_code, refused.json()["holder"]) == (409, runs)
        freed = client.post("/v1/resources/island/acme-web/unlock", json={"reason": "why"}, params={"tenant": "*"})
        assert (freed.status_code, freed.json()["freed"]) == (200, [runs])
        made = client.post("/v1/tasks", json=held | {"if_blocked": "wait"}, params={"tenant": MARK, "wait": 10}).json()
        assert (made["tenant"], made["actor"], made["state"]) == (MARK, "local", "done")
        acts = client.get("/v1/audit", params={"actor": "local"}).json()["items"]
        told = [(one["action"], one["tenant"], one["reason"], one["address"]) for one in acts]
        assert told == [
            ("submit", MARK, "", "127.0.0.1"),
            ("unlock", MARK, "why", "127.0.0.1"),
            ("submit", MARK, "", "127.0.0.1"),
        ]
        assert (acts[0]["about"]["task"], acts[1]["about"]["tasks"]) == (made["id"], [runs])
        assert acts[2]["about"]["task"] == refused.json()["task"]
