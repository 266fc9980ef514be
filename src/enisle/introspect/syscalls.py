"""From the processor's system call entry to the handlers: LSTAR, the dispatcher, the switch and the table.

System call numbers are ABI, so this names hundreds of functions even where the kernel exports none.
Promises: every answer carries where it was seen; nothing is believed of the table that the switch contradicts.
"""

import struct
from collections import Counter
from collections.abc import Sequence

from enisle.introspect.decode import Imm, Mem
from enisle.introspect.events import Access, Call
from enisle.introspect.image import Image
from enisle.introspect.memory import LSTAR, ProcessorState
from enisle.introspect.switch import RETURNS, Switch
from enisle.introspect.values import constant
from enisle.introspect.walk import Walker
from enisle.records import Record

FEWEST = 300
"""System calls every 64-bit Linux of the last ten years has."""
MOST = 600
SWAPGS = b"\x0f\x01\xf8"
_Q = struct.Struct("<Q")


class Dispatch(Record):
    """How system calls are dispatched. 0: not found."""

    entry: int = 0
    entry_sites: tuple[int, ...] = ()
    """Instructions that write the entry's address to LSTAR."""
    lstar: int = 0
    """What the processor itself says."""
    dispatcher: int = 0
    dispatcher_site: int = 0
    switch: int = 0
    switch_site: int = 0
    table: int = 0
    table_site: int = 0
    """The instruction that indexes the table; 0: found by its content."""
    handlers: tuple[int, ...] = ()
    """By number, as they are dispatched."""
    entries: tuple[int, ...] = ()
    """The table as it stands."""
    not_implemented: int = 0


def find_dispatch(image: Image, walker: Walker, processors: Sequence[ProcessorState]) -> Dispatch:
    """Return what can be found of the way of a system call."""
    lstar = next((state.msrs[LSTAR] for state in processors if image.is_text(state.msrs.get(LSTAR, 0))), 0)
    told = _entry_writes(image, walker)
    votes = Counter(entry for entry, _ in told)
    entry = votes.most_common(1)[0][0] if len(votes) == 1 else lstar
    sites = tuple(site for target, site in told if target == entry)
    found = Dispatch(entry=entry, entry_sites=sites, lstar=lstar)
    if not entry:
        return found
    for call in _calls(walker, entry, 0x180):
        candidate = _dispatcher(image, walker, found, call)
        if candidate is not None:
            return candidate
    return found


def _entry_writes(image: Image, walker: Walker) -> list[tuple[int, int]]:
    """Return (entry, site) of code that loads the number of LSTAR and, near it, the address of an entry (pattern 4).

    The number is an immediate of `mov ecx` or, through a paravirtual helper, `mov edi`. The neighbours load CSTAR:
    what is nearest before the use counts.
    """
    found: list[tuple[int, int]] = []
    for start, end in image.runs(executable=True):
        for opcode in (b"\xb9", b"\xbf"):
            at = start - image.start
            pattern = opcode + struct.pack("<I", LSTAR)
            while (at := image.content.find(pattern, at, end - image.start)) >= 0:
                entry = _near_constant(image, walker, image.start + at)
                if entry:
                    found.append((entry, image.start + at))
                at += 1
    return found


def _near_constant(image: Image, walker: Walker, site: int) -> int:
    """Return the code address loaded nearest to `site` that looks like an entry (it swaps GS)."""
    best: tuple[int, int] | None = None
    for at in range(site - 48, site + 48):
        head = image.read(at, 3)
        moved = len(head) == 3 and head[0] in (0x48, 0x49) and head[1] == 0xC7 and head[2] >= 0xC0
        loaded = len(head) == 3 and head[0] in (0x48, 0x4C) and head[1] == 0x8D and head[2] & 0xC7 == 5
        step = walker.decoder.at(at) if moved or loaded else None
        if step is None:
            continue
        operand = step.operands[1]
        value = operand.value if isinstance(operand, Imm) else operand.disp if isinstance(operand, Mem) else 0
        if image.is_text(value) and SWAPGS in image.read(value, 16):
            best = min(best or (99, 0), (abs(at - site), value))
    return best[1] if best else 0


