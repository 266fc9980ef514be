"""Operands of one instruction: effective addresses, registers by width, and effects that happen all or not at all.

A handler reads operands through a `Step` and says what is to change; `commit` stores to memory first, which may fault,
and changes registers afterwards. So a fault leaves the state as it was.
"""

from collections.abc import Callable

from enisle.abi.x86 import R8, RAX, RBP, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP, Rflags, Vector
from enisle.machine.software import flags
from enisle.machine.software.context import LANE, Answers, Context, Fault, general_protection
from enisle.machine.software.decode import DWORD, FS, GS, LEGACY, QWORD, WORD, Instruction

ORDER = (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, *range(R8, R8 + 8))
"""General registers by their number in an instruction."""
STACK_BASES = (4, 5)
"""RSP and RBP as a base mean the stack segment."""
U64 = 0xFFFF_FFFF_FFFF_FFFF
RF = Rflags.RF
MASKS = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: U64}
CANONICAL_SHIFT = 47


def is_canonical(address: int) -> bool:
    return address >> CANONICAL_SHIFT in (0, 0x1FFFF)


class Step:
    """One instruction on its way."""

    __slots__ = ("_flags", "_registers", "_stores", "_then", "_vectors", "answers", "context", "it")

    def __init__(self, instruction: Instruction, context: Context, answers: Answers) -> None:
        self.it, self.context, self.answers = instruction, context, answers
        self._registers: list[tuple[int, int]] = []
        self._vectors: list[tuple[int, bytes, bool]] = []
        self._stores: list[tuple[int, bytes]] = []
        self._then: list[Callable[[], None]] = []
        self._flags: int | None = None

    # ---- general registers ---------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of a general operand (SDM 1 table 3-4)."""
        if self.it.w:
            return QWORD
        return WORD if self.it.operand_size_prefix and self.it.encoding == LEGACY else DWORD

    def gpr(self, number: int, size: int) -> int:
        return self.context.gpr[ORDER[number]] & MASKS[size]

    def set_gpr(self, number: int, size: int, value: int) -> None:
        """Write a register: 4 bytes clear the upper half, 2 bytes leave the rest (SDM 1 3.4.1.1)."""
        index = ORDER[number]
        if size < DWORD:
            value = (self.context.gpr[index] & ~MASKS[size]) | (value & MASKS[size])
        self._registers.append((index, value & (MASKS[DWORD] if size == DWORD else U64)))

    def rm(self, size: int) -> int:
        """Return the ModRM operand of `size` bytes as a number."""
        it = self.it
        if it.is_memory:
            return int.from_bytes(self.load(size), "little")
        if size == 1 and it.encoding == LEGACY and not it.rex and 4 <= it.rm < 8:  # AH, CH, DH, BH
            return self.context.gpr[ORDER[it.rm - 4]] >> 8 & 0xFF
        return self.gpr(it.rm, size)

    def set_flags(self, defined: int, value: int) -> None:
        self._flags = flags.updated(self.context.gpr[RFLAGS], defined, value)

    def then(self, effect: Callable[[], None]) -> None:
        """Do something at the end that cannot fail."""
        self._then.append(effect)

    # ---- memory --------------------------------------------------------------------------------------------------

    def address(self, index: int | None = None) -> int:
        """Return the linear address of the memory operand; `index` stands in for the index register of a VSIB."""
        it, gpr = self.it, self.context.gpr
        offset = it.displacement
        if it.rip_relative:
            offset += it.next_address
        elif it.base is not None:
            offset += gpr[ORDER[it.base]]
        if index is not None:
            offset += index * it.scale
        elif it.index is not None:
            offset += gpr[ORDER[it.index]] * it.scale
        offset &= MASKS[it.address_size]
        if it.segment == FS:
            offset += self.context.fs_base
        elif it.segment == GS:
            offset += self.context.gs_base
        return offset & U64

    def check(self, address: int, size: int, alignment: int = 1) -> None:
        """Raise #SS or #GP for an address that is not canonical, #GP for one not aligned (SDM 3A 6.15)."""
        it = self.it
        if not is_canonical(address) or not is_canonical(address + size - 1 & U64):
            raise Fault(Vector.SS if it.base in STACK_BASES and it.segment not in (FS, GS) else Vector.GP, 0)
        if address % alignment:
            raise general_protection()

    def load(self, size: int, alignment: int = 1) -> bytes:
        address = self.address()
        self.check(address, size, alignment)
        return self.context.read(address, size)

    def load_at(self, address: int, size: int) -> bytes:
        self.check(address, size)
        return self.context.read(address, size)

    def store(self, content: bytes, alignment: int = 1) -> None:
        address = self.address()
        self.check(address, len(content), alignment)
        self._stores.append((address, content))

    def store_at(self, address: int, content: bytes) -> None:
        self.check(address, len(content))
        self._stores.append((address, content))

    # ---- vectors -------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Bytes of a vector operand."""
        return LANE << self.it.l

    def vector(self, number: int, width: int) -> bytes:
        vectors = self.context.vectors
        low = vectors.low(number)
        return low[:width] if width <= LANE else low + vectors.high(number)

    def source(self, width: int, alignment: int = 1) -> bytes:
        """Return the ModRM operand as a vector; legacy SSE operands of 16 bytes in memory must be aligned."""
        if not self.it.is_memory:
            return self.vector(self.it.rm, width)
        if self.it.encoding == LEGACY and width == LANE:
            alignment = LANE
        return self.load(width, alignment)

    def first(self) -> bytes:
        """Return the first source: vvvv, or the destination in a legacy instruction."""
        return self.vector(self.it.reg if self.it.encoding == LEGACY else self.it.vvvv, self.width)

    def set_vector(self, number: int, value: bytes) -> None:
        """Write a vector register as the instruction's encoding has it: VEX clears what is above."""
        self._vectors.append((number, value.ljust(LANE, b"\0"), self.it.encoding == LEGACY))

    def set_target(self, value: bytes) -> None:
        """Write ModRM.rm, register or memory."""
        if self.it.is_memory:
            self.store(value)
        else:
            self.set_vector(self.it.rm, value)

    # ---- the end -------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make the effects. Raises Fault, and then there are none."""
        context, gpr = self.context, self.context.gpr
        if self._stores:
            context.store(self._stores)
        for index, value in self._registers:
            gpr[index] = value
        for number, value, keep_upper in self._vectors:
            if keep_upper:
                context.vectors.set_low(number, value)
            else:
                context.vectors.set(number, value)
        gpr[RFLAGS] = (gpr[RFLAGS] if self._flags is None else self._flags) & ~RF  # SDM 3B 18.3.1.1
        for effect in self._then:
            effect()
        gpr[RIP] = self.it.next_address
