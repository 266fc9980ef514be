"""The processor seam: what the kernel room may ask of a virtual processor, and what comes up from it.

Registers go in, `run()` returns an Exit, `kick()` interrupts it from any thread. After any exit `gpr` is exactly
the ring-3 state of the guest: RIP after the instruction for a system call, at the instruction for a fault.
A processor is used by one host thread at a time; only `kick()` may be called by others.
"""

from typing import TYPE_CHECKING, Protocol

from enisle.abi.types import Gpa, Gva

if TYPE_CHECKING:
    from enisle.machine.exitless import CallSlot
    from enisle.machine.pagetables import AddressSpace


class Exit:
    """Why the processor came back."""

    __slots__ = ()


class Syscall(Exit):
    """The guest executed SYSCALL; number and arguments are in `gpr`."""

    __slots__ = ()


class PageFault(Exit):
    """#PF: `present` tells a protection violation from a missing page (SDM 3A 4.7)."""

    __slots__ = ("address", "execute", "present", "write")

    def __init__(self, address: Gva, write: bool, execute: bool, present: bool) -> None:
        self.address, self.write, self.execute, self.present = address, write, execute, present

    def __repr__(self) -> str:
        return f"PageFault({self.address:#x}, write={self.write}, execute={self.execute}, present={self.present})"


class ProcessorException(Exit):
    """Any other exception of SDM 3A table 6-1."""

    __slots__ = ("error_code", "vector")

    def __init__(self, vector: int, error_code: int) -> None:
        self.vector, self.error_code = vector, error_code

    def __repr__(self) -> str:
        return f"ProcessorException(vector={self.vector}, error_code={self.error_code:#x})"


class BusError(Exit):
    """The host cannot back a page that is mapped (a file mapping beyond the end of the file)."""

    __slots__ = ()


class Interrupted(Exit):
    """`kick()` was called, or the host interrupted the processor."""

    __slots__ = ()


class Halt(Exit):
    """The machine cannot go on: a triple fault or an error of the hypervisor. `reason` says which."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Halt({self.reason!r})"


SYSCALL = Syscall()
INTERRUPTED = Interrupted()
BUS_ERROR = BusError()


class Registers(Protocol):
    """18 unsigned 64-bit registers in the order of `abi.x86.RAX…RFLAGS`."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Processor(Protocol):
    """A virtual processor in ring 3."""

    @property
    def gpr(self) -> Registers: ...

    exits: int
    """How often `run` returned."""

    @property
    def fs_base(self) -> int: ...
    @fs_base.setter
    def fs_base(self, value: int) -> None: ...
    @property
    def gs_base(self) -> int: ...
    @gs_base.setter
    def gs_base(self, value: int) -> None: ...

    def enter(self, root: Gpa) -> None:
        """Translate through the page tables at `root` from the next `run` on."""
        ...

    def redirect(self, root: Gpa) -> None:
        """Translate through `root`, the same addresses by other tables, from now on; from any thread.

        When it returns the tables before are not used any more.
        """
        ...

    def run(self) -> Exit:
        """Run the guest until it needs its kernel."""
        ...

    def open_slot(self, space: "AddressSpace") -> "CallSlot | None":
        """Send system calls of `space` through the exit-less door from now on; None when there is no such door."""
        ...

    def close_slot(self) -> None:
        """Send system calls through the exit door again."""
        ...

    def kick(self) -> None:
        """Make the current or the next `run` return `Interrupted`, from any thread."""
        ...

    def xsave(self) -> bytes:
        """Return FPU and vector state as a standard-format XSAVE area (SDM 1 13.4)."""
        ...

    def xrstor(self, image: bytes) -> None:
        """Load FPU and vector state; invalid bits of the image are cleared as XRSTOR would refuse them."""
        ...

    def close(self) -> None: ...
