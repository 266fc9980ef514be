"""The system-call table: one call, one entry; the handler's signature decodes the registers.

    @syscall(3, Support.FULL)
    def sys_close(thread: Thread, fd: Fd) -> None: ...

The same table feeds dispatch, the tracer, COMPATIBILITY.md and the fuzzers. A decoder is compiled at a call's first
use (about 2 us a call; reflection at call time costs ten times that, compiling all at import 20 ms).
"""

from collections.abc import Callable
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, NewType

from enisle.abi.types import Fd, Gva, Pid
from enisle.abi.x86 import R8, R9, R10, RDI, RDX, RSI

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread
    from enisle.machine import Registers

Int = NewType("Int", int)
"""A C int: signed, 32 bits."""
Uint = NewType("Uint", int)
"""A C unsigned int: 32 bits."""
Long = NewType("Long", int)
"""A C long, ssize_t or off_t: signed, 64 bits."""
Size = NewType("Size", int)
"""A C size_t or unsigned long."""
Path = NewType("Path", bytes)
"""A C string in guest memory, fetched: at most PATH_MAX bytes."""

ARGUMENT_REGISTERS = (RDI, RSI, RDX, R10, R8, R9)
LONGEST = 472
U64 = (1 << 64) - 1

_S32 = "((g[{0}] & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000"
DECODERS: dict[Any, str] = {
    Fd: _S32,
    Int: _S32,
    Pid: _S32,
    Uint: "g[{0}] & 0xFFFFFFFF",
    Long: "(g[{0}] ^ 0x8000000000000000) - 0x8000000000000000",
    Size: "g[{0}]",
    Gva: "g[{0}]",
    int: "g[{0}]",
    Path: "thread.mm.read_path(g[{0}])",
}


class Support(Enum):
    """How far a call behaves as Linux's does; published in COMPATIBILITY.md."""

    FULL = "full"
    PARTIAL = "partial"
    ABSENT = "absent"


class Entry:
    """One system call. `call(thread, registers)` decodes, runs the handler and returns its result."""

    __slots__ = ("call", "exit_door", "handler", "name", "note", "number", "support")

    def __init__(self, number: int, handler: Callable[..., int | None], support: Support, note: str, exit_door: bool):
        self.number, self.handler, self.support, self.note = number, handler, support, note
        self.name = handler.__name__.removeprefix("sys_")
        self.exit_door = exit_door
        self.call: Callable[[Thread, Registers], int | None] = self._first_call

    @property
    def parameters(self) -> list[tuple[str, Any]]:
        """Names and types of the arguments after the thread."""
        notes = self.handler.__annotations__
        return [(name, kind) for name, kind in notes.items() if name != "return"][1:]

    def _first_call(self, thread: "Thread", registers: "Registers") -> int | None:
        import_module(self.handler.__module__)  # another thread may still be in the midst of it: waits for that
        self.call = self._compile()
        return self.call(thread, registers)

    def _compile(self) -> "Callable[[Thread, Registers], int | None]":
        kinds = [kind for _, kind in self.parameters]
        decoded = (DECODERS[kind].format(register) for kind, register in zip(kinds, ARGUMENT_REGISTERS, strict=False))
        source = f"lambda thread, g: handler(thread, {', '.join(decoded)})"
        return eval(source, {"handler": self.handler})


TABLE: list[Entry | None] = [None] * LONGEST


def syscall(
    number: int, support: Support, note: str = "", exit_door: bool = False
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Enter a handler into the table.

    `exit_door`: the call needs all registers of its own processor (clone, execve, rt_sigreturn) and is never served
    for a thread that is still in its guest.
    """

    def enter(handler: Callable[..., int | None]) -> Callable[..., int | None]:
        assert TABLE[number] is None, f"two handlers for system call {number}"
        TABLE[number] = Entry(number, handler, support, note, exit_door)
        return handler

    return enter


class KeepRegisters(Exception):
    """Raised by a handler that has set every register itself (rt_sigreturn, execve)."""
