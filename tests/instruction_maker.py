"""Random instances of every instruction in software: the instruction, and a state whose memory operand is in bounds."""

import random
from functools import cache

from enisle.machine.software import scalar, state, system
from enisle.machine.software.decode import Instruction, decode
from enisle.machine.software.execute import LENGTHS, MANDATORY, MAPS, all_handlers
from enisle.machine.software.flags import ALL
from native_processor import CODE, MEMORY, SIZE, Case, State

ELSEWHERE = frozenset((*system.HANDLERS, *state.HANDLERS))
"""Encodings whose results are not the processor's own."""
RSP = 4
PREFIX_BYTES = {"np": b"", "66": b"\x66", "F3": b"\xf3", "F2": b"\xf2"}
ESCAPES = {"0F": b"\x0f", "0F38": b"\x0f\x38", "0F3A": b"\x0f\x3a"}
GENERAL = frozenset((*scalar.HANDLERS, "VEX np 0F 50", "VEX 66 0F 50")) | {
    f"VEX {prefix} 0F {opcode}" for prefix in ("F3", "F2") for opcode in ("2A", "2C", "2D")
} | {
    f"VEX 66 {code}" for code in ("0F 6E", "0F 7E", "0F C4", "0F C5", "0F D7", "0F F7", "0F3A 14", "0F3A 15", "0F3A 16",
                                  "0F3A 17", "0F3A 20", "0F3A 22")
}  # fmt: skip
"""Encodings with general registers: RSP stays out of them."""
EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def number(rng: random.Random) -> int:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice((0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 63, (1 << 64) - 1))
    return rng.getrandbits(64) if kind < 3 else rng.getrandbits(64) & rng.getrandbits(64) & 0xFFFF


SINGLES = (0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F800001, 0x40490FDB, 0x4B000001, 0x4F000000, 0x7F7FFFFF,
           0x7F800000, 0x7F800001, 0x7FC12345, 0x33800000, 0x00FFFFFF, 0x5F000000)  # fmt: skip
DOUBLES = (0, 1, (1 << 52) - 1, 1 << 52, 0x3FF0 << 48, 0x3FF0 << 48 | 1, 0x400921FB54442D18, 0x41E0 << 48,
           0x43E0 << 48, (0x7FF << 52) - 1, 0x7FF << 52, 0x7FF << 52 | 1, 0x7FF8 << 48 | 77, 0x3810 << 48,
           0x36A0 << 48, 0x47EF << 48)  # fmt: skip


