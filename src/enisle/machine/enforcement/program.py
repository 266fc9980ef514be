"""What a guard works with: a stopped thread as it sees it, the page where copies execute, exits made in software."""

from collections.abc import Sequence
from typing import Protocol

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import Vector
from enisle.machine.enforcement.outofline import INT3
from enisle.machine.pagetables import AddressSpace, leaf_flags
from enisle.machine.processor import Exit, PageFault, Processor, ProcessorException
from enisle.machine.software import decode as decoder
from enisle.machine.software.context import Fault
from enisle.machine.software.decode import LONGEST, decode_at

SLOT_FLAGS = leaf_flags(True, False, True)


class Program(Protocol):
    """A stopped thread of the address space."""

    @property
    def processor(self) -> Processor: ...
    @property
    def number(self) -> int:
        """What the thread is told of where it runs (getcpu)."""
        ...

    def fetch(self, address: int, size: int) -> bytes:
        """Return executable memory with the program's own bytes, at least one; fewer where execution must end.

        Raises Fault.
        """
        ...

    def read(self, address: int, size: int) -> bytes:
        """Return memory. Raises Fault."""
        ...

    def store(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Write all pieces or none. Raises Fault."""
        ...

    def run(self) -> Exit:
        """Let the processor run."""
        ...


class Slot:
    """A page of the guest's where one thread's copies execute."""

    def __init__(self, space: AddressSpace, address: int) -> None:
        self.memory, self.address = space.memory, address
        self._frame: Gpa = self.memory.allocate_frame()
        self._content = INT3 * PAGE
        self.memory.write(self._frame, self._content)
        self._used = 0
        space.map(Gva(address), self._frame, 1, SLOT_FLAGS)

    def load(self, content: bytes) -> None:
        """Put `content` there. In between it is all INT3: no mixture of two contents is ever executable."""
        if self._content == content:
            return
        self.memory.write(self._frame, INT3 * self._used)
        self.memory.write(self._frame, content)
        self._content, self._used = content, len(content)


def undecodable(code: bytes, address: int) -> Exit:
    """Return what becomes of bytes that are no instruction: where they end early, are too long, or just undefined."""
    if len(code) < LONGEST:
        return PageFault(Gva(address + len(code)), False, True, False)
    prefixes = next((at for at, byte in enumerate(code) if byte not in decoder.PREFIXES), LONGEST)
    shorter = (decode_at(code, dropped, address) for dropped in range(1, prefixes + 1))
    longest = max((dropped + it.length for dropped, it in enumerate(shorter, 1) if it), default=prefixes)
    return ProcessorException(Vector.GP if longest > LONGEST else Vector.UD, 0)  # SDM 3A 6.15, #GP


def as_exit(outcome: ProcessorException | Fault | None) -> Exit | None:
    """Return a fault met in software as the processor's own."""
    if not isinstance(outcome, Fault):
        return outcome
    if outcome.vector == Vector.PF:
        return PageFault(Gva(outcome.address), outcome.write, False, False)
    return ProcessorException(outcome.vector, outcome.error_code)
