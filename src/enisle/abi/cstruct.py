"""C structures as annotated classes whose size is part of the declaration.

    @cstruct(size=16)
    class kvm_dtable(Struct):
        base: u64
        limit: u16
        padding: Annotated[list[int], array(c_uint16, 3)]

A wrong size fails at import.
"""

from collections.abc import Callable
from ctypes import Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from typing import Annotated, Any, TypeVar

u8 = Annotated[int, c_uint8]
u16 = Annotated[int, c_uint16]
u32 = Annotated[int, c_uint32]
u64 = Annotated[int, c_uint64]
s32 = Annotated[int, c_int32]
s64 = Annotated[int, c_int64]

Struct = Structure
T = TypeVar("T", bound=Structure)


def array(element: Any, count: int) -> Any:
    return element * count


def cstruct(size: int) -> Callable[[type[T]], type[T]]:
    """Turn an annotated class into a ctypes structure of exactly `size` bytes."""

    def build(declared: type[T]) -> type[T]:
        fields = [(name, note.__metadata__[0]) for name, note in declared.__annotations__.items()]
        built = type(declared.__name__, (Structure,), {"_fields_": fields, "__doc__": declared.__doc__})
        assert sizeof(built) == size, f"{declared.__name__}: {sizeof(built)=} {size=}"
        return built  # type: ignore[return-value]  # same fields, now laid out

    return build
