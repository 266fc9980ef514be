"""Address and identifier types. An address is an int with a meaning; the type says which."""

from typing import NewType

Gpa = NewType("Gpa", int)
"""Guest-physical address: an offset in the machine's memory."""
Gva = NewType("Gva", int)
"""Guest-virtual address: what a guest program calls a pointer."""
Hva = NewType("Hva", int)
"""Host-virtual address: an address in the island process."""
Pid = NewType("Pid", int)
Fd = NewType("Fd", int)

PAGE_SHIFT = 12
PAGE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE - 1
HUGE_SHIFT = 21
HUGE = 1 << HUGE_SHIFT
HUGE_MASK = HUGE - 1
FRAMES_PER_HUGE = HUGE // PAGE


def page_down(address: int) -> int:
    return address & ~PAGE_MASK


def page_up(address: int) -> int:
    return (address + PAGE_MASK) & ~PAGE_MASK
