"""The state of a virtual processor, read from what QEMU's monitor prints (`info registers -a`).

Promises: a record per processor in order, or GuestError naming what is missing; any text is taken, none is trusted.
Layout of the text: target/i386/cpu-dump.c. Pure.
"""

import re
from typing import Any

from enisle.errors import GuestError
from enisle.records import Record

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
CONTROL = ("cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "efer")

_PROCESSOR = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
# A 32-bit or 16-bit state is printed with the names of 32-bit registers.
_NUMBER = re.compile(r"\b([A-Z][A-Z0-9]{1,4}) ?=([0-9a-f]+)(?![0-9a-f])")
_SEGMENT = re.compile(r"^([A-Z]{2,3}) ?=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]{8}) ([0-9a-f]{8})", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT)= +([0-9a-f]+) ([0-9a-f]{8})", re.MULTILINE)


class Segment(Record):
    """One segment register with its hidden part (SDM 3A 3.4.3)."""

    selector: int
    base: int
    limit: int
    flags: int
    """The second double word of the descriptor: type in bits 8 to 11, DPL in 13 and 14, L in 21."""


class DescriptorTable(Record):
    """GDTR or IDTR."""

    base: int
    limit: int


class ProcessorRegisters(Record):
    """What one processor holds. `general` has rax … r15 by name, `control` cr0 … cr4, dr0 … dr7 and efer."""

    number: int
    general: dict[str, int]
    rip: int
    rflags: int
    cpl: int
    halted: bool
    control: dict[str, int]
    segments: dict[str, Segment]
    gdt: DescriptorTable
    idt: DescriptorTable

    def flat(self) -> dict[str, int]:
        """Return every register by one name: rax, cr3, cs (the selector), gs_base, idt_base, idt_limit, cpl …"""
        found = dict(self.general) | self.control | {"rip": self.rip, "rflags": self.rflags, "cpl": self.cpl}
        for name, segment in self.segments.items():
            found |= {name: segment.selector, f"{name}_base": segment.base, f"{name}_limit": segment.limit}
        for name, table in (("gdt", self.gdt), ("idt", self.idt)):
            found |= {f"{name}_base": table.base, f"{name}_limit": table.limit}
        return found


def parse_registers(text: str) -> tuple[ProcessorRegisters, ...]:
    """Return the registers of every processor. Raises GuestError for a text that does not hold them."""
    heads = list(_PROCESSOR.finditer(text))
    if not heads:
        raise GuestError("QEMU told no registers", f"{text[:80]!r}", "this version of QEMU may print them otherwise")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return tuple(_parse_one(int(head[1]), text[head.end() : end]) for head, end in zip(heads, ends, strict=True))


def _parse_one(index: int, text: str) -> ProcessorRegisters:
    segments = {
        name.lower(): Segment(*(int(value, 16) for value in values)) for name, *values in _SEGMENT.findall(text)
    }
    tables = {name: DescriptorTable(int(base, 16), int(limit, 16)) for name, base, limit in _TABLE.findall(text)}
    numbers = {name: int(value, 16) for name, value in _NUMBER.findall(text)}
    try:
        return ProcessorRegisters(
            number=index,
            general={name: _general(name, numbers) for name in GENERAL},
            rip=numbers["RIP"] if "RIP" in numbers else numbers["EIP"],
            rflags=numbers["RFL"] if "RFL" in numbers else numbers["EFL"],
            cpl=numbers["CPL"],
            halted=bool(numbers["HLT"]),
            control={name: numbers[name.upper()] for name in CONTROL},
            segments={name: segments[name] for name in SEGMENTS},
            gdt=tables["GDT"],
            idt=tables["IDT"],
        )
    except KeyError as missing:
        hint = "this version of QEMU may print them otherwise"
        raise GuestError(
            f"QEMU did not tell {missing} of processor {index}", "its answer is incomplete", hint
        ) from None


def _general(name: str, numbers: dict[str, Any]) -> int:
    upper = name.upper()
    if upper in numbers:
        return numbers[upper]
    if "EIP" in numbers:  # outside long mode there are eight, 32 bits wide
        return numbers.get(f"E{upper[1:]}", 0)
    raise KeyError(upper)
