"""Look, don't touch: find a guest kernel's internals by disassembly, and list, check and watch with what was found.

Alone owns capstone. May look down at island and machine; knows no hypervisor: a guest is anything that satisfies the
protocols of `memory`. Promises: guest memory is never written; what is not sure is called so. Its names are loaded
when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.introspect.breakpoints import Hit as Hit
    from enisle.introspect.breakpoints import address_of as address_of
    from enisle.introspect.breakpoints import wait_until as wait_until
    from enisle.introspect.breakpoints import watch as watch
    from enisle.introspect.cache import cache_directory as cache_directory
    from enisle.introspect.dump import open_saved as open_saved
    from enisle.introspect.dump import state_of as state_of
    from enisle.introspect.facts import Fact as Fact
    from enisle.introspect.facts import Facts as Facts
    from enisle.introspect.facts import Witness as Witness
    from enisle.introspect.gdb import Debugger as Debugger
    from enisle.introspect.integrity import Finding as Finding
    from enisle.introspect.integrity import Report as Report
    from enisle.introspect.live import LiveGuest as LiveGuest
    from enisle.introspect.look import Baseline as Baseline
    from enisle.introspect.maps import CodeHash as CodeHash
    from enisle.introspect.maps import MachineMemory as MachineMemory
    from enisle.introspect.maps import Mapped as Mapped
    from enisle.introspect.maps import code_hashes as code_hashes
    from enisle.introspect.maps import mappings as mappings
    from enisle.introspect.maps import writable_code as writable_code
    from enisle.introspect.memory import Guest as Guest
    from enisle.introspect.memory import Overlay as Overlay
    from enisle.introspect.memory import PhysicalMemory as PhysicalMemory
    from enisle.introspect.memory import ProcessorState as ProcessorState
    from enisle.introspect.memory import Segments as Segments
    from enisle.introspect.memory import Unmapped as Unmapped
    from enisle.introspect.memory import Unsupported as Unsupported
    from enisle.introspect.paging import AddressSpace as AddressSpace
    from enisle.introspect.pe import WindowsKernel as WindowsKernel
    from enisle.introspect.pe import discover_windows as discover_windows
    from enisle.introspect.processes import Process as Process
    from enisle.introspect.session import Introspection as Introspection

_PLACES = {
    "AddressSpace": "paging",
    "Baseline": "look",
    "CodeHash": "maps",
    "Debugger": "gdb",
    "Fact": "facts",
    "Facts": "facts",
    "Finding": "integrity",
    "Guest": "memory",
    "Hit": "breakpoints",
    "Introspection": "session",
    "LiveGuest": "live",
    "MachineMemory": "maps",
    "Mapped": "maps",
    "Overlay": "memory",
    "PhysicalMemory": "memory",
    "Process": "processes",
    "ProcessorState": "memory",
    "Report": "integrity",
    "Segments": "memory",
    "Unmapped": "memory",
    "Unsupported": "memory",
    "WindowsKernel": "pe",
    "Witness": "facts",
    "address_of": "breakpoints",
    "cache_directory": "cache",
    "code_hashes": "maps",
    "discover_windows": "pe",
    "mappings": "maps",
    "open_saved": "dump",
    "state_of": "dump",
    "wait_until": "breakpoints",
    "watch": "breakpoints",
    "writable_code": "maps",
}
__all__ = [*_PLACES]  # pyright: ignore[reportUnsupportedDunderAll]  # the same names, told once


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"enisle.introspect.{_PLACES[name]}"), name)
