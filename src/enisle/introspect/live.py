"""A running machine as a guest to look into, whoever runs it.

`LiveGuest` takes any object with the shape of `LiveMachine` (linuxvm's VirtualMachine has it). It only ever reads.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from enisle.introspect.dump import state_of
from enisle.introspect.memory import PhysicalMemory, ProcessorState, Segments


class Piece(Protocol):
    """A piece of guest-physical memory and where it lies in `ram`."""

    @property
    def gpa(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...


class ProcessorView(Protocol):
    """One processor's registers."""

    @property
    def number(self) -> int: ...

    def flat(self) -> Mapping[str, int]:
        """Return every register by name, with cr3, idt_base, gs_base, cpl among them."""
        ...


class LiveMachine(Protocol):
    """What a hypervisor must offer."""

    name: str

    @property
    def ram(self) -> memoryview: ...
    def memory_map(self) -> Sequence[Piece]: ...
    def registers(self) -> Sequence[ProcessorView]: ...
    def msrs(self) -> Sequence[Mapping[int, int]]: ...
    def paused(self) -> AbstractContextManager[Any]: ...


class LiveGuest:
    """A guest that runs, and stands still while it is looked at."""

    def __init__(self, machine: LiveMachine) -> None:
        self.name = machine.name
        self._machine = machine
        self._holds: list[ExitStack] = []
        pieces = [(piece.gpa, piece.size, piece.offset) for piece in machine.memory_map()]
        self.memory: PhysicalMemory = Segments(machine.ram, pieces)

    def processors(self) -> Sequence[ProcessorState]:
        """Return the state of all processors; it stands still meanwhile."""
        with self._machine.paused():
            views, msrs = self._machine.registers(), self._machine.msrs()
        return [state_of(view.number, view.flat(), own) for view, own in zip(views, msrs, strict=True)]

    def pause(self) -> None:
        hold = ExitStack()
        hold.enter_context(self._machine.paused())
        self._holds.append(hold)

    def resume(self) -> None:
        self._holds.pop().close()
