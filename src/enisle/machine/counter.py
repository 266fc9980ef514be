"""The time-stamp counter as a guest of this machine sees it, measured by letting a guest read it once."""

from typing import TYPE_CHECKING

from enisle.abi import tsc
from enisle.abi.types import Gva
from enisle.abi.x86 import GPR_COUNT, RAX, RIP
from enisle.machine.layout import USER_START
from enisle.machine.pagetables import leaf_flags
from enisle.machine.processor import Interrupted, Syscall
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.machine.machine import Machine

# lfence; rdtsc; shl rdx, 32; or rax, rdx; syscall
READ_COUNTER = bytes.fromhex("0faee8 0f31 48c1e220 4809d0 0f05")


class Counter(Record):
    """The guest's counter: the host's plus `offset`; `khz` is its nominal rate, 0 when unknown."""

    khz: int
    offset: int


ROUNDS = 3


def measure(machine: "Machine") -> Counter | None:
    """Return the guest's counter, or None when there is none to rely on."""
    read = tsc.reader() if tsc.is_invariant() else None
    if read is None:
        return None
    narrowest: tuple[int, int] | None = None
    for _ in range(ROUNDS):
        before = read()
        seen = _read_in_guest(machine)
        after = read()
        if seen is None:
            return None
        if before <= seen <= after:
            return Counter(machine.counter_khz(), 0)
        # A hypervisor that keeps its guests' counter apart: trust the quickest round trip.
        trip = after - before, seen - (before + after) // 2
        narrowest = min(narrowest, trip) if narrowest else trip
    return Counter(machine.counter_khz(), narrowest[1] if narrowest else 0)


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
        while isinstance(exit := processor.run(), Interrupted):
            pass  # an auditor's look
        return processor.gpr[RAX] if isinstance(exit, Syscall) else None
    finally:
        machine.release_processor(processor)
        machine.release_address_space(space)
