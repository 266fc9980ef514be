"""Execution of one instruction in software: which there are, and `execute`.

Promises what the manual says of the instruction: results, flags, faults, RIP after it. A fault changes nothing. Works
on a `Context` alone; the modules with the handlers are imported when the first instruction comes.
"""

from functools import cache

from enisle.machine.software.context import Answers, Context, Fault
from enisle.machine.software.decode import Instruction
from enisle.machine.software.lanes import Handler
from enisle.machine.software.opcodes import LEGACY, VEX
from enisle.machine.software.operands import Step
from enisle.records import Record

DONE, UNSUPPORTED, FAULT = "done", "unsupported", "fault"
MAPS = {"0F": 1, "0F38": 2, "0F3A": 3}
MANDATORY = {"np": 0, "66": 1, "F3": 2, "F2": 3}
LENGTHS = {"VEX.128": 0, "VEX.256": 1}

Key = tuple[str, int, int, int]
"""Encoding, map, opcode, mandatory prefix."""


class Result(Record):
    """What became of an instruction; `fault` says which, of a fault."""

    outcome: str
    fault: Fault | None = None


class Choice(Record):
    """A handler and what else it needs of the encoding; None is whatever."""

    handler: Handler
    length: int | None
    group: int | None = None
    modrm: int | None = None
    memory: bool | None = None

    def fits(self, it: Instruction) -> bool:
        return (
            (self.length is None or self.length == it.l)
            and (self.group is None or self.group == it.group)
            and (self.modrm is None or self.modrm == it.modrm)
            and (self.memory is None or self.memory == it.is_memory)
        )


def all_handlers() -> dict[str, Handler]:
    """Return every instruction there is software for, by its encoding as the manual writes it."""
    from enisle.machine.software import crypto, scalar, state, system, vector_float, vector_fma
    from enisle.machine.software import vector_integer as integer
    from enisle.machine.software import vector_move as move
    from enisle.machine.software import vector_shuffle as shuffle

    modules = (scalar, system, state, crypto, integer, shuffle, move, vector_float, vector_fma)
    return {encoding: handler for module in modules for encoding, handler in module.HANDLERS.items()}


@cache
def table() -> dict[Key, tuple[Choice, ...]]:
    """Return the handlers by what the decoder finds."""
    found: dict[Key, tuple[Choice, ...]] = {}
    for encoding, handler in all_handlers().items():
        key, choice = parse(encoding, handler)
        found[key] = (*found.get(key, ()), choice)
    return found


def parse(encoding: str, handler: Handler) -> tuple[Key, Choice]:
    """Return where a handler belongs: `[VEX|VEX.128] PREFIX MAP OPCODE [/REG [mem|reg] | MODRM]`."""
    words = encoding.split()
    is_vex = words[0].startswith(VEX.upper())
    length = LENGTHS.get(words.pop(0)) if is_vex else None
    prefix, map_name, opcode, *rest = words
    group = int(rest[0][1:]) if rest and rest[0][0] == "/" else None
    modrm = int(rest[0], 16) if rest and rest[0][0] != "/" else None
    key = (VEX if is_vex else LEGACY, MAPS[map_name], int(opcode, 16), MANDATORY[prefix])
    memory = rest[1] == "mem" if len(rest) > 1 else None
    return key, Choice(handler, length, group, modrm, memory)


def find(instruction: Instruction) -> Handler | None:
    """Return the software of an instruction, None when there is none."""
    it = instruction
    for choice in table().get((it.encoding, it.map, it.opcode, it.pp), ()):
        if choice.fits(it):
            return choice.handler
    return None


def execute(instruction: Instruction, context: Context, answers: Answers) -> Result:
    """Execute an instruction: done, RIP is after it; or nothing changed, because of a fault or for want of software."""
    handler = find(instruction)
    if handler is None:
        return UNSUPPORTED_RESULT
    step = Step(instruction, context, answers)
    try:
        handler(step)
        step.commit()
    except Fault as fault:
        return Result(FAULT, fault)
    return DONE_RESULT


DONE_RESULT, UNSUPPORTED_RESULT = Result(DONE), Result(UNSUPPORTED)
