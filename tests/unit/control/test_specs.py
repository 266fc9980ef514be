"""What may be asked for, checked far from the host that would do it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.control import IslandSpec, VmSpec
from enisle.control.shown import island_json, memory_limit
from enisle.control.specs import check_command, check_environment, check_island, check_vm, island_spec
from enisle.errors import EnisleError, InvalidRequest

BAD: list[dict[str, Any]] = [
    {"name": "a.b"},
    {"name": "-a"},
    {"name": "x" * 65},
    {"name": "ü"},
    {"memory": "much"},
    {"memory": "1M"},
    {"processors": 1000},
    {"network": "all"},
    {"processor": "z80"},
    {"root": "relative"},
    {"mounts": ("relative:/data",)},
    {"mounts": ("/etc",)},
    {"mounts": ("/proc:/data",)},
    {"cwd": "relative"},
    {"nodes": 1000},
    {"page_tables": "sideways"},
    {"env": {"A=B": "1"}},
    {"env": {"A": "\0"}},
    {"program": ("",)},
    {"program": ("a\0b",)},
    {"program": ("x" * 40000,)},
    {"host": "a b"},
]


@pytest.mark.parametrize("told", BAD, ids=repr)
def test_what_can_never_be_is_refused_in_words(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_island(IslandSpec(**told))
    assert caught.value.message


def test_what_differs_from_the_defaults_is_all_that_travels() -> None:
    spec = IslandSpec(name="web", memory="128M", mounts=("/srv:/srv:ro",), env={"A": "1"}, program=("true",))
    check_island(spec)
    assert spec.configuration() == {"memory": "128M", "mounts": ["/srv:/srv:ro"], "env": {"A": "1"}}
    assert island_spec("web", spec.configuration(), ["true"]) == spec


@pytest.mark.parametrize(
    "told", [{"mounts": ("/etc:/x",)}, {"root": "/"}, {"network": "host"}, {"cpu": ("/etc/x",)}], ids=repr
)
def test_another_tenant_is_shown_nothing_of_the_host(told: dict[str, Any]) -> None:
    check_island(IslandSpec(**told))
    with pytest.raises(InvalidRequest, match="cannot ask for"):
        check_island(IslandSpec(**told), "guests")
    with pytest.raises(InvalidRequest, match="cannot name"):
        check_vm(VmSpec(kernel="/boot/vmlinuz"), "guests")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
WORDS = st.sampled_from(["memory", "processors", "mounts", "cpu", "env", "root", "cwd", "other", "network", "nodes"])


@given(st.dictionaries(WORDS, JSON | st.dictionaries(st.text(max_size=3), JSON, max_size=2), max_size=4), JSON)
def test_whatever_comes_as_json_is_taken_or_refused_in_words(configuration: dict[str, Any], program: Any) -> None:
    try:
        check_island(island_spec("web", configuration, program))
    except EnisleError:
        pass  # in words; anything else is a defect


@given(JSON | st.dictionaries(st.text(max_size=4), JSON, max_size=3))
def test_commands_and_environments_of_any_shape_are_checked(value: Any) -> None:
    for check in (check_command, check_environment):
        try:
            check(value)
        except EnisleError:
            pass  # in words; anything else is a defect


def test_an_island_is_shown_as_its_host_says_and_lost_when_its_host_knows_nothing_of_it() -> None:
    record = {"name": "web", "host": "h1", "tenant": "t", "state": "running", "configuration": {"memory": "64M"}}
    host, now = {"started": 0.0}, 100.0
    live = {"host": "h1", "state": "exited", "exit_code": 3, "reason": "", "started": 90.0}
    assert island_json("web", record, live, None, host, now)["state"] == "exited"
    assert island_json("web", record, live | {"state": "running"}, None, host, now)["age"] == 10.0
    assert island_json("web", record, None, None, host, now)["state"] == "lost"
    assert island_json("web", record, None, None, {"started": 99.0}, now)["state"] == "running"
    away = island_json("web", record, live, None, None, now)
    assert away["notes"] == ["host h1 is not connected; this is what it said last"]
    assert island_json("web", record, None, None, None, now)["notes"] == ["host h1 is not connected"]
    assert island_json("web", record, live | {"host": "h2"}, None, host, now)["state"] == "lost"
    assert island_json("web", None, live | {"tenant": "t"}, None, host, now)["tenant"] == "t"
    assert memory_limit({"memory": "64M"}) == 48 << 20
