"""Branches, calls, returns and system calls of a stepped program, done on its registers in software (SDM 2).

They are what cannot be executed elsewhere: they tell where the program is. Memory is reached through the context, whose
Fault is #PF; nothing is changed before that is over. Any thread.
"""

from enisle.abi.x86 import R8, R11, RAX, RBP, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP, Rflags, Vector
from enisle.machine.enforcement.perform import ProcessorContext
from enisle.machine.processor import ProcessorException, Registers
from enisle.machine.software import decode as decoder
from enisle.machine.software.context import Fault

U64, U32 = (1 << 64) - 1, (1 << 32) - 1
ORDER = (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, *range(R8, R8 + 8))
"""General registers by their number in an instruction."""
CF, PF, ZF, SF, OF = Rflags.CF, Rflags.PF, Rflags.ZF, Rflags.SF, Rflags.OF
INT3 = 0xCC
SYSCALL_OPCODE = 0x05
JRCXZ, LOOPNE, LOOPE = 0xE3, 0xE0, 0xE1

IN_SOFTWARE = frozenset(
    (
        decoder.JUMP,
        decoder.CALL,
        decoder.CONDITIONAL,
        decoder.LOOP,
        decoder.JUMP_INDIRECT,
        decoder.CALL_INDIRECT,
        decoder.RETURN,
        decoder.TRANSACTION,
    )
)


def is_control(instruction: decoder.Instruction) -> bool:
    """Return whether the instruction must be done here."""
    if instruction.kind in IN_SOFTWARE:
        return True
    if instruction.kind == decoder.INTERRUPT:
        return instruction.opcode == INT3
    if instruction.kind == decoder.SYSTEM_CALL:
        return instruction.opcode == SYSCALL_OPCODE
    return instruction.kind == decoder.FAR and instruction.opcode == 0xFF


def is_system_call(instruction: decoder.Instruction) -> bool:
    return instruction.kind == decoder.SYSTEM_CALL and instruction.opcode == SYSCALL_OPCODE


def transfer(instruction: decoder.Instruction, context: ProcessorContext) -> ProcessorException | Fault | None:
    """Do one control instruction; return the exception it raises."""
    try:
        return _transfer(instruction, context)
    except Fault as fault:
        return fault


def _transfer(it: decoder.Instruction, context: ProcessorContext) -> ProcessorException | None:
    gpr, following = context.gpr, it.next_address
    flags = gpr[RFLAGS] & ~Rflags.RF  # which the fault that brought us here has set, and any instruction clears
    match it.kind:
        case decoder.JUMP:
            gpr[RIP] = it.target or 0
        case decoder.CONDITIONAL | decoder.LOOP:
            gpr[RIP] = (it.target or 0) if _is_taken(it, gpr) else following
        case decoder.CALL:
            _push(context, following)
            gpr[RIP] = it.target or 0
        case decoder.JUMP_INDIRECT:
            gpr[RIP] = _operand(it, context)
        case decoder.CALL_INDIRECT:
            target = _operand(it, context)
            _push(context, following)
            gpr[RIP] = target
        case decoder.RETURN:
            target = int.from_bytes(context.read(gpr[RSP], 8), "little")
            gpr[RSP] = gpr[RSP] + 8 + (it.immediate & 0xFFFF) & U64
            gpr[RIP] = target
        case decoder.TRANSACTION:  # always aborts, for no reason that a retry would cure (SDM 1 16.3.5)
            gpr[RAX], gpr[RIP] = 0, it.target or 0
        case decoder.SYSTEM_CALL:
            gpr[RCX], gpr[R11], gpr[RIP] = following, flags, following
        case decoder.INTERRUPT:
            gpr[RIP] = following
            return ProcessorException(Vector.BP, 0)
        case _:  # far calls and jumps through memory: this machine has no other code segment to go to
            return ProcessorException(Vector.GP, 0)
    gpr[RFLAGS] = flags
    return None  # a target that is no address faults where it is gone to: `Processor.run`


def _push(context: ProcessorContext, value: int) -> None:
    stack = context.gpr[RSP] - 8 & U64
    context.store([(stack, value.to_bytes(8, "little"))])
    context.gpr[RSP] = stack


def _operand(it: decoder.Instruction, context: ProcessorContext) -> int:
    """Return the 64-bit operand of an indirect branch."""
    if not it.is_memory:
        return context.gpr[ORDER[it.rm]]
    address = effective(it, context.gpr) + segment_base(it, context) & U64
    return int.from_bytes(context.read(address, 8), "little")


def effective(it: decoder.Instruction, gpr: Registers) -> int:
    """Return the offset that ModRM, SIB and displacement name, without the segment's base."""
    address = it.displacement
    if it.rip_relative:
        address += it.next_address
    if it.base is not None:
        address += gpr[ORDER[it.base]]
    if it.index is not None:
        address += gpr[ORDER[it.index]] * it.scale
    return address & (U64 if it.address_size == decoder.QWORD else U32)


def segment_base(it: decoder.Instruction, context: ProcessorContext) -> int:
    if it.segment == decoder.FS:
        return context.fs_base
    return context.gs_base if it.segment == decoder.GS else 0


def _is_taken(it: decoder.Instruction, gpr: Registers) -> bool:
    flags = gpr[RFLAGS]
    if it.map == 0 and it.opcode == JRCXZ:
        return gpr[RCX] & (U64 if it.address_size == decoder.QWORD else U32) == 0
    if it.kind == decoder.LOOP:
        mask = U64 if it.address_size == decoder.QWORD else U32
        gpr[RCX] = gpr[RCX] - 1 & mask
        more = gpr[RCX] != 0
        if it.opcode == LOOPNE:
            return more and not flags & ZF
        return more and (it.opcode != LOOPE or bool(flags & ZF))
    return condition(it.opcode & 15, flags)


def condition(code: int, flags: int) -> bool:
    """Return whether a condition code holds (SDM 1 appendix B)."""
    match code >> 1:
        case 0:
            holds = bool(flags & OF)
        case 1:
            holds = bool(flags & CF)
        case 2:
            holds = bool(flags & ZF)
        case 3:
            holds = bool(flags & (CF | ZF))
        case 4:
            holds = bool(flags & SF)
        case 5:
            holds = bool(flags & PF)
        case 6:
            holds = bool(flags & SF) != bool(flags & OF)
        case _:
            holds = bool(flags & ZF) or bool(flags & SF) != bool(flags & OF)
    return holds != bool(code & 1)
