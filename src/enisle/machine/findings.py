"""What this host's processors really do, measured in a scratch machine; nothing here is assumed from a vendor string.

The machine itself decides from its own first traps; these findings are for people (`enisle doctor`) and for tests.
"""

import time

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import GPR_COUNT, RAX, RCX, RDI, RIP, RSP
from enisle.errors import EnisleError
from enisle.machine.machine import MINIMUM_MEMORY, Machine
from enisle.machine.pagetables import AddressSpace, leaf_flags
from enisle.machine.processor import PageFault, Processor, Syscall
from enisle.records import Record

CODE, STACK, DATA = Gva(0x40_0000), Gva(0x50_0000), Gva(0x60_0000)
SYSCALL_LOOP = b"\x0f\x05\xeb\xfc"  # syscall; jmp back
LOAD = b"\x48\x8b\x07\x0f\x05\xeb\xf9"  # mov rax, [rdi]; syscall; jmp back
STORE = b"\x48\x89\x07\x0f\x05\xeb\xf9"  # mov [rdi], rax; syscall; jmp back
ROUNDS = 300


class Findings(Record):
    """What was found; times in microseconds (medians)."""

    kvm: bool
    kvm_problem: str
    kvm_hint: str
    syscall_ring: int | None = None
    """Ring in which SYSCALL's target runs: 0 on VMX and SVM, 3 on a software KVM."""
    exit_us: float | None = None
    page_fault_us: float | None = None
    flush_works: bool | None = None
    """A downgrade followed by our flush is seen by the guest."""
    flush_needed: bool | None = None
    """Without the flush the guest goes on with the old translation."""
    xcr0: int | None = None
    max_processors: int | None = None
    emulated: bool = False
    emulated_problem: str = ""


class _Scratch:
    """A small guest that runs a few instructions at a time."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, machine.memory
        self.space: AddressSpace = machine.new_address_space()
        self.processor: Processor = machine.acquire_processor()
        self.code, self.stack = self._page(CODE, False, True), self._page(STACK, True, False)
        self.data = self._page(DATA, True, False)
        self.processor.enter(self.space.root)

    def _page(self, address: Gva, write: bool, execute: bool) -> Gpa:
        frame = self.memory.allocate_frame()
        self.space.map(address, frame, 1, leaf_flags(True, write, execute))
        return frame

    def begin(self, code: bytes) -> None:
        self.memory.write(self.code, code)
        for index in range(GPR_COUNT):
            self.processor.gpr[index] = 0
        self.processor.gpr[RIP], self.processor.gpr[RSP], self.processor.gpr[RDI] = CODE, STACK + PAGE - 16, DATA

    def time_exits(self, code: bytes) -> float:
        """Return the median time of one `run`, microseconds."""
        self.begin(code)
        times: list[int] = []
        for _ in range(ROUNDS):
            begun = time.perf_counter_ns()
            self.processor.run()
            times.append(time.perf_counter_ns() - begun)
        return sorted(times)[ROUNDS // 2] / 1000

    def stale_write_seen(self, flush: bool) -> bool:
        """Return whether the guest still writes to a page after it was made read-only."""
        self.space.replace(DATA, self.data, leaf_flags(True, True, False))
        self.memory.flush(self.data, 1)
        self.begin(STORE)
        self.processor.run()
        self.space.replace(DATA, self.data, leaf_flags(True, False, False))
        if flush:
            self.memory.flush(self.data, 1)
        self.begin(STORE)
        return not isinstance(self.processor.run(), PageFault)


def measure() -> Findings:
    """Measure this host. Takes about 50 ms; never raises for what a host lacks."""
    emulated_problem = _emulated_problem()
    try:
        machine = Machine("kvm", MINIMUM_MEMORY)
    except EnisleError as error:
        problem = f"{error.message}: {error.why}"
        return Findings(False, problem, error.hint, emulated=not emulated_problem, emulated_problem=emulated_problem)
    with machine:
        scratch = _Scratch(machine)
        exit_us = scratch.time_exits(SYSCALL_LOOP)
        scratch.begin(SYSCALL_LOOP)
        answered = isinstance(scratch.processor.run(), Syscall) and scratch.processor.gpr[RCX] == CODE + 2
        fault_us = scratch.time_exits(b"\x48\x8b\x04\x25\x00\x00\x10\x00")  # mov rax, [0x100000]: nothing there
        stale = scratch.stale_write_seen(flush=False)
        works = not scratch.stale_write_seen(flush=True)
        vm = machine.kvm_facts()
        return Findings(
            answered,
            "" if answered else "system calls do not arrive",
            "" if answered else "use --processor emulated and report this host",
            vm.syscall_ring,
            exit_us,
            fault_us,
            works,
            stale,
            vm.xcr0,
            vm.max_processors,
            not emulated_problem,
            emulated_problem,
        )


def _emulated_problem() -> str:
    try:
        with Machine("emulated", MINIMUM_MEMORY) as machine:
            scratch = _Scratch(machine)
            scratch.begin(SYSCALL_LOOP)
            scratch.processor.gpr[RAX] = 39
            return "" if isinstance(scratch.processor.run(), Syscall) else "a system call did not arrive"
    except (EnisleError, ImportError) as error:
        return str(error)
