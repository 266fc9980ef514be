"""Records: immutable values with named fields, declared as `typing.NamedTuple` declares them.

    class Bind(Record):
        source: str
        writable: bool = False

Promises what a named tuple does (order, equality, unpacking, `_fields`, `_asdict`, `_replace`). A class costs a tenth
of a millisecond less: a start makes dozens of them, and NamedTuple compiles code for each.
"""

from collections import _tuplegetter as field  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record(tuple[Any, ...]):
    """The base of every record."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls._fields = cls.__match_args__ = tuple(cls.__annotations__)
        cls._defaults = {name: getattr(cls, name) for name in cls._fields if name in cls.__dict__}
        for index, name in enumerate(cls._fields):
            setattr(cls, name, field(index, ""))

    def __new__(cls, *values: Any, **named: Any) -> Self:
        if len(values) != len(cls._fields) or named:
            try:
                rest = [
                    named.pop(name) if name in named else cls._defaults[name] for name in cls._fields[len(values) :]
                ]
            except KeyError as missing:
                raise TypeError(f"{cls.__name__} needs {missing}") from None
            if named or len(values) > len(cls._fields):
                raise TypeError(f"{cls.__name__} has no more than {', '.join(cls._fields)}")
            values = (*values, *rest)
        return super().__new__(cls, values)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

    def _asdict(self) -> dict[str, Any]:
        """Return a dictionary of names and values."""
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **changes: Any) -> Self:
        """Return a record like this one but for the named fields."""
        return type(self)(**self._asdict() | changes)
