"""Bits of RFLAGS as instructions in software set them. A flag that the manual leaves undefined keeps its value."""

from enisle.abi.x86 import Rflags

CF, PF, AF, ZF, SF, OF = Rflags.CF, Rflags.PF, Rflags.AF, Rflags.ZF, Rflags.SF, Rflags.OF
ALL = CF | PF | AF | ZF | SF | OF


def updated(flags: int, defined: int, value: int) -> int:
    """Return `flags` with the `defined` bits taken from `value`."""
    return (flags & ~defined) | (value & defined)


def of_result(value: int, bits: int) -> int:
    """Return ZF and SF of a result."""
    return (0 if value else ZF) | (SF if value >> (bits - 1) & 1 else 0)
