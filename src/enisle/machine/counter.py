"""The time-stamp counter as a guest of this machine sees it, measured by letting a guest read it once."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from enisle.abi import tsc
from enisle.abi.types import Gva
from enisle.abi.x86 import GPR_COUNT, RAX, RIP
from enisle.machine.layout import USER_START
from enisle.machine.pagetables import leaf_flags
from enisle.machine.processor import Syscall

if TYPE_CHECKING:
    from enisle.machine.machine import Machine

# lfence; rdtsc; shl rdx, 32; or rax, rdx; syscall
READ_COUNTER = bytes.fromhex("0faee8 0f31 48c1e220 4809d0 0f05")


class Counter(NamedTuple):
    """The guest's counter: `read` gives its value now, on the host's side; `khz` its nominal rate."""

    read: Callable[[], int]
    khz: int
    offset: int = 0
    """What `read` adds to the counter of the host."""


def measure(machine: "Machine") -> Counter | None:
    """Return the guest's counter, or None when there is none to rely on."""
    read = tsc.reader() if tsc.is_invariant() else None
    if read is None:
        return None
    khz = machine.counter_khz() or _measure_khz(read)
    before = read()
    seen = _read_in_guest(machine)
    after = read()
    if seen is None:
        return None
    if before <= seen <= after:
        return Counter(read, khz)
    offset = seen - (before + after) // 2  # a hypervisor that keeps its guests' counter apart
    return Counter(lambda: read() + offset, khz, offset)


def _measure_khz(read: Callable[[], int]) -> int:
    """Return the counter's rate over two milliseconds; some ten ppm off, which the clock's first refresh mends."""
    begun, ticks = time.monotonic_ns(), read()
    while (elapsed := time.monotonic_ns() - begun) < 2_000_000:
        pass
    return max(1, (read() - ticks) * 10**6 // elapsed)


def _read_in_guest(machine: "Machine") -> int | None:
    space, processor = machine.new_address_space(), machine.acquire_processor()
    try:
        page = machine.memory.allocate_frame()
        machine.memory.write(page, READ_COUNTER)
        space.map(Gva(USER_START), page, 1, leaf_flags(True, False, True))
        for index in range(GPR_COUNT):
            processor.gpr[index] = 0
        processor.gpr[RIP] = USER_START
        processor.enter(space.root)
        return processor.gpr[RAX] if isinstance(processor.run(), Syscall) else None
    finally:
        machine.release_processor(processor)
        machine.release_address_space(space)
