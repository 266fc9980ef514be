"""What the processors of a machine are without a value: CPUID and XCR0, asked by a guest of that machine.

The host's own CPUID is not it: a hypervisor may show its guests another one, and the emulated processor is one of its
own. Runs on the thread that makes the machine, before anything is enforced.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enisle.abi.cpuid import Answer, CpuidTable, capture, from_record, to_record
from enisle.abi.types import Gva
from enisle.abi.x86 import GPR_COUNT, R8, RAX, RBX, RCX, RDX, RIP
from enisle.errors import HostError
from enisle.machine.blocking import kept
from enisle.machine.blocking.admission import admit
from enisle.machine.blocking.apart import apart
from enisle.machine.blocking.query import Queries
from enisle.machine.layout import USER_START
from enisle.machine.pagetables import leaf_flags
from enisle.machine.processor import Exit, Interrupted, Processor, Syscall

if TYPE_CHECKING:
    from enisle.machine.machine import Machine

CPUID = bytes.fromhex("0fa2 4189c8 0f05")  # cpuid; mov r8d, ecx; syscall
XGETBV = bytes.fromhex("0f01d0 4189c8 0f05")  # xgetbv; mov r8d, ecx; syscall
PLACES = {CPUID: 0, XGETBV: 16}
MEASUREMENT = "cpuid-1"
"""What the answers are kept under."""


def measure(machine: "Machine") -> CpuidTable:
    """Return what CPUID and XGETBV answer in a guest of the machine. Raises HostError when they do not answer."""
    with _guest(machine) as processor:

        def cpuid(leaf: int, subleaf: int) -> Answer:
            gpr = processor.gpr
            _run(processor, CPUID, leaf, subleaf)
            return gpr[RAX] & 0xFFFF_FFFF, gpr[RBX] & 0xFFFF_FFFF, gpr[R8], gpr[RDX] & 0xFFFF_FFFF

        def xcr0() -> int:
            _run(processor, XGETBV, 0, 0)
            return processor.gpr[RAX] & 0xFFFF_FFFF | processor.gpr[RDX] << 32

        return capture(cpuid, xcr0)


def measure_backend(backend: str) -> CpuidTable:
    """Return what a guest on this backend sees, asked in a scratch machine. Raises HostError."""
    from enisle.machine.machine import MINIMUM_MEMORY, Machine

    with Machine(backend, memory_limit=MINIMUM_MEMORY) as machine:
        return measure(machine)


@contextmanager
def _guest(machine: "Machine") -> Generator[Processor]:
    # A space of its own, not one of the machine's: those come when all pages that they have in common are there.
    space, processor = machine.supervisor.new_address_space(), machine.acquire_processor()
    try:
        page = machine.memory.allocate_frame()
        machine.memory.write(page, b"".join(code.ljust(16, b"\xcc") for code in PLACES))
        space.map(Gva(USER_START), page, 1, leaf_flags(True, False, True))
        for index in range(GPR_COUNT):
            processor.gpr[index] = 0
        processor.enter(space.root)
        yield processor
    finally:
        machine.release_processor(processor)
        space.clear()
        machine.shadows.forget()
        space.close()


def _run(processor: Processor, code: bytes, rax: int, rcx: int) -> None:
    gpr = processor.gpr
    gpr[RIP], gpr[RAX], gpr[RCX] = USER_START + PLACES[code], rax, rcx
    ended: Exit = processor.run()
    while isinstance(ended, Interrupted):
        ended = processor.run()
    if not isinstance(ended, Syscall):
        raise HostError("this host's processors do not tell what they are", f"CPUID or XGETBV ended in {ended!r}")


def known_table(backend: str) -> CpuidTable:
    """Return what `measure_backend` finds, measured once per boot in a process of its own. Raises HostError."""
    table = _table(kept.recall(MEASUREMENT, backend))
    if table is None:
        found = apart(lambda: to_record(measure_backend(backend)))
        kept.keep(MEASUREMENT, backend, found)
        table = from_record(found)
    return table


def _table(found: Any) -> CpuidTable | None:
    """Return a measurement that was kept; None when there is none, or it makes no sense."""
    try:
        words = [found["xcr0"], *(word for entry in found["entries"] for word in entry)]
        well_formed = words[0] < 1 << 64 and all(type(word) is int and word >= 0 for word in words)
        well_formed = well_formed and max(words[1:]) < 1 << 32
        return from_record(found) if well_formed else None
    except (TypeError, KeyError, ValueError):
        return None


def take_up(machine: "Machine") -> Queries:
    """Return the answers of the machine's processors under its blocking value. Raises HostError when they cannot be it.

    Where masking XCR0 has no effect on programs, the sizes that are announced cover all that the processor stores.
    """
    from enisle.machine.enforcement.tiers import probe_controls

    assert machine.blocking
    backend = machine.backend
    table = known_table(backend)
    queries = Queries(machine.blocking, table, None if probe_controls(backend).xcr0 else table.xcr0)
    admit(queries, machine.backend)
    return queries
