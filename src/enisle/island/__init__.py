"""One sandbox is one process: root file system, limits, jail, life cycle; and the SDK that starts such processes.

May import kernel, machine, abi, errors. Promises: whatever ends an island, its process is the only thing that dies,
and nothing of it stays on the host. Its names are loaded when first used, so the room is cheap to enter.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.island.checks import Check as Check
    from enisle.island.checks import run_checks as run_checks
    from enisle.island.configuration import Configuration as Configuration
    from enisle.island.configuration import Mount as Mount
    from enisle.island.configuration import parse_environment as parse_environment
    from enisle.island.configuration import parse_mount as parse_mount
    from enisle.island.configuration import parse_size as parse_size
    from enisle.island.configuration import validate as validate
    from enisle.island.looking import Sighting as Sighting
    from enisle.island.looking import ask as ask
    from enisle.island.looking import find as find
    from enisle.island.looking import islands as islands
    from enisle.island.looking import the_only_one as the_only_one
    from enisle.island.process import Command as Command
    from enisle.island.process import IslandProcess as IslandProcess
    from enisle.island.registry import Entry as Entry
    from enisle.island.sdk import Island as Island
    from enisle.island.sdk import Result as Result
    from enisle.island.sdk import RunningCommand as RunningCommand
    from enisle.island.tracebacks import report as report

_MODULES = {
    "Check": "checks",
    "Command": "process",
    "Configuration": "configuration",
    "Island": "sdk",
    "IslandProcess": "process",
    "Mount": "configuration",
    "Entry": "registry",
    "Result": "sdk",
    "RunningCommand": "sdk",
    "Sighting": "looking",
    "ask": "looking",
    "find": "looking",
    "islands": "looking",
    "parse_environment": "configuration",
    "parse_mount": "configuration",
    "parse_size": "configuration",
    "report": "tracebacks",
    "run_checks": "checks",
    "the_only_one": "looking",
    "validate": "configuration",
}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]  # the same names, told once


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"enisle.island.{_MODULES[name]}"), name)
