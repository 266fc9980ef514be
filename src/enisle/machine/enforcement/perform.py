"""What becomes of one trapped instruction: the program exception of the value, or its execution in software.

The same judgement serves every way an instruction is caught (UD2 in its place, a step, a #GP of the processor). Nothing
of the guest is changed before it is known that the instruction is permitted and does not fault. Any thread.
"""

import os
from collections.abc import Callable, Sequence
from typing import cast

from enisle.abi import tsc
from enisle.abi.x86 import RAX, RCX, RDX, RIP, Vector
from enisle.machine.blocking.instructions import Action, Instruction
from enisle.machine.blocking.query import Queries
from enisle.machine.blocking.value import BlockingValue
from enisle.machine.enforcement.msr import answer
from enisle.machine.enforcement.opcodes import kind_of, levels_of
from enisle.machine.processor import Processor, ProcessorException, Registers
from enisle.machine.software import decode as decoder
from enisle.machine.software import execute as software
from enisle.machine.software.context import Context, Fault, VectorState
from enisle.machine.software.opcodes import NO_PREFIX

U32, U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
PREFIX_BLIND = (Instruction.CPUID, Instruction.RDTSC, Instruction.RDTSCP)
"""Instructions whose prefixes mean nothing (SDM 2A 2.1.1)."""
XSTATE_BV = 512


class Judgement:
    """What a value says of one instruction at one moment: the class that decides, and the action."""

    __slots__ = ("action", "kind")

    def __init__(self, kind: Instruction, action: Action) -> None:
        self.kind, self.action = kind, action


def judge(value: BlockingValue, instruction: decoder.Instruction, gpr: Registers) -> Judgement | None:
    """Return the strictest of what the value says; None when it says nothing of such an instruction."""
    found: Judgement | None = None
    kind = kind_of(instruction)
    if kind is not None:
        code, subcode = _codes(kind, gpr)
        found = Judgement(kind, value.judge(kind, code, subcode))
    for level, index in levels_of(instruction):
        action = value.judge(level, index)
        if action != Action.ALLOW and (found is None or action > found.action):
            found = Judgement(level, action)
    return found


def _codes(kind: Instruction, gpr: Registers) -> tuple[int, int]:
    """Return function code and second level as the registers hold them; the value cuts them to their width."""
    if kind is Instruction.CPUID:
        return gpr[RAX], gpr[RCX]
    if kind is Instruction.VMCALL:
        return gpr[RAX], 0
    if kind in (Instruction.RDTSC, Instruction.RDTSCP):
        return 0, 0
    return gpr[RCX], 0


class ProcessorContext:
    """The state of a stopped processor, for execution in software. `read` and `store` raise Fault."""

    def __init__(
        self,
        processor: Processor,
        read: Callable[[int, int], bytes],
        store: Callable[[Sequence[tuple[int, bytes]]], None],
        zmm_high: int | None = None,
    ) -> None:
        """`zmm_high`: where the processor's XSAVE area has bits 256-511 of the vector registers."""
        self.processor, self.read, self.store = processor, read, store
        self._zmm_high = zmm_high
        self.gpr = processor.gpr
        self._vectors: VectorState | None = None

    @property
    def fs_base(self) -> int:
        return self.processor.fs_base

    @fs_base.setter
    def fs_base(self, value: int) -> None:
        self.processor.fs_base = value

    @property
    def gs_base(self) -> int:
        return self.processor.gs_base

    @gs_base.setter
    def gs_base(self, value: int) -> None:
        self.processor.gs_base = value

    @property
    def vectors(self) -> VectorState:
        if self._vectors is None:
            self._vectors = VectorState(self.processor.xsave(), self._zmm_high)
        return self._vectors

    def finish(self) -> None:
        """Load vector registers that were changed."""
        if self._vectors is not None and self._vectors.changed:
            self.processor.xrstor(bytes(self._vectors.area))


class ProcessorAnswers:
    """What a processor under a value is told when it asks (`software.context.Answers`)."""

    def __init__(
        self, queries: Queries, processor: Processor, counter_offset: int = 0, number: Callable[[], int] = lambda: 0
    ) -> None:
        """`number`: returns what the program is told of where it runs (getcpu)."""
        self._queries, self._processor, self._offset, self._number = queries, processor, counter_offset, number

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return self._queries.cpuid(leaf, subleaf)

    def xgetbv(self, register: int) -> int | None:
        in_use = int.from_bytes(self._processor.xsave()[XSTATE_BV : XSTATE_BV + 8], "little") if register == 1 else 0
        return self._queries.xgetbv(register, in_use)

    def counter(self) -> int:
        return tsc.reader()() + self._offset & U64

    def processor_id(self) -> int:
        return self._number()  # IA32_TSC_AUX as Linux sets it: node 0 in the upper bits

    def random(self, size: int) -> bytes:
        return os.urandom(size)


def perform(
    value: BlockingValue,
    answers: ProcessorAnswers,
    instruction: decoder.Instruction,
    judgement: Judgement,
    context: ProcessorContext,
) -> ProcessorException | Fault | None:
    """Do what the judgement says; return the exception to raise, with nothing changed, or None and RIP is after it."""
    if judgement.action == Action.BLOCK:
        outcome = value.outcome(judgement.kind)
        return ProcessorException(outcome.vector, outcome.error_code)
    if judgement.kind in (Instruction.RDMSR, Instruction.WRMSR):
        return access_register(value, judgement, context.gpr, instruction.length)
    if judgement.kind in (Instruction.RDPMC, Instruction.XSETBV):
        return ProcessorException(Vector.GP, 0)  # ring 3, whatever the value says
    if judgement.kind is Instruction.VMCALL:
        return ProcessorException(Vector.UD, 0)  # nobody is there to be called
    if judgement.kind in PREFIX_BLIND:
        instruction.pp = NO_PREFIX
    result = software.execute(instruction, cast("Context", context), answers)  # its bases are properties
    if result.outcome == software.UNSUPPORTED:
        return ProcessorException(Vector.UD, 0)
    context.finish()
    return result.fault


def access_register(
    value: BlockingValue, judgement: Judgement, gpr: Registers, length: int
) -> ProcessorException | None:
    """Answer RDMSR or WRMSR in ring 3: with the value's own content where it is emulated, else #GP as any processor.

    A write to an emulated register is taken and forgotten.
    """
    write = judgement.kind is Instruction.WRMSR
    content = answer(value, gpr[RCX] & U32, write)
    if content is None:
        return ProcessorException(Vector.GP, 0)
    if not write:
        gpr[RAX], gpr[RDX] = content & U32, content >> 32
    gpr[RIP] += length
    return None
