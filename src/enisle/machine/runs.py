"""A pool of address runs: hands out contiguous runs, takes them back, joins neighbours. Pure bookkeeping."""

from bisect import bisect_left


class RunPool:
    """Free runs of equal-sized units in `[start, end)`; starts and lengths are counted in units."""

    def __init__(self, start: int, end: int) -> None:
        self._starts = [start]
        self._lengths = {start: end - start}
        self.free = end - start

    def take(self, count: int) -> int | None:
        """Return the start of a contiguous free run of `count` units (lowest first), or None."""
        for position, start in enumerate(self._starts):
            length = self._lengths[start]
            if length >= count:
                self._cut(position, start, length, count)
                return start
        return None

    def take_some(self, count: int) -> tuple[int, int] | None:
        """Return (start, length) of one free run of at most `count` units, or None when nothing is left."""
        if not self._starts:
            return None
        start = self._starts[0]
        length = self._lengths[start]
        taken = min(length, count)
        self._cut(0, start, length, taken)
        return start, taken

    def _cut(self, position: int, start: int, length: int, count: int) -> None:
        del self._lengths[start]
        if length == count:
            del self._starts[position]
        else:
            self._starts[position] = start + count
            self._lengths[start + count] = length - count
        self.free -= count

    def give(self, start: int, count: int) -> None:
        """Take a run back."""
        starts, lengths = self._starts, self._lengths
        position = bisect_left(starts, start)
        if position < len(starts):
            assert start + count <= starts[position], f"double free: {start=:#x} {count=} {starts[position]=:#x}"
        self.free += count
        if position < len(starts) and starts[position] == start + count:
            count += lengths.pop(starts[position])
            del starts[position]
        if position and (before := starts[position - 1]) + lengths[before] >= start:
            assert before + lengths[before] == start, f"double free: {start=:#x} {before=:#x}"
            lengths[before] += count
        else:
            starts.insert(position, start)
            lengths[start] = count
