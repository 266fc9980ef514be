"""Facts and how sure they are: every one carries the witnesses it rests on. Pure.

A witness is one place that tells a value: the root that was read, the instruction, the way registers led there.
Two witnesses are independent when they come from different roots; data that bears a value out is a root of its own.
Promises: `confirmed` rests on two independent witnesses that agree and none that differs; nothing is guessed.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from enisle.records import Record

GLOBAL, FUNCTION, OFFSET, PER_CPU = "global", "function", "offset", "per-cpu"
CONFIRMED, SINGLE, CONFLICT, UNKNOWN = "confirmed", "single", "conflict", "unknown"
DATA = "data"


class Witness(Record):
    """One place that tells a value."""

    value: int
    root: str
    pattern: str
    """P1 … P4 (see docs), or `data`."""
    site: int
    """The instruction that tells; 0 for data."""
    trace: str
    callee: str = ""
    """For pattern 1: the function that was given the global."""


class Fact(Record):
    """What is believed of one name, and why."""

    name: str
    kind: str
    value: int | None
    status: str
    witnesses: tuple[Witness, ...] = ()

    @property
    def usable(self) -> bool:
        return self.value is not None

    @property
    def root(self) -> str:
        return self.witnesses[0].root if self.witnesses else ""

    @property
    def site(self) -> int:
        return self.witnesses[0].site if self.witnesses else 0

    @property
    def trace(self) -> str:
        return self.witnesses[0].trace if self.witnesses else ""


def agree(name: str, kind: str, witnesses: Iterable[Witness]) -> Fact:
    """Return the fact the witnesses make together."""
    heard = tuple(witnesses)
    by_value: defaultdict[int, set[str]] = defaultdict(set)
    for witness in heard:
        by_value[witness.value].add(witness.root)
    if not by_value:
        return Fact(name, kind, None, UNKNOWN)
    if len(by_value) > 1:
        return Fact(name, kind, None, CONFLICT, heard)
    value, roots = next(iter(by_value.items()))
    return Fact(name, kind, value, CONFIRMED if len(roots) > 1 else SINGLE, heard)


_IMAGE_ADDRESS = re.compile(r"0xffffffff[89ab][0-9a-f]{7}\b")
"""An address of the kernel image as a trace tells it (image.KERNEL_START)."""


class Facts:
    """Facts by name. Asking for what is not known answers None, never a guess."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._facts = {fact.name: fact for fact in facts}

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, fact: Fact) -> Fact:
        self._facts[fact.name] = fact
        return fact

    def find(self, name: str) -> Fact | None:
        return self._facts.get(name)

    def value(self, name: str) -> int | None:
        """Return the value of a confirmed or single fact."""
        fact = self._facts.get(name)
        return fact.value if fact is not None else None

    def of_kind(self, *kinds: str) -> list[Fact]:
        return [fact for fact in self._facts.values() if fact.kind in kinds]

    def moved(self, slide: int) -> "Facts":
        """Return the facts of the same kernel loaded `slide` bytes further on; offsets stay."""
        return Facts(_moved(fact, slide) for fact in self)


def _moved(fact: Fact, slide: int) -> Fact:
    absolute = fact.kind in (GLOBAL, FUNCTION)
    witnesses = tuple(
        witness._replace(
            value=witness.value + slide if absolute else witness.value,
            site=witness.site + slide if witness.site else 0,
            trace=_IMAGE_ADDRESS.sub(lambda told: f"{int(told[0], 16) + slide:#x}", witness.trace),
        )
        for witness in fact.witnesses
    )
    value = fact.value + slide if absolute and fact.value is not None else fact.value
    return fact._replace(value=value, witnesses=witnesses)
