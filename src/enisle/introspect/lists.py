"""Walk the kernel's linked lists without trusting them: bounded, safe against loops, and saying where they break.

`struct list_head` is {next, prev} (include/linux/types.h). A link is believed when its neighbour points back.
"""

import struct

from enisle.introspect.memory import Unmapped
from enisle.introspect.paging import AddressSpace
from enisle.records import Record

MOST = 200_000
KERNEL_HALF = 0xFF00_0000_0000_0000
_PAIR = struct.Struct("<QQ")


class Walk(Record):
    """The nodes of a list without its head, in order, and why the walk ended early (empty: it did not)."""

    nodes: tuple[int, ...]
    broken: str = ""

    @property
    def complete(self) -> bool:
        return not self.broken


def is_kernel_pointer(value: int) -> bool:
    """Return whether a word can be the address of a kernel object; five-level direct maps start at 0xff…."""
    return value >= KERNEL_HALF and not value & 7


def walk_list(space: AddressSpace, head: int, most: int = MOST) -> Walk:
    """Follow `next` from `head` until it comes back."""
    nodes: list[int] = []
    seen = {head}
    at = head
    read = space.read
    try:
        following, last = _PAIR.unpack(read(head, 16))
    except Unmapped as fault:
        return Walk((), f"the head: {fault}")
    while following != head:
        if following in seen:
            return Walk(tuple(nodes), f"{at:#x} leads back to {following:#x}, not to the head")
        if not is_kernel_pointer(following):
            return Walk(tuple(nodes), f"{at:#x} leads to {following:#x}, which is no kernel address")
        try:
            beyond, back = _PAIR.unpack(read(following, 16))
        except Unmapped as fault:
            return Walk(tuple(nodes), f"{at:#x} leads astray: {fault}")
        if back != at:
            return Walk(tuple(nodes), f"{following:#x} points back to {back:#x}, not to {at:#x}")
        nodes.append(following)
        seen.add(following)
        if len(nodes) >= most:
            return Walk(tuple(nodes), f"more than {most} entries")
        at, following = following, beyond
    return Walk(tuple(nodes), "" if last == at else f"the head's last entry is {last:#x}, not {at:#x}")
