"""Decisions of the kernel room without input or output: how much memory to fill before it is touched."""

from enisle.abi.linux_mman import MAP_GROWSDOWN, MAP_NORESERVE, MAP_POPULATE
from enisle.abi.types import HUGE, HUGE_MASK, PAGE, PAGE_SHIFT
from enisle.machine import GuestMemory

AROUND = 16 * PAGE


def fill_eagerly(pages: int, flags: int, memory: GuestMemory) -> bool:
    """Return whether a new anonymous mapping gets its frames at once.

    A filled page costs nothing on the host until it is touched, but it is charged: so fill while half of the limit
    is free, and leave reservations alone.
    """
    if flags & MAP_POPULATE:
        return True
    if flags & (MAP_NORESERVE | MAP_GROWSDOWN):
        return False
    return memory.used_frames + pages <= memory.limit_frames // 2


def fault_around(page: int, start: int, end: int, memory: GuestMemory) -> tuple[int, int]:
    """Return the range to fill for a fault on `page` of the mapping [start, end): a chunk, a few pages, or one."""
    free = memory.limit_frames - memory.used_frames
    chunk = page & ~HUGE_MASK
    if start <= chunk and chunk + HUGE <= end and free > memory.limit_frames // 8:
        return chunk, chunk + HUGE
    if free > (AROUND >> PAGE_SHIFT) * 4:
        around = page & ~(AROUND - 1)
        return max(start, around), min(end, around + AROUND)
    return page, page + PAGE
