"""Execution in software where a processor stopped: the instruction there, and those after it that it lacks as well.

Coming out of a processor and going back costs far more than an instruction in software, and instructions that a
processor lacks come in groups. Runs on the thread of the processor, which is stopped.
"""

from collections.abc import Callable
from functools import lru_cache

from enisle.abi.x86 import RIP
from enisle.machine.software import execute as software
from enisle.machine.software.context import Answers, Context, Fault
from enisle.machine.software.decode import LONGEST, Instruction, decode_at

MOST = 256
"""Instructions after which the processor is asked again whether somebody wants it."""
FETCHED = 4 * LONGEST

Fetch = Callable[[int, int], bytes]
"""Address and size to executable bytes, at least one, fewer where execution must end. Raises Fault."""


@lru_cache(4096)
def known(code: bytes, address: int) -> Instruction | None:
    """Return what `decode_at` finds; loops come by again."""
    return decode_at(code, 0, address)


def try_execute(
    context: Context, answers: Answers, fetch: Fetch, is_wanted: Callable[[Instruction], bool]
) -> "bool | Fault":
    """Execute at RIP as long as instructions are wanted: those which software has instead of the processor.

    Return whether there was one; the Fault of one that faults, with RIP there. An instruction that no software is there
    for counts as none.
    """
    done = 0
    start, code = 0, b""
    gpr = context.gpr
    while done < MOST:
        offset = gpr[RIP] - start
        if not 0 <= offset <= len(code) - LONGEST:
            try:
                start, offset = gpr[RIP], 0
                code = fetch(start, FETCHED)
            except Fault:
                break  # the processor finds out by itself
        instruction = known(code[offset : offset + LONGEST], gpr[RIP])
        if instruction is None or not is_wanted(instruction):
            break
        result = software.execute(instruction, context, answers)
        if result.fault:
            return result.fault
        if result.outcome != software.DONE:
            break
        done += 1
    return done > 0
