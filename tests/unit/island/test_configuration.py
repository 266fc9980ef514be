"""Words become configurations, or are refused with a hint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import InvalidRequest
from enisle.island import Configuration, Mount, parse_environment, parse_mount, parse_size, validate
from enisle.island.configuration import from_record, to_record


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("1k", 1 << 10), ("512M", 512 << 20), ("2G", 2 << 30), ("1.5GiB", 3 << 29), ("10mb", 10 << 20)],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1M", "1X", "M", "inf", "nan", "1e999"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_size(text)
    assert caught.value.hint


@given(st.text(max_size=12))
def test_no_text_crashes_the_reading_of_sizes(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except InvalidRequest:
        pass


def test_mounts_are_read_only_unless_told() -> None:
    assert parse_mount("/a:/b") == Mount("/a", "/b", False)
    assert parse_mount("/a:/b:ro") == Mount("/a", "/b", False)
    assert parse_mount("/a:/b/../c:rw") == Mount("/a", "/c", True)


@pytest.mark.parametrize("text", ["", ":", "/a", "/a:", ":/b", "/a:/b:rx", "/a:b", "/a:/", "/a:/b:rw:ro", "/proc:/p"])
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_mount(text)


@given(st.text(alphabet="/a:.rwo \n", max_size=20))
def test_a_mount_that_is_accepted_has_absolute_places_below_the_root(text: str) -> None:
    try:
        mount = parse_mount(text)
    except InvalidRequest:
        return
    assert mount.source.startswith("/")
    assert mount.destination.startswith("/")
    assert mount.destination.strip("/")


def test_variables_keep_what_follows_the_first_equals_sign() -> None:
    assert parse_environment(["A=b=c", "D="]) == (("A", "b=c"), ("D", ""))
    with pytest.raises(InvalidRequest):
        parse_environment(["A"])
    with pytest.raises(InvalidRequest):
        parse_environment(["=b"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"network": "bridge"},
        {"processor": "arm"},
        {"exitless": "on"},
        {"memory": 1 << 20},
        {"processors": -1},
        {"processes": 0},
        {"cwd": "relative"},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(Configuration()._replace(**wrong))
    assert caught.value.hint


def test_a_configuration_survives_its_record() -> None:
    import json

    configuration = validate(
        Configuration(mounts=(Mount("/a", "/b", True),), environment=(("A", "1"),), memory=1 << 28)
    )
    assert from_record(json.loads(json.dumps(to_record(configuration)))) == configuration


def test_memory_is_divided_between_programs_and_files() -> None:
    configuration = Configuration(memory=1 << 30)
    assert configuration.files_limit + configuration.memory_limit == 1 << 30
