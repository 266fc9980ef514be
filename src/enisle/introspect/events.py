"""What a walk through a function tells: calls, accesses, returns; and what instructions write unsaid. Data."""

from enisle.introspect.values import Value
from enisle.records import Record


class Call(Record):
    """A call, or a jump to another function (`tail`)."""

    site: int
    target: Value
    arguments: tuple[Value, ...]
    set_at: tuple[int, ...]
    """Where each argument's register was written last; 0: at entry."""
    tail: bool = False


class Access(Record):
    """An instruction that reads or writes memory. `stored` is what a plain store writes."""

    site: int
    address: Value
    size: int
    name: str
    write: bool
    stored: Value = None
    locked: bool = False


class Return(Record):
    site: int
    result: Value


Event = Call | Access | Return


class Walked(Record):
    """A function as it was seen."""

    entry: int
    events: tuple[Event, ...]
    complete: bool
    instructions: int


IMPLICIT: dict[str, tuple[str, ...]] = {
    "cdq": ("rdx",),
    "cqo": ("rdx",),
    "cwd": ("rdx",),
    "cdqe": ("rax",),
    "cwde": ("rax",),
    "cbw": ("rax",),
    "cpuid": ("rax", "rbx", "rcx", "rdx"),
    "rdmsr": ("rax", "rdx"),
    "rdtsc": ("rax", "rdx"),
    "rdtscp": ("rax", "rcx", "rdx"),
    "rdpmc": ("rax", "rdx"),
    "xgetbv": ("rax", "rdx"),
    "cmpxchg": ("rax",),
    "cmpxchg8b": ("rax", "rdx"),
    "cmpxchg16b": ("rax", "rdx"),
    "syscall": ("rcx", "r11"),
    "lodsb": ("rax", "rsi"),
    "lodsd": ("rax", "rsi"),
    "lodsq": ("rax", "rsi"),
    "stosb": ("rdi",),
    "stosd": ("rdi",),
    "stosq": ("rdi",),
    "leave": ("rsp", "rbp"),
    "mulx": ("rdx",),
}
"""Registers that instructions write without naming them (SDM 2)."""
