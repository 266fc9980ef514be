"""Looking at a page before it may be executed: where trapped opcodes stand, and how each is made to trap.

A match that starts an instruction gets UD2 over its opcode. A match inside another instruction gets INT3 over all bytes
of that instruction, so that whoever jumps into it traps too. Which of the two it is, is decided by decoding forward
from many offsets before it: they must all fall into step, through sane code. Where they do not, the page may be data
and nothing is changed: it is stepped. No decision lets a trapped opcode stay executable; a wrong one costs speed.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable

from enisle.abi.types import PAGE
from enisle.machine.enforcement.opcodes import LONGEST, MANDATORY, PREFIX_RUN, PREFIXES, Trap, expression
from enisle.machine.enforcement.stream import Stream, escape_of
from enisle.records import Record

CONTEXT = 64
"""Bytes of the page before that help to fall into step."""
MAP_OF = {0x38: 2, 0x3A: 3}
UD2_SECOND, INT3 = 0x0B, 0xCC
MANY = 12
"""Matches above which a page is looked at only when it is itself to be executed."""
KEPT = 2048
"""Pages whose look is remembered."""


class Site(Record):
    """A place that was changed: `offset` and `length` of the changed bytes in the page."""

    offset: int
    length: int


class Look(Record):
    """What a page is like. `patched` is what may be executed, None when nothing is but step by step."""

    patched: bytes | None
    sites: tuple[Site, ...] = ()


class Scanner:
    """Looks at pages for one set of traps. Remembers pages by their content. Any thread."""

    def __init__(self, traps: Iterable[Trap]) -> None:
        self.traps = tuple(traps)
        self._expression: re.Pattern[bytes] | None = expression(self.traps) if self.traps else None
        self._needs: dict[tuple[int, int], list[Trap]] = {}
        for trap in self.traps:
            self._needs.setdefault((trap.map, trap.opcode), []).append(trap)
        self._known: OrderedDict[tuple[bytes, bytes], Look] = OrderedDict()
        self.scanned = self.remembered = 0

    # ---- searching -------------------------------------------------------------------------------------------------

    def matches(self, content: bytes, start: int = 0) -> list[int]:
        """Return where trapped opcodes stand in `content` from `start` on: the offsets of their escape bytes."""
        if self._expression is None:
            return []
        starts = (found.start() for found in self._expression.finditer(content, start))
        return [found for found in starts if self._length(content, found)]

    def _length(self, content: bytes, start: int) -> int:
        """Return how many bytes tell the trapped opcode at `start`, 0 when there is none after all."""
        second = content[start + 1]
        opcode = start + 2 if second in MAP_OF else start + 1
        if opcode >= len(content):
            return 0
        traps = self._needs.get((MAP_OF.get(second, 1), content[opcode]))
        if traps is None:
            return 0
        present = 1
        at = start - 1
        while at >= 0 and start - at <= PREFIX_RUN and content[at] in PREFIXES:
            present |= 1 << MANDATORY.get(content[at], 0)
            at -= 1
        if at < 0:
            present = 0xF  # who knows what stands before
        modrm = content[opcode + 1 : opcode + 2]
        for trap in traps:
            if trap.prefixes & present and (not trap.modrm or (modrm and modrm in trap.modrm)):
                return opcode + 1 - start + bool(trap.modrm)
        return 0

    def crosses(self, tail: bytes, head: bytes) -> bool:
        """Return whether a trapped opcode begins in one page and ends in the next."""
        if self._expression is None:
            return False
        first = tail[-PREFIX_RUN - LONGEST + 1 :]
        joined = first + head[: LONGEST - 1]
        return any(
            found.start() < len(first) < found.start() + self._length(joined, found.start())
            for found in self._expression.finditer(joined, max(0, len(first) - LONGEST + 1))
        )

    # ---- looking ---------------------------------------------------------------------------------------------------

    def look(self, content: bytes, before: bytes = b"", entry: int | None = None, patient: bool = True) -> Look | None:
        """Return how a page may be executed; `before` is the end of the page before it, `entry` where it is entered.

        None for a page with so many matches that it is left alone until somebody is `patient`.
        """
        known = self._known.get((content, b"")) or self._known.get((content, before))
        if known:
            self.remembered += 1
            return known
        self.scanned += 1
        found = self.matches(content)
        if len(found) > MANY and not patient:
            return None
        look = Look(content) if not found else self._decide(content, before, entry, found)
        needs_before = bool(found) and found[0] < CONTEXT
        if entry is None or not found:
            self._known[content, before if needs_before else b""] = look
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return look

    def _decide(self, content: bytes, before: bytes, entry: int | None, found: list[int]) -> Look:
        stream = Stream(before + content)
        base = len(before)
        patched = bytearray(content)
        sites: list[Site] = []
        known = None if entry is None else base + entry
        for match in found:
            if sites and match < sites[-1].offset + sites[-1].length:
                continue
            start = stream.locate(base + match, known)
            site = self._patch(stream, start, base, match, patched) if start is not None else None
            if site is None:
                return Look(None)
            sites.append(site)
            known = start
        result = bytes(patched)
        return Look(None) if self.matches(result) else Look(result, tuple(sites))

    def _patch(self, stream: Stream, start: int, base: int, match: int, patched: bytearray) -> Site | None:
        """Change the instruction at `start` of the stream, which covers the match; None when that is impossible."""
        instruction = stream.at(start)
        assert instruction
        first, length = start - base, instruction.length
        if escape_of(instruction) + first == match:
            patched[match + 1] = UD2_SECOND
            return Site(match, 2)
        if first < 0 or first + length > PAGE:
            return None
        other = self._other_encoding(stream, start + length, base, match)
        if other:
            patched[match + 1 : match + 3] = other
            return Site(match + 1, 2)
        patched[first : first + length] = bytes((INT3,)) * length
        return Site(first, length)

    @staticmethod
    def _other_encoding(stream: Stream, following: int, base: int, match: int) -> bytes | None:
        """Return the other encoding of an arithmetic instruction of two registers, None when it is not one.

        A rotation by 15 and an addition give 0F 01; hash functions are full of them. OP r/m, r says the same as
        OP r, r/m with the operands exchanged, and costs nothing.
        """
        instruction = stream.at(following)
        if following != base + match + 1 or instruction is None or instruction.length != 2 or instruction.map:
            return None
        opcode, modrm = instruction.opcode, instruction.modrm
        if opcode >= 0x40 or opcode & 7 > 3 or instruction.mod != 3 or match + 3 > PAGE:
            return None
        return bytes((opcode ^ 2, 0xC0 | (modrm & 7) << 3 | modrm >> 3 & 7))
