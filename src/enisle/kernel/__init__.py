"""Linux in Python: processes, threads, signals, memory maps, files, system calls.

Takes what a processor's `run` brings up and answers as Linux 6.1 would. Owns the host files and sockets that are lent
to guests. Knows no island: namespaces, limits of the host process and the root file system are made above.
May import `machine`, `abi` and `errors`.
"""

from typing import TYPE_CHECKING

from enisle.kernel.handlers import load_handlers
from enisle.kernel.kernel import Kernel, KernelConfig, ProcessRecord
from enisle.kernel.process import Process
from enisle.kernel.scheduling import processors_of
from enisle.kernel.statistics import KernelStatistics
from enisle.kernel.table import TABLE, Entry, Support

__all__ = [
    "TABLE",
    "Entry",
    "Kernel",
    "KernelConfig",
    "KernelStatistics",
    "Process",
    "ProcessRecord",
    "Support",
    "address_spaces",
    "load_handlers",
    "processors_of",
]

if TYPE_CHECKING:
    from enisle.kernel.spaces import SpaceRecord


def address_spaces(kernel: Kernel, pid: int, limit: int) -> "list[SpaceRecord]":
    """Return the address spaces of all processes, or of `pid` alone, with about `limit` pages of tables in all."""
    from enisle.kernel import spaces  # when somebody looks

    return spaces.address_spaces(kernel, pid, limit)
