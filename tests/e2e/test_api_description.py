"""The API against its own description: schemathesis makes requests from /openapi.json, good and bad ones.

No answer may be a server error, and every answer must be as described. The long form runs with ENISLE_SOAK=1.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api_parts import LOCAL, Platform
from enisle.api import auth
from enisle.api.lines import LINES
from enisle.api.openapi import description

EXAMPLES = 300 if os.environ.get("ENISLE_SOAK") else 6
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
    unsupported_method,
]
ENDLESS = ("/v1/events",)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, Platform(tmp_path_factory.mktemp("state")).in_thread() as url:
        patch.setattr(auth, "MAX_FAILURES", 10**9)  # one address is all of the bad ones here
        headers = {"Authorization": f"Bearer {LOCAL}"}
        with httpx.Client(base_url=url, headers=headers) as client:
            for name in ("web", "db"):
                client.post("/v1/islands", json={"name": name})
        yield url


def operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(description())
    found = [one.ok() for one in schema.get_all_operations()]
    return [one for one in found if one.path not in ENDLESS]


@pytest.mark.parametrize("operation", operations(), ids=lambda one: f"{one.method.upper()} {one.path}")
def test_an_operation_answers_as_it_is_described(operation: Any, url: str) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=not os.environ.get("ENISLE_SOAK"),
    )
    def check(case: Any) -> None:
        response = case.call(base_url=url, headers={"Authorization": f"Bearer {LOCAL}"}, timeout=40)
        case.validate_response(response, checks=CHECKS)

    check()


def test_every_line_of_the_table_is_described_once_with_what_may_go_wrong() -> None:
    paths = description()["paths"]
    told = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert told == {(line.method, line.path) for line in LINES}
    assert len(told) == len(LINES)
    names = [one["operationId"] for item in paths.values() for one in item.values()]
    assert len(set(names)) == len(names)
    for line in LINES:
        responses = paths[line.path][line.method.lower()]["responses"]
        assert str(line.status) in responses
        assert line.scope == "" or {"401", "403"} <= responses.keys()
        named = {one["name"] for one in paths[line.path][line.method.lower()]["parameters"] if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", line.path))


def test_the_description_is_served_and_is_openapi(url: str) -> None:
    told = httpx.get(f"{url}/openapi.json")
    assert told.headers["content-type"] == "application/json"
    assert told.json() == description()
    schemathesis.openapi.from_url(f"{url}/openapi.json").validate()