def floating(rng: random.Random) -> bytes:
    """Return numbers of one format: notable ones, near ones, any."""
    size, notable = rng.choice(((4, SINGLES), (8, DOUBLES)))
    base = rng.getrandbits(size * 8)

    def one() -> int:
        kind = rng.randrange(4)
        if kind == 0:
            return base ^ rng.getrandbits(12) << rng.randrange(size * 8 - 12)
        return rng.getrandbits(size * 8) if kind == 1 else rng.choice(notable) | rng.getrandbits(1) << size * 8 - 1

    return b"".join(one().to_bytes(size, "little") for _ in range(32 // size))


def vector(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind > 3:
        return floating(rng)
    if kind == 0:
        return bytes(rng.choices(EDGES, k=32))
    if kind == 1:
        return b"".join(rng.randrange(80).to_bytes(rng.choice((4, 8)), "little") for _ in range(8))[:32].ljust(
            32, b"\0"
        )
    return rng.randbytes(32)


def _control(rng: random.Random) -> int:
    """Return an MXCSR, mostly with all exceptions masked."""
    return rng.getrandbits(16) | (0x1F80 if rng.random() < 0.9 else 0)


class Maker:
    """Makes random instances of one encoding: the instruction and a state whose memory operand is in bounds."""

    def __init__(self, encoding: str) -> None:
        words = encoding.split()
        self.encoding = encoding
        self.is_vex = words[0].startswith("VEX")
        self.lengths = (LENGTHS[words[0]],) if words[0] in LENGTHS else (0, 1)
        prefix, self.map, opcode, *rest = words[1:] if self.is_vex else words
        self.prefix, self.opcode = prefix, int(opcode, 16)
        self.group = int(rest[0][1:]) if rest else None
        self.numbers = [n for n in range(16) if n != RSP or encoding not in GENERAL]
        self.gathers = self.is_vex and self.map == "0F38" and 0x90 <= self.opcode <= 0x93

    def make(self, rng: random.Random) -> tuple[Case, Instruction]:
        while True:
            gpr = [number(rng) for _ in range(16)]
            vectors = bytearray(b"".join(vector(rng) for _ in range(16)))
            code = self._code(rng, gpr, vectors)
            instruction = decode(code, CODE)
            if instruction is not None:
                flags = 0x202 | rng.getrandbits(12) & ALL
                code = self._aim(rng, instruction, gpr)
                state = State(tuple(gpr), flags, bytes(vectors), self._memory(rng), _control(rng))
                return (code, state), decode(code, CODE)

    def _memory(self, rng: random.Random) -> bytes:
        memory = rng.randbytes(SIZE) if rng.random() < 0.5 else floating(rng) * (SIZE // 32)
        if self.encoding == "VEX np 0F AE /2" and rng.random() < 0.9:  # the upper half of MXCSR is reserved
            return (memory[:2] + b"\0\0") * (SIZE // 4)
        return memory

    def _code(self, rng: random.Random, gpr: list[int], vectors: bytearray) -> bytes:
        reg = rng.choice(self.numbers) if self.group is None else self.group
        memory, with_sib = rng.random() < 0.5 or self.gathers, rng.random() < 0.4 or self.gathers
        rm = rng.choice(self.numbers)
        base, index = rng.choice((1, 3, 6, 7, 9, 11)), rng.choice((0, 2, 5, 8, 10))
        if not memory:
            tail = bytes([0xC0 | (reg & 7) << 3 | rm & 7])
        elif with_sib:
            index = rng.randrange(16) if self.gathers else index
            tail = bytes(
                [0x44 | (reg & 7) << 3, rng.randrange(4) << 6 | (index & 7) << 3 | base & 7, rng.getrandbits(7)]
            )
            rm = base | index << 4
        elif rng.random() < 0.2:
            tail, rm = bytes([5 | (reg & 7) << 3]) + bytes(4), 0  # RIP-relative
        else:
            tail, rm = bytes([0x40 | (reg & 7) << 3 | base & 7, rng.getrandbits(7)]), base
        if self.gathers:
            size = 8 if self.opcode & 1 else 4
            small = [rng.randrange(-6, 7).to_bytes(size, "little", signed=True) for _ in range(32 // size)]
            vectors[32 * index : 32 * index + 32] = b"".join(small)
        high_index = rm >> 7 & 1 if memory and with_sib else 0
        bits = (reg >> 3 << 2, high_index << 1, rm >> 3 & 1)
        return self._head(rng, sum(bits)) + bytes([self.opcode]) + tail + rng.randbytes(1)

    def _head(self, rng: random.Random, rxb: int) -> bytes:
        w = rng.getrandbits(1)
        if not self.is_vex:
            rex = 0x40 | w << 3 | rxb
            operand_size = (
                b"\x66" if self.encoding in scalar.HANDLERS and self.prefix != "66" and not rng.randrange(4) else b""
            )
            if operand_size and self.encoding in ("np 0F38 F0", "np 0F38 F1"):
                operand_size = b""
            return (
                operand_size
                + PREFIX_BYTES[self.prefix]
                + (bytes([rex]) if rex != 0x40 or w else b"")
                + ESCAPES[self.map]
            )
        vvvv = rng.choice(self.numbers) if rng.random() < 0.8 else 0
        last = w << 7 | (~vvvv & 15) << 3 | rng.choice(self.lengths) << 2 | MANDATORY[self.prefix]
        return bytes([0xC4, (~rxb & 7) << 5 | MAPS[self.map], last])

    def _aim(self, rng: random.Random, it: Instruction, gpr: list[int]) -> bytes:
        """Let the memory operand lie in the oracle's memory."""
        code = it.bytes
        if self.opcode == 0xF7 and self.map == "0F":  # VMASKMOVDQU
            gpr[7] = MEMORY + 64 + rng.randrange(64)
            return code
        if not it.is_memory:
            return code
        address = MEMORY + 96 + (32 * rng.randrange(3) if rng.random() < 0.6 else rng.randrange(96))
        if self.encoding == "VEX np 0F AE /2":
            address &= ~3
        if it.rip_relative:
            at = it.displacement_offset
            return code[:at] + (address - it.next_address).to_bytes(4, "little", signed=True) + code[at + 4 :]
        offset = it.displacement
        if it.index is not None and not self.gathers:
            offset += gpr[it.index] * it.scale
        gpr[it.base] = address - offset & 0xFFFF_FFFF_FFFF_FFFF
        return code


@cache
def known() -> list[tuple[Maker, frozenset[str]]]:
    """Return a maker of every encoding, and the features that its instances need."""
    rng = random.Random(0)
    every = [Maker(encoding) for encoding in all_handlers() if encoding not in ELSEWHERE]
    return [(maker, frozenset().union(*(maker.make(rng)[1].features for _ in range(12)))) for maker in every]


def makers(family: str) -> list[Maker]:
    return [maker for maker, features in known() if family in features]
