"""Enisle runs any Linux program on an island of its own.

`from enisle import Island` is the embedded SDK; `enisle run -- PROGRAM` is the same from a shell. `Platform` is the
client of a platform (`enisle up`), `AsyncPlatform` the same for coroutines.
Importing this package imports nothing else: a room is loaded when its first name is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.api import AsyncPlatform as AsyncPlatform
    from enisle.api import Platform as Platform
    from enisle.island import Island as Island
    from enisle.island import Result as Result

__all__ = ["AsyncPlatform", "Island", "Platform", "Result", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("AsyncPlatform", "Platform"):
        from enisle import api

        return getattr(api, name)
    if name not in ("Island", "Result"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from enisle import island

    return getattr(island, name)
