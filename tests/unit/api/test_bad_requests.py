"""What is wrong is refused with a problem document, changes nothing and shows no traceback."""

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from api_parts import Platform
from enisle.api import forms
from enisle.api.cursors import read_cursor, write_cursor
from enisle.api.decode import decode_json
from enisle.api.lines import LINES
from enisle.errors import InvalidRequest

DEEP = b'{"a":' * 3000 + b"1" + b"}" * 3000


def task(**more: Any) -> bytes:
    return json.dumps({"routine": "platform.sleep@1", "arguments": {"seconds": 0.1}} | more).encode()


def held(*resources: Any) -> bytes:
    return task(resources=[{"kind": "island", "id": one} if isinstance(one, str) else one for one in resources])


BAD: dict[str, tuple[bytes, int]] = {
    "no JSON": (b"{", 400),
    "nothing": (b"", 422),
    "a list": (b"[]", 422),
    "invalid UTF-8": (b'{"routine":"\xff"}', 400),
    "a byte order mark": (b"\xff\xfe{}", 400),
    "a lone surrogate": (b'{"routine":"\\ud800"}', 400),
    "NaN": (b'{"routine":"platform.sleep@1","arguments":{"seconds":NaN}}', 400),
    "infinity": (b'{"routine":"platform.sleep@1","arguments":{"seconds":1e999}}', 422),
    "a huge number": (b'{"routine":"platform.sleep@1","arguments":{"seconds":' + b"9" * 6000 + b"}}", 422),
    "deep": (b'{"routine":"platform.sleep@1","arguments":{"seconds":' + DEEP + b"}}", 400),
    "deep, within the reader's reach": (task(arguments={"seconds": json.loads(b"[" * 60 + b"]" * 60)}), 400),
    "2 MB": (task(arguments={"seconds": "x" * (2 << 20)}), 413),
    "100 KB": (task(arguments={"seconds": "x" * 100_000}), 400),
    "an unknown field": (task(retries=3), 422),
    "an unknown routine": (task(routine="island.fly@1"), 400),
    "an unknown version": (task(routine="platform.sleep@9"), 400),
    "a routine that is none": (task(routine="../../etc/passwd"), 400),
    "a routine of 300 characters": (task(routine="a" * 300), 422),
    "a dot": (held("a.b"), 422),
    "a star": (held("*"), 422),
    "an arrow": (held(">"), 422),
    "a space": (held("a b"), 422),
    "empty": (held(""), 422),
    "300 characters": (held("a" * 300), 422),
    "an emoji": (held("🏝"), 422),
    "a path": (held("../x"), 422),
    "a line's end": (held("a\n"), 400),
    "a null": (held("a\0"), 422),
    "65 resources": (held(*(f"r{n}" for n in range(65))), 422),
    "the same twice": (held("a", "a"), 400),
    "an unknown mode": (held({"kind": "island", "id": "a", "mode": "greedy"}), 422),
    "a negative deadline": (task(deadline_s=-1), 422),
    "a huge deadline": (task(deadline_s=1e12), 422),
    "a text for a deadline": (task(deadline_s="1"), 422),
    "a billion attempts": (task(attempts=10**9), 422),
    "no attempts": (task(attempts=0), 422),
    "an unknown placement": (task(placement="anywhere"), 422),
    "pinned nowhere": (task(placement="pinned"), 400),
    "a host that cannot be": (task(host="a.b"), 400),
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, httpx.Response]:
    """The answers to all of `BAD`, from one app; what is in its store afterwards is under "store"."""

    async def ask() -> dict[str, Any]:
        platform = Platform(tmp_path_factory.mktemp("state"))
        async with platform.running(), platform.client() as client:
            headers = {"Content-Type": "application/json"}
            found: dict[str, Any] = {
                name: await client.post("/v1/tasks", content=body, headers=headers) for name, (body, _) in BAD.items()
            }
            found["store"] = sorted(key for key in platform.store.entries if key.startswith(("task.", "lock.", "asg.")))
            return found

    return asyncio.run(ask())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_submission_is_refused(asked: dict[str, httpx.Response], name: str) -> None:
    answer = asked[name]
    problem = answer.json()
    assert answer.status_code == BAD[name][1], problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    assert "Traceback" not in answer.text
    assert len(answer.text) < 2000


def test_bad_submissions_leave_nothing_in_the_store(asked: dict[str, Any]) -> None:
    assert asked["store"] == []


