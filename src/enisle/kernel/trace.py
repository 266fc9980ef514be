"""`--trace`: system calls as strace prints them, from the same table that serves them."""

from errno import errorcode
from typing import TYPE_CHECKING, Any

from enisle.abi.linux import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS, MAX_ERRNO
from enisle.abi.types import Fd, Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel.table import ARGUMENT_REGISTERS, Entry, Int, KeepRegisters, Long, Path, Support

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

LONGEST_TEXT = 64
RESTARTS = {
    ERESTARTSYS: "ERESTARTSYS",
    ERESTARTNOINTR: "ERESTARTNOINTR",
    ERESTARTNOHAND: "ERESTARTNOHAND",
    ERESTART_RESTARTBLOCK: "ERESTART_RESTARTBLOCK",
}


def quote(text: bytes) -> str:
    """Return bytes as a C string literal, shortened like strace does."""
    shown = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:o}" for c in text[:LONGEST_TEXT])
    return f'"{shown}"' + ("..." if len(text) > LONGEST_TEXT else "")


def format_argument(thread: "Thread", kind: Any, value: int) -> str:
    """Return one argument as its type asks."""
    if kind in (Fd, Int, Pid):
        return str(((value & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000)
    if kind is Long:
        return str((value ^ (1 << 63)) - (1 << 63))
    if kind is Path:
        try:
            return quote(thread.mm.read_path(value))
        except LinuxError:
            return f"{value:#x}"
    if kind is Gva:
        return f"{value:#x}" if value else "NULL"
    return str(value) if value < 1 << 16 else f"{value:#x}"


def format_call(thread: "Thread", number: int, entry: Entry | None) -> str:
    """Return the call in the registers as text."""
    values = [thread.gpr[register] for register in ARGUMENT_REGISTERS]
    if entry is None:
        return f"syscall_{number}({', '.join(f'{value:#x}' for value in values)})"
    arguments = (
        format_argument(thread, kind, value) for (_, kind), value in zip(entry.parameters, values, strict=False)
    )
    return f"{entry.name}({', '.join(arguments)})"


def format_result(result: int) -> str:
    """Return a result or error as strace prints it."""
    if -MAX_ERRNO <= result < 0:
        return f"-1 {RESTARTS.get(-result) or errorcode.get(-result, str(-result))}"
    return str(result) if result < 1 << 20 else f"{result:#x}"


def traced_call(thread: "Thread", number: int, entry: Entry | None) -> int:
    """Serve the call and print it with its result and, when that is not full, its level of support."""
    sink = thread.kernel.trace
    assert sink
    text = f"[{thread.tid}] {format_call(thread, number, entry)}"
    if entry is None:
        thread.kernel.count_unknown(number)
        sink(f"{text} = -1 ENOSYS (unknown)")
        return -38
    try:
        result = thread.guarded(entry.call, thread.gpr)
    except KeepRegisters:
        sink(f"{text} = 0")
        raise
    except BaseException as error:
        sink(f"{text} = ? ({type(error).__name__})")
        raise
    level = "" if entry.support is Support.FULL else f" ({entry.support.value})"
    sink(f"{text} = {format_result(result)}{level}")
    return result
