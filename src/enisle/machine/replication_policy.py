"""When copies of page tables pay: a pure decision from what was seen of one address space, time being an argument.

On one side walks of tables on a foreign node, on the other the writing of more copies. Both are estimates: the first
counts pages found accessed again within a short look, beyond what a TLB holds, so it is a lower bound.
"""

from enisle.records import Record

TLB_ENTRIES = 1536
"""Second-level TLB of common processors: what is touched within it is not walked for."""
SURE_AFTER = 2
"""Looks in a row that must say the same before anything changes."""


class Prices(Record):
    """Nanoseconds. The latencies are of a two-socket server (local 280, remote 580 cycles at 2.7 GHz)."""

    local_ns: float = 104.0
    remote_ns: float = 215.0
    write_ns: float = 2.0
    """To write one entry of one more copy, within a run."""
    call_ns: float = 1000.0
    """To go on to one more copy, once per run of entries."""
    least_gain: float = 0.001
    """Fraction of the time of one processor below which nothing is worth while."""
    margin: float = 1.5
    """By how much the gain must exceed the price before copies are made; the price the gain before they go."""


class Seen(Record):
    """One look at an address space."""

    seconds: float
    """Since the last look."""
    touched: float
    """Leaf entries found accessed within `window` seconds, estimated for the whole space."""
    window: float
    remote_share: float
    """Fraction of its processors that are on another node than its first tables."""
    entries: int
    """Written since the last look, each counted once."""
    calls: int
    copies: int
    """Further copies there are, or would be."""


def walks(seen: Seen) -> float:
    """Return how many walks per second there are, at least: an estimate."""
    return max(0.0, seen.touched - TLB_ENTRIES) / seen.window if seen.window else 0.0


def gain(seen: Seen, model: Prices) -> float:
    """Return the seconds per second that own tables save, at least."""
    return walks(seen) * seen.remote_share * (model.remote_ns - model.local_ns) * 1e-9


def price(seen: Seen, model: Prices) -> float:
    """Return the seconds per second that writing more copies costs."""
    if not seen.seconds:
        return 0.0
    spent = seen.entries * model.write_ns + seen.calls * model.call_ns
    return spent * seen.copies * 1e-9 / seen.seconds


class Judge:
    """Decides for one address space whether it is to have copies; changes its mind only when it is sure."""

    def __init__(self, model: Prices | None = None) -> None:
        self.model = model or Prices()
        self.on = False
        self._against = 0

    def look(self, seen: Seen) -> bool:
        """Take one look into account; return whether copies are wanted now."""
        model = self.model
        saved, paid = gain(seen, model), price(seen, model)
        if self.on:
            other = saved < model.least_gain / model.margin or paid > saved * model.margin
        else:
            other = saved > model.least_gain and saved > paid * model.margin
        self._against = self._against + 1 if other else 0
        if self._against >= SURE_AFTER:
            self.on, self._against = not self.on, 0
        return self.on
