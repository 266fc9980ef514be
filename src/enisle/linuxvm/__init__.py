"""Full Linux machines, by QEMU: started in a pen, found by name, looked into from outside, ended without a trace.

May import abi, errors, records. Alone owns QEMU and its monitor (the qemu.qmp library). Promises: QEMU runs without
rights and network, as a user and in name spaces of its own; whatever dies, no process, memory, socket or mount stays.
Its names are loaded when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.linuxvm.accelerator import Finding as Finding
    from enisle.linuxvm.accelerator import examine as examine
    from enisle.linuxvm.configuration import Disk as Disk
    from enisle.linuxvm.configuration import VmConfig as VmConfig
    from enisle.linuxvm.configuration import parse_disk as parse_disk
    from enisle.linuxvm.dump import Dump as Dump
    from enisle.linuxvm.machine import VirtualMachine as VirtualMachine
    from enisle.linuxvm.machine import VmStatus as VmStatus
    from enisle.linuxvm.machine import machines as machines
    from enisle.linuxvm.memory_map import Range as Range
    from enisle.linuxvm.qemu import find_qemu as find_qemu
    from enisle.linuxvm.qemu import version as version
    from enisle.linuxvm.registers import ProcessorRegisters as ProcessorRegisters
    from enisle.linuxvm.registers import Segment as Segment

_MODULES = {
    "Disk": "configuration",
    "Dump": "dump",
    "Finding": "accelerator",
    "ProcessorRegisters": "registers",
    "Range": "memory_map",
    "Segment": "registers",
    "VirtualMachine": "machine",
    "VmConfig": "configuration",
    "VmStatus": "machine",
    "examine": "accelerator",
    "find_qemu": "qemu",
    "machines": "machine",
    "parse_disk": "configuration",
    "version": "qemu",
}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]  # the same names, told once


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"enisle.linuxvm.{_MODULES[name]}"), name)
