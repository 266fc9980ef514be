"""Records are what named tuples are."""

import pickle
from typing import Any

import pytest

from enisle.records import Record


class Point(Record):
    """Two numbers and a name."""

    x: int
    y: int = 2
    name: "str | None" = None

    @property
    def sum(self) -> int:
        return self.x + self.y


def test_fields_are_read_by_name_and_by_place() -> None:
    point = Point(1, name="p")
    x, y, name = point
    assert (point.x, point.y, point.name) == (x, y, name) == point == (1, 2, "p")
    assert point.sum == 3
    assert Point._fields == Point.__match_args__ == ("x", "y", "name")
    assert repr(point) == "Point(x=1, y=2, name='p')"
    match point:
        case Point(1, 2, other):
            assert other == "p"


def test_a_record_is_copied_with_changes_and_sent_elsewhere() -> None:
    point = Point(1)
    assert point._replace(y=5) == (1, 5, None)
    assert point == (1, 2, None)
    assert point._asdict() == {"x": 1, "y": 2, "name": None}
    assert type(pickle.loads(pickle.dumps(point))) is Point
    assert hash(point) == hash(Point(1, 2))


def test_a_record_does_not_change() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"z": 1}), ((1,), {"x": 1})], ids=str
)
def test_a_record_takes_its_fields_and_no_others(values: tuple[int, ...], named: dict[str, int]) -> None:
    kind: Any = Point
    with pytest.raises(TypeError):
        kind(*values, **named)
