"""Every instruction in software against the processor of this host, with random operands."""

import os
import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from enisle.abi.x86 import RFLAGS, RIP, Rflags, Vector
from enisle.machine.software.decode import Instruction
from enisle.machine.software.execute import DONE, FAULT, all_handlers, execute
from enisle.machine.software.flags import ALL
from enisle.machine.software.operands import ORDER
from instruction_maker import ELSEWHERE, Maker, makers
from native_processor import CODE, MEMORY, SIZE, Case, NativeProcessor, State
from plain_processor import NoAnswers, PlainMemory, PlainProcessor

CASES = int(os.environ.get("ENISLE_SOAK_CASES", "100000")) if os.environ.get("ENISLE_SOAK") == "1" else 3_000
"""Random operands for each family."""
BATCH = 2_000
FAMILIES = (
    "abm", "adx", "aes", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "pclmulqdq", "popcnt", "sha_ni",
    "sse4_2",
)  # fmt: skip
CF, PF, AF, ZF, SF, OF = Rflags.CF, Rflags.PF, Rflags.AF, Rflags.ZF, Rflags.SF, Rflags.OF
UNDEFINED = {
    **dict.fromkeys(("F3 0F BC", "F3 0F BD"), OF | SF | AF | PF),
    **dict.fromkeys(("VEX np 0F38 F2", "VEX np 0F38 F5", *(f"VEX np 0F38 F3 /{n}" for n in (1, 2, 3))), AF | PF),
    "VEX np 0F38 F7": AF | SF | PF,
}
"""Flags that the manual leaves undefined."""
RSP = 4
SIGILL, SIGFPE = 4, 8


def cases(family: str, count: int, rng: random.Random) -> Iterator[tuple[Maker, Instruction, Case]]:
    for maker in islice(cycle(makers(family)), count):
        case, instruction = maker.make(rng)
        yield maker, instruction, case


def batches(
    items: Iterator[tuple[Maker, Instruction, Case]], size: int
) -> Iterator[list[tuple[Maker, Instruction, Case]]]:
    while batch := list(islice(items, size)):
        yield batch


def plain(state: State) -> PlainProcessor:
    gpr = [0] * 18
    for index, value in zip(ORDER, state.gpr, strict=True):
        gpr[index] = value
    gpr[RIP], gpr[RFLAGS] = CODE, state.flags
    memory = PlainMemory(MEMORY, state.memory.ljust(4096, b"\0"))
    return PlainProcessor(gpr, state.vectors, memory, state.mxcsr)


def difference(maker: Maker, it: Instruction, case: Case, signal: int, after: State) -> str:
    """Return how software and processor differ, or an empty string."""
    processor = plain(case[1])
    before = processor.state()
    result = execute(it, processor, NoAnswers())
    if signal:
        expected = {SIGILL: Vector.UD, SIGFPE: Vector.XM}.get(signal, Vector.GP)
        if result.outcome != FAULT or result.fault is None or result.fault.vector != expected:
            return f"{result} where the processor raised {expected}"
        processor.vectors.set_control(case[1].mxcsr.to_bytes(4, "little"))  # #XM leaves its flags there
        return "" if processor.state() == before else "the fault changed the state"
    if result.fault and result.fault.vector == Vector.GP and "sha_ni" in it.features and it.is_memory:
        return ""  # not aligned: #GP by the manual (SDM 2A 2.4.4), which AMD's processors do not raise here
    if result.outcome != DONE:
        return f"{result} where the processor was content"
    gpr = processor.gpr
    defined = ALL & ~UNDEFINED.get(maker.encoding, 0)
    checks = {
        "RIP": (gpr[RIP], it.next_address),
        "registers": ([gpr[n] for n in ORDER if n != ORDER[RSP]], [v for n, v in enumerate(after.gpr) if n != RSP]),
        "flags": (gpr[RFLAGS] & defined, after.flags & defined),
        "vectors": (processor.ymm(), after.vectors),
        "MXCSR": (int.from_bytes(processor.vectors.control(), "little"), after.mxcsr),
        "memory": (processor.state()[-1][:SIZE], after.memory),
    }
    return "; ".join(f"{name}: {got} not {want}" for name, (got, want) in checks.items() if got != want)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.timeout(3600 if CASES > 3_000 else 120)
def test_random_operands_give_what_the_processor_gives(family: str, oracle: NativeProcessor) -> None:
    if f" {family} " not in Path("/proc/cpuinfo").read_text().replace("\n", " "):
        pytest.skip(f"the processor of this host has no {family}")
    rng = random.Random(f"{family} {CASES}")
    compared = 0
    for batch in batches(cases(family, CASES, rng), BATCH):
        answers = oracle.execute([case for _, _, case in batch])
        for (maker, it, case), (signal, after) in zip(batch, answers, strict=True):
            wrong = difference(maker, it, case, signal, after)
            assert not wrong, f"{maker.encoding} {it} {case}: {wrong}"
            compared += not signal
    assert compared > CASES * 0.5, "too many cases faulted"


def test_every_instruction_in_software_belongs_to_a_family() -> None:
    tested = {maker.encoding for family in FAMILIES for maker in makers(family)}
    assert tested == set(all_handlers()) - ELSEWHERE
