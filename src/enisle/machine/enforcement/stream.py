"""Code read as streams of instructions: which instruction a byte belongs to, when the code around leaves no doubt.

Decoding forward from many offsets falls into step within some five instructions where there is code; where the streams
do not agree, the bytes may be data. Any thread, one at a time.
"""

from enisle.machine.enforcement.strides import is_plausible, stride
from enisle.machine.software import decode as decoder
from enisle.machine.software.decode import decode_at

FAR, NEAR = 48, 20
"""Where decoding starts before a match: far enough to have fallen into step (it takes some five instructions)."""
WITNESSES = 4
NEIGHBOUR, SPARSE = 512, 5
"""How far a known instruction vouches for those after it, and how many others are asked then (every fifth)."""
FOLLOWING = 8
ENDS = frozenset((decoder.JUMP, decoder.JUMP_INDIRECT, decoder.RETURN))


class Stream:
    """Instructions of some bytes, decoded once each."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._decoded: dict[int, decoder.Instruction | None] = {}
        self._strides: dict[int, int] = {}

    def at(self, offset: int) -> "decoder.Instruction | None":
        try:
            return self._decoded[offset]
        except KeyError:
            decoded = self._decoded[offset] = decode_at(self.content, offset, 0)
            return decoded

    def locate(self, match: int, known: int | None) -> int | None:
        """Return the start of the instruction that covers `match` when the code before and after leaves no doubt.

        `known` is where an instruction before it starts for certain, or did once. Streams that differ only in the
        prefixes before the matched opcode agree.
        """
        own = self._arrive(known, match) if known is not None and 0 <= match - known <= NEIGHBOUR else None
        starts = range(max(0, match - FAR), max(0, match - NEAR), 1 if own is None else SPARSE)
        found = [start for start in (self._arrive(first, match) for first in starts) if start is not None]
        meanings = {self._meaning(start, match) for start in found}
        if own is not None:
            meanings.add(self._meaning(own, match))
        if len(meanings) != 1 or (own is None and len(found) < WITNESSES):
            return None
        chosen = found[0] if own is None else own
        return chosen if self._goes_on(chosen) else None

    def _meaning(self, start: int, match: int) -> int:
        """Return what an instruction does with the match: -1 has it as its opcode, else the instruction's start."""
        instruction = self.at(start)
        assert instruction
        return -1 if start + escape_of(instruction) == match else start

    def _arrive(self, offset: int, match: int) -> int | None:
        """Decode from `offset` to the instruction that covers `match`; None through code that makes no sense."""
        strides, content = self._strides, self.content
        while True:
            length = strides.get(offset)
            if length is None:
                length = strides[offset] = stride(content, offset)
            if not length:
                return None
            if offset + length > match:
                return offset
            offset += length

    def _goes_on(self, offset: int) -> bool:
        """Return whether sane code follows."""
        for _ in range(FOLLOWING):
            instruction = self.at(offset)
            if instruction is None:
                return len(self.content) - offset < decoder.LONGEST  # cut short by the end of the page
            if not is_plausible(instruction):
                return False
            if instruction.kind in ENDS:
                return True
            offset += instruction.length
        return True


def escape_of(instruction: "decoder.Instruction") -> int:
    """Return the offset of the 0F before the opcode, -1 when there is none."""
    if instruction.encoding != decoder.LEGACY or not instruction.map:
        return -1
    return instruction.opcode_offset - (1 if instruction.map == 1 else 2)