async def _ask_all(platform: Platform, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
    async with platform.running(), platform.client() as client:
        return [await client.request(method, path, **more) for method, path, more in requests]


def test_bad_addresses_methods_and_parameters_are_problems(tmp_path: Path) -> None:
    requests: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/tasks/", {}, 404),
        ("PATCH", "/v1/tasks", {}, 405),
        ("TRACE", "/v1/tasks/abc", {}, 405),
        ("POST", "/healthz", {}, 405),
        ("GET", "/v1/tasks/unknown", {}, 404),
        ("GET", "/v1/tasks/a.b", {}, 400),
        ("GET", "/v1/tasks/%2e%2e%2fx", {}, 404),
        ("GET", "/v1/tasks/" + "a" * 300, {}, 400),
        ("POST", "/v1/tasks/unknown/cancel", {}, 404),
        ("GET", "/v1/tasks?limit=0", {}, 422),
        ("GET", "/v1/tasks?limit=9999999999999999999999", {}, 422),
        ("GET", "/v1/tasks?limit=1&limit=2", {}, 400),
        ("GET", "/v1/tasks?colour=red", {}, 422),
        ("GET", "/v1/tasks?state=%ff%fe", {}, 422),
        ("GET", "/v1/tasks/x?wait=nan", {}, 422),
        ("GET", "/v1/tasks/x?wait=31", {}, 422),
        ("POST", "/v1/tasks", {"content": b"a=b", "headers": {"Content-Type": "text/plain"}}, 415),
        (
            "POST",
            "/v1/tasks",
            {"json": {"routine": "platform.sleep@1"}, "headers": {"Idempotency-Key": "k" * 201}},
            400,
        ),
        ("GET", "/v1/events", {"headers": {"Last-Event-ID": "yesterday"}}, 400),
        ("GET", "/v1/events", {"headers": {"Last-Event-ID": "7-99999999999999999999"}}, 400),
        ("GET", "/v1/events", {"headers": {"Last-Event-ID": "7--1"}}, 400),
        ("GET", "/v1/tasks/x/output", {"headers": {"Last-Event-ID": "x"}}, 404),
        ("POST", "/v1/islands/none/exec", {"json": {"argv": []}}, 422),
        ("POST", "/v1/islands/none/exec", {"json": {"argv": ["x"], "stdin": "?"}}, 400),
        ("PUT", "/v1/islands/none/files?path=/x&mode=999", {"content": b""}, 422),
        ("PUT", "/v1/islands/none/files?path=/x", {"content": b"x" * (17 << 20)}, 413),
        ("POST", "/v1/resources/island/none/unlock", {"json": {"reason": ""}}, 422),
        ("POST", "/v1/resources/island/none/unlock", {"json": {"reason": "x"}}, 409),
        ("DELETE", "/v1/tokens/none", {}, 404),
        ("GET", "/console/../app.py", {}, 404),
        ("GET", "/console/%2e%2e/app.py", {}, 404),
        ("GET", "/", {"headers": {"Host": "evil.example"}}, 403),
    ]
    answers = asyncio.run(_ask_all(Platform(tmp_path), [one[:3] for one in requests]))
    for (method, path, _, status), answer in zip(requests, answers, strict=True):
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", path
        assert answer.json()["status"] == status
        assert status != 405 or answer.headers["allow"]


def test_a_defect_of_ours_is_told_without_its_traceback_and_logged_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform = Platform(tmp_path)

    async def broken(tenant: str) -> Any:
        raise ZeroDivisionError(f"secret of {tenant}")

    platform.services.operations.islands = broken
    with caplog.at_level(logging.ERROR, "enisle.api"):
        (answer,) = asyncio.run(_ask_all(platform, [("GET", "/v1/islands", {})]))
    assert (answer.status_code, answer.json()["kind"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "secret of default" in caplog.text


STRUCTURES = sorted(
    {line.body for line in LINES if line.body and issubclass(line.body, forms.Asked)}, key=lambda kind: kind.__name__
)
ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", STRUCTURES, ids=lambda kind: kind.__name__)
@given(value=ANYTHING)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_body_is_read_or_refused(kind: type, value: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(decode_json(json.dumps(value).encode(), kind), kind)


@given(raw=some.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert decode_json(raw, forms.TaskRequest).routine is not None


@given(
    submitted=some.floats(0, 1e11),
    name=some.from_regex(r"[a-f0-9]{24}", fullmatch=True),
    filters=some.text(max_size=40),
)
def test_a_cursor_says_what_was_written_and_only_to_its_list(submitted: float, name: str, filters: str) -> None:
    cursor = write_cursor(filters, submitted, name)
    assert read_cursor(filters, cursor) == (submitted, name)
    for other in (cursor[:-1], cursor + "A", cursor[::-1]):
        if other != cursor:
            with pytest.raises(InvalidRequest):
                read_cursor(filters, other)
    with pytest.raises(InvalidRequest):
        read_cursor(filters + "x", cursor)
