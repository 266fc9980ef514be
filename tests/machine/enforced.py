"""A guest of a few instructions under a blocking value: what the enforcement tests run on every backend."""

import threading
from collections.abc import Sequence

from enisle.abi.types import PAGE, PAGE_SHIFT, Gpa
from enisle.abi.x86 import PTE_ADDRESS, RIP, Pte, Vector
from enisle.machine import (
    USER_END,
    Exit,
    Guard,
    GuestFault,
    Interrupted,
    Machine,
    PageFault,
    Processor,
    ProcessorException,
)
from machine.guest import Guest


class EnforcedGuest(Guest):
    """A `Guest` whose exits go through a guard, as the kernel room sends them."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        assert machine.enforcement
        self.lock = threading.RLock()
        self.guard: Guard = machine.enforcement.guard(self.space, self.lock, self.memory.release)
        self.number = 0

    def load(self, code: bytes, address: int = 0x40_0000, **registers: int) -> None:
        """Put `code` into a plain page: what was executed there before is forgotten."""
        with self.lock:
            self.guard.pages.settle(address >> PAGE_SHIFT, 2)
            self.space.protect(address & -PAGE, 1, 1 << 63 | Pte.PRESENT | Pte.USER | Pte.WRITABLE)
        frame = Gpa(self.space.entry(address) & PTE_ADDRESS)
        self.memory.write(Gpa(frame + address % PAGE), code)
        self.begin(self.processor, address)

    # ---- Program ---------------------------------------------------------------------------------------------------

    def fetch(self, address: int, size: int) -> bytes:
        entry = self.space.entry(address)
        if not entry & Pte.PRESENT or address >= USER_END:
            raise GuestFault(Vector.PF, 0, address)
        size = min(size, PAGE - address % PAGE)
        frame = Gpa(entry & PTE_ADDRESS)
        return self.guard.pages.restore(address, self.memory.read(Gpa(frame + address % PAGE), size))

    def read(self, address: int, size: int) -> bytes:
        return self.fetch(address, size)

    def store(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        for address, content in pieces:
            frame = Gpa(self.space.entry(address) & PTE_ADDRESS)
            self.memory.write(Gpa(frame + address % PAGE), content)

    def dispatch(self) -> Exit:
        """Run until something comes up that the guard does not settle."""
        program = BareProgram(self)
        while True:
            exit = self.processor.run()
            if isinstance(exit, Interrupted):  # the auditor's ticker
                continue
            if isinstance(exit, PageFault) and exit.execute:
                with self.lock:
                    ready = self.guard.pages.fetch(exit.address)
                served = None if ready else self.guard.step(program)
            elif isinstance(exit, ProcessorException):
                served = self.guard.exception(program, exit)
                if type(served).__name__ == "NotOurs":
                    return exit
            else:
                return exit
            if served is not None:
                return served

    @property
    def rip(self) -> int:
        return self.gpr[RIP]


class BareProgram:
    """A stopped processor of an `EnforcedGuest`."""

    def __init__(self, guest: EnforcedGuest) -> None:
        self.processor: Processor = guest.processor
        self.number = guest.number
        self.fetch, self.read, self.store = guest.fetch, guest.read, guest.store
        self.run = guest.processor.run
