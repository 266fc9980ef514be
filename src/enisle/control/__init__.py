"""The room that makes what is wanted real: the controller's operations, the host agent and the keepers of islands.

The only assembler of rooms: imports `tasks`, `linuxvm`, `introspect`, `island` and below. Promises: whatever changes
something is a task; an island outlives the agent that started it. Its names are loaded when first used: a keeper is of
this room too, and stays small.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.control.agent import Hosting as Hosting
    from enisle.control.agent import run_agent as run_agent
    from enisle.control.asks import Asks as Asks
    from enisle.control.calls import Calls as Calls
    from enisle.control.dispatcher import run_dispatcher as run_dispatcher
    from enisle.control.operations import Operations as Operations
    from enisle.control.places import Places as Places
    from enisle.control.places import make_token as make_token
    from enisle.control.platform import PlatformInfo as PlatformInfo
    from enisle.control.platform import PlatformOptions as PlatformOptions
    from enisle.control.platform import platform_info as platform_info
    from enisle.control.platform import require_layout as require_layout
    from enisle.control.platform import start_platform as start_platform
    from enisle.control.platform import stop_platform as stop_platform
    from enisle.control.routines import host_routines as host_routines
    from enisle.control.specs import IslandSpec as IslandSpec
    from enisle.control.specs import VmSpec as VmSpec

_MODULES = {
    "Asks": "asks",
    "Calls": "calls",
    "Hosting": "agent",
    "IslandSpec": "specs",
    "Operations": "operations",
    "Places": "places",
    "PlatformInfo": "platform",
    "PlatformOptions": "platform",
    "VmSpec": "specs",
    "host_routines": "routines",
    "make_token": "places",
    "platform_info": "platform",
    "require_layout": "platform",
    "run_agent": "agent",
    "run_dispatcher": "dispatcher",
    "start_platform": "platform",
    "stop_platform": "platform",
}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]  # the same names, told once


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"enisle.control.{_MODULES[name]}"), name)