def _calls(walker: Walker, entry: int, span: int) -> list[tuple[int, int]]:
    """Return (target, site) of the direct calls of a function, in order, each target once."""
    calls: dict[int, int] = {}
    for event in walker.walk(entry, span=span, most=400).events:
        target = constant(event.target) if isinstance(event, Call) else None
        if target is not None and isinstance(event, Call) and walker.is_text(target):
            calls.setdefault(target, event.site)
    return list(calls.items())


def _dispatcher(image: Image, walker: Walker, found: Dispatch, call: tuple[int, int]) -> Dispatch | None:
    """Return the whole way when the function called dispatches system calls."""
    candidate, site = call
    named = found._replace(dispatcher=candidate, dispatcher_site=site)
    for target, switch_site in _calls(walker, candidate, 1500):
        switch = Switch(image, walker, target)
        if _is_switch(image, switch):
            return _with_switch(image, named._replace(switch=target, switch_site=switch_site), switch)
    for event in walker.walk(candidate, span=1500, most=400).events:
        if isinstance(event, Access) and event.address is not None and event.address[0] == "index":
            table, scale = event.address[1], event.address[2]
            entries = read_table(image, table)
            if scale == 8 and len(entries) >= FEWEST:
                common = Counter(entries).most_common(1)[0][0]
                return named._replace(
                    table=table, table_site=event.site, handlers=entries, entries=entries, not_implemented=common
                )
    return None


def _is_switch(image: Image, switch: Switch) -> bool:
    """Return whether four system calls lead to four functions. (read, getpid, getuid, getppid)"""
    targets = {switch.target(number) for number in (0, 39, 102, 110)}
    return len(targets) == 4 and all(target is not None and image.is_text(target) for target in targets)


def _with_switch(image: Image, found: Dispatch, switch: Switch) -> Dispatch:
    """Evaluate the switch for every number and find the table by its content."""
    targets = [switch.target(number) for number in range(MOST)]
    table = _find_table(image, targets)
    entries = read_table(image, table) if table else ()
    counted = Counter(entries or [target for target in targets if target not in (None, RETURNS)]).most_common(1)
    default = counted[0][0] if counted else 0
    handlers = [default if target in (None, RETURNS) else target for target in targets]
    while len(handlers) > len(entries) and handlers[-1] == default:
        handlers.pop()
    return found._replace(table=table, handlers=tuple(handlers), entries=entries, not_implemented=default)


def _find_table(image: Image, targets: Sequence[int | None]) -> int:
    """Return the table that holds what the switch tells; several windows vote, since an entry may be tampered with."""
    votes: Counter[int] = Counter()
    for first in (0, 24, 48, 72, 96, 120):
        window = [target for target in targets[first : first + 8] if target not in (None, RETURNS)]
        if len(window) == 8:
            place = _find_words(image, b"".join(_Q.pack(target or 0) for target in window))
            if place:
                votes[place - 8 * first] += 1
    return votes.most_common(1)[0][0] if votes else 0


def _find_words(image: Image, words: bytes) -> int:
    """Return the one aligned place of `words` in read-only data, 0 when there is none or several."""
    places: list[int] = []
    for start, end in image.runs(executable=False):
        at = start - image.start
        while (at := image.content.find(words, at, end - image.start)) >= 0:
            if at % 8 == 0:
                places.append(image.start + at)
            at += 1
    return places[0] if len(places) == 1 else 0


def read_table(image: Image, table: int) -> tuple[int, ...]:
    """Return the words of a table as long as they point into the text; one that does not is borne among many."""
    words = image.read(table, 8 * MOST)
    entries = struct.unpack(f"<{len(words) // 8}Q", words[: len(words) & ~7])
    good = [image.is_text(entry) for entry in entries]
    count = 0
    while count < len(entries) and (good[count] or sum(good[count : count + 8]) >= 6):
        count += 1
    while count and not good[count - 1]:
        count -= 1
    return entries[:count]
