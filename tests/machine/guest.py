"""A guest of a few instructions: what the machine tests run on every backend."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import GPR_COUNT, RIP, RSP
from enisle.machine import AddressSpace, Exit, Machine, Processor, leaf_flags

CODE, STACK, DATA, HOLE = Gva(0x40_0000), Gva(0x50_0000), Gva(0x60_0000), Gva(0x70_0000)
SYSCALL = b"\x0f\x05"
SPIN = b"\xeb\xfe"
UD2 = b"\x0f\x0b"

READ_ONLY = leaf_flags(True, False, False)
READ_WRITE = leaf_flags(True, True, False)
READ_EXECUTE = leaf_flags(True, False, True)
ALL_RIGHTS = leaf_flags(True, True, True)


def mov(register: int, value: int) -> bytes:
    """Return `mov r64, imm64`; registers are numbered as in `abi.x86`."""
    number = (0, 3, 1, 2, 6, 7, 4, 5, *range(8, 16))[register]
    return struct.pack("<BBQ", 0x48 | number >> 3, 0xB8 | number & 7, value)


class Guest:
    """One address space with a page of code, one of stack and one of data, and a processor in it."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, machine.memory
        self.space: AddressSpace = machine.new_address_space()
        self.processor: Processor = machine.acquire_processor()
        self.code = self.page(CODE, READ_EXECUTE)
        self.stack = self.page(STACK, READ_WRITE)
        self.data = self.page(DATA, READ_WRITE)
        self.processor.enter(self.space.root)
        self.gpr = self.processor.gpr

    def page(self, address: int, flags: int, space: AddressSpace | None = None) -> Gpa:
        frame = self.memory.allocate_frame()
        (space or self.space).map(Gva(address), frame, 1, flags)
        return frame

    def load(self, code: bytes, address: int = CODE, **registers: int) -> None:
        """Put `code` where `address` is and point a processor with zeroed registers at it."""
        frame = Gpa(self.space.entry(address) & 0xF_FFFF_FFFF_F000)
        self.memory.write(Gpa(frame + address % PAGE), code)
        self.begin(self.processor, address)

    def begin(self, processor: Processor, address: int = CODE) -> None:
        for index in range(GPR_COUNT):
            processor.gpr[index] = 0
        processor.gpr[RIP], processor.gpr[RSP] = address, STACK + PAGE - 64

    def run(self, code: bytes) -> Exit:
        self.load(code)
        return self.processor.run()

    def word(self, frame: Gpa, offset: int = 0) -> int:
        return struct.unpack("<Q", self.memory.read(Gpa(frame + offset), 8))[0]

    @contextmanager
    def another(self) -> Iterator[Processor]:
        """Lend a further processor in the same address space."""
        processor = self.machine.acquire_processor()
        processor.enter(self.space.root)
        yield processor
        self.machine.release_processor(processor)
