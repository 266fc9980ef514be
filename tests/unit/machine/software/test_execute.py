"""What execution in software promises beside results: faults change nothing, questions are answered, state is saved."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.abi.x86 import R8, RAX, RBP, RBX, RCX, RDX, RFLAGS, RIP, RSI, Rflags, Vector
from enisle.machine.software.context import AREA_SIZE, Fault
from enisle.machine.software.decode import Instruction, decode
from enisle.machine.software.execute import DONE, DONE_RESULT, FAULT, UNSUPPORTED, Result, all_handlers, execute, find
from enisle.machine.software.operands import ORDER
from enisle.machine.software.run import MOST, try_execute
from instruction_maker import known
from native_processor import CODE, MEMORY
from plain_processor import NoAnswers, PlainMemory, PlainProcessor

U64 = (1 << 64) - 1
REGISTERS = {"RAX": RAX, "RBP": RBP, "RCX": RCX, "RDX": RDX, "RFLAGS": RFLAGS, "RIP": RIP, "RSI": RSI}


class Answers(NoAnswers):
    """A processor that says something recognizable."""

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return leaf, subleaf, 0x89AB_CDEF, 0xFFFF_FFFF

    def xgetbv(self, register: int) -> int | None:
        return {0: 7, 1: 0x1_0000_0002}.get(register)

    def counter(self) -> int:
        return 0x1234_5678_9ABC_DEF0

    def processor_id(self) -> int:
        return 5

    def random(self, size: int) -> bytes:
        return b"\xa5" * size


def at(code: str, address: int = 0) -> Instruction:
    instruction = decode(bytes.fromhex(code), address)
    assert instruction is not None
    return instruction


def processor(memory: PlainMemory | None = None, **registers: int) -> PlainProcessor:
    """Return a processor with every register full; `registers` by the names of `abi.x86`."""
    made = PlainProcessor([U64] * 18, bytes(range(256)) * 2, memory or PlainMemory(MEMORY, bytes(4096)))
    made.gpr[RFLAGS] = 0x202
    for name, value in registers.items():
        made.gpr[REGISTERS[name]] = value
    return made


def do(code: str, on: PlainProcessor) -> Result:
    return execute(at(code), on, Answers())


# ---- faults ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 32) - 1))
@settings(deadline=None)
def test_a_memory_fault_leaves_the_state_as_it_was(seed: int) -> None:
    rng = random.Random(seed)
    maker = rng.choice([maker for maker, _ in known()])
    (_, state), it = maker.make(rng)
    for memory in (PlainMemory(0x1000, bytes(64)), PlainMemory(MEMORY, state.memory.ljust(4096, b"\0"), readonly=True)):
        gpr = [0] * 18
        for index, value in zip(ORDER, state.gpr, strict=True):
            gpr[index] = value
        gpr[RIP], gpr[RFLAGS] = CODE, state.flags
        context = PlainProcessor(gpr, state.vectors, memory)
        before = context.state()
        result = execute(it, context, NoAnswers())
        if result.outcome == FAULT:
            assert context.state() == before
        else:
            assert result.outcome == DONE
            assert context.gpr[RIP] == it.next_address
            assert context.state()[-1] == before[-1], "it wrote to memory that is read-only, or not there"


def test_an_access_across_the_end_of_memory_faults_at_the_first_byte_that_is_missing() -> None:
    memory = PlainMemory(MEMORY, bytes(64))
    for code, write in (("c5fe6f06", False), ("c5fe7f06", True)):  # vmovdqu
        context = processor(memory, RSI=MEMORY + 48)
        before = context.state()
        fault = do(code, context).fault
        assert fault is not None
        assert (fault.vector, fault.address, fault.write) == (Vector.PF, MEMORY + 79, write)
        assert context.state() == before


def test_all_stores_of_a_masked_store_happen_or_none() -> None:
    memory = PlainMemory(MEMORY, bytes(16))
    context = processor(memory, RSI=MEMORY)
    context.vectors.set(1, b"\xff" * 32)
    before = context.state()
    assert do("c4e2758e16", context).fault is not None  # vpmaskmovd [rsi], ymm1, ymm2
    assert context.state() == before
    context.vectors.set(1, b"\xff" * 16 + bytes(16))
    assert do("c4e2758e16", context) == DONE_RESULT
    assert bytes(memory.content) == context.vectors.low(2)


@pytest.mark.parametrize(
    ("code", "registers", "vector"),
    [
        ("c5f96f06", {"RSI": MEMORY + 8}, Vector.GP),  # vmovdqa: not aligned
        ("c5fd7f06", {"RSI": MEMORY + 16}, Vector.GP),
        ("660f38dc06", {"RSI": MEMORY + 1}, Vector.GP),  # aesenc
        ("0f38cb06", {"RSI": MEMORY + 8}, Vector.GP),  # sha256rnds2
        ("c5fa6f06", {"RSI": 1 << 47}, Vector.GP),  # not canonical
        ("c5fa6f4500", {"RBP": 1 << 47}, Vector.SS),  # the same through RBP
        ("0f01d0", {"RCX": 2}, Vector.GP),  # xgetbv of what is not there
        ("0f01d1", {"RCX": 0}, Vector.GP),  # xsetbv in ring 3
        ("f3480faed0", {"RAX": 1 << 63}, Vector.GP),  # wrfsbase: not canonical
        ("c4e269900c16", {"RSI": MEMORY}, Vector.UD),  # vpgatherdd with one register twice
    ],
)
def test_faults_are_those_of_the_manual(code: str, registers: dict[str, int], vector: int) -> None:
    context = processor(**registers)
    before = context.state()
    result = do(code, context)
    assert result.fault is not None
    assert (result.outcome, result.fault.vector, result.fault.error_code) == (FAULT, vector, 0)
    assert context.state() == before


def test_what_there_is_no_software_for_is_left_alone() -> None:
    for code in ("90", "0f58c1", "c5f853c1", "62f1fd48efc0", "0f05"):
        context = processor()
        before = context.state()
        assert do(code, context).outcome == UNSUPPORTED
        assert context.state() == before


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_questions_are_answered_in_32_bits() -> None:
    context = processor(RAX=U64 - 2, RCX=U64 - 1)
    assert do("0fa2", context) == DONE_RESULT  # cpuid
    assert [context.gpr[r] for r in (RAX, RBX, RCX, RDX)] == [0xFFFF_FFFD, 0xFFFF_FFFE, 0x89AB_CDEF, 0xFFFF_FFFF]
    assert do("0f31", context) == DONE_RESULT  # rdtsc
    assert (context.gpr[RAX], context.gpr[RDX]) == (0x9ABC_DEF0, 0x1234_5678)
    assert do("0f01f9", context) == DONE_RESULT  # rdtscp
    assert context.gpr[RCX] == 5
    context.gpr[RCX] = 1 << 32  # the upper half does not count
    assert do("0f01d0", context) == DONE_RESULT  # xgetbv
    assert (context.gpr[RAX], context.gpr[RDX]) == (7, 0)
    assert do("f30fc7f9", context) == DONE_RESULT  # rdpid rcx
    assert context.gpr[RCX] == 5


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("0fc7f0", 0xA5A5_A5A5),
        ("480fc7f0", 0xA5A5_A5A5_A5A5_A5A5),
        ("660fc7f0", 0xFFFF_FFFF_FFFF_A5A5),
        ("0fc7f8", 0xA5A5_A5A5),
        ("490fc7f8", None),
    ],
)
def test_random_numbers_have_the_width_asked_for(code: str, value: int | None) -> None:
    context = processor(RFLAGS=0x202 | Rflags.OF | Rflags.ZF | Rflags.SF)
    assert do(code, context) == DONE_RESULT
    assert context.gpr[RFLAGS] == 0x202 | Rflags.CF
    if value is None:
        assert context.gpr[R8] == 0xA5A5_A5A5_A5A5_A5A5
    else:
        assert context.gpr[RAX] == value


def test_segment_bases_are_read_and_written() -> None:
    context = processor(RAX=0x7FFF_1234_5678)
    assert do("f3480faed0", context) == DONE_RESULT  # wrfsbase rax
    assert do("f30faed8", context) == DONE_RESULT  # wrgsbase eax
    assert (context.fs_base, context.gs_base) == (0x7FFF_1234_5678, 0x1234_5678)
    assert do("f3480faec1", context) == DONE_RESULT  # rdfsbase rcx
    assert do("f30faeca", context) == DONE_RESULT  # rdgsbase edx
    assert (context.gpr[RCX], context.gpr[RDX]) == (0x7FFF_1234_5678, 0x1234_5678)


def test_segments_and_address_size_count() -> None:
    context = processor(PlainMemory(MEMORY, bytes(range(64))), RSI=0xFFFF_FFFF_0000_0010)
    context.fs_base = MEMORY - 0x10
    assert do("6467 c5f96f4610", context) == DONE_RESULT  # vmovdqa xmm0, fs:[esi + 16]
    assert context.vectors.low(0) == bytes(range(16, 32))


# ---- vector state ----------------------------------------------------------------------------------------------------


def test_vex_clears_what_is_above_and_sse_leaves_it() -> None:
    context = processor()
    upper = context.vectors.high(2)
    assert do("660f38dcd1", context) == DONE_RESULT  # aesenc xmm2, xmm1
    assert context.vectors.high(2) == upper
    assert do("c4e269dcd1", context) == DONE_RESULT  # vaesenc xmm2, xmm2, xmm1
    assert context.vectors.high(2) == bytes(16)


@given(st.binary(min_size=512, max_size=512), st.integers(0, 7), st.sampled_from(["0fae26", "0fc726", "0fae36"]))
def test_saved_state_comes_back(content: bytes, mask: int, save: str) -> None:
    memory = PlainMemory(MEMORY, bytes(4096))
    context = PlainProcessor([0] * 18, content, memory)
    context.gpr[RSI], context.gpr[RAX], context.gpr[RDX] = MEMORY, mask, 0
    before = bytes(context.vectors.area)
    assert do(save, context) == DONE_RESULT
    assert struct.unpack_from("<Q", memory.content, 512)[0] == mask
    for number in range(16):
        context.vectors.set(number, bytes(32))
    assert do("0fae2e", context) == DONE_RESULT  # xrstor
    for bit, (start, end) in ((2, (160, 416)), (4, (576, AREA_SIZE))):
        expected = before[start:end] if mask & bit else bytes(end - start)
        assert context.vectors.area[start:end] == expected


def test_components_that_were_not_saved_are_initial_after_xrstor() -> None:
    memory = PlainMemory(MEMORY, bytes(4096))  # XSTATE_BV is 0
    memory.content[24:28] = struct.pack("<I", 0x1F80)
    context = processor(memory, RSI=MEMORY, RAX=7, RDX=0)
    assert do("0fae2e", context) == DONE_RESULT
    assert context.ymm() == bytes(512)
    assert context.vectors.area[:2] == struct.pack("<H", 0x37F)


@pytest.mark.parametrize(
    ("place", "content"),
    [(512, b"\x08"), (520, b"\x01"), (536, b"\x01"), (26, b"\x01"), (527, b"\x80\x01")],
    ids=["component", "compaction", "reserved", "mxcsr", "compact"],
)
def test_xrstor_refuses_what_cannot_be_loaded(place: int, content: bytes) -> None:
    memory = PlainMemory(MEMORY, bytes(4096))
    memory.content[place : place + len(content)] = content
    context = processor(memory, RSI=MEMORY, RAX=7, RDX=0)
    before = context.state()
    fault = do("0fae2e", context).fault
    assert fault is not None
    assert fault.vector == Vector.GP
    assert context.state() == before


def test_xsave_needs_64_byte_alignment() -> None:
    for code in ("0fae26", "0fc726", "0fae2e"):
        fault = do(code, processor(RSI=MEMORY + 32, RAX=7, RDX=0)).fault
        assert fault is not None
        assert fault.vector == Vector.GP


# ---- runs ------------------------------------------------------------------------------------------------------------


def fetching(code: bytes):  # type: ignore[no-untyped-def]
    def fetch(address: int, size: int) -> bytes:
        if not CODE <= address < CODE + len(code):
            raise Fault(Vector.PF, 0, address)
        return code[address - CODE : address - CODE + size]

    return fetch


def test_a_run_goes_on_as_long_as_instructions_are_wanted() -> None:
    code = bytes.fromhex("c5f5efc0 c5fdfec8 c5fe6f0e c5fe7f4e20 90 c5f5efc0")
    context = processor(RIP=CODE, RSI=MEMORY)
    assert try_execute(context, NoAnswers(), fetching(code), lambda it: "avx" in "".join(it.features)) is True
    assert context.gpr[RIP] == CODE + 17
    assert try_execute(context, NoAnswers(), fetching(code), lambda it: "avx" in "".join(it.features)) is False
    assert context.gpr[RIP] == CODE + 17


def test_a_run_stops_at_the_instruction_that_faults() -> None:
    code = bytes.fromhex("c5f5efc0 c5fe6f0e")
    context = processor(RIP=CODE, RSI=MEMORY - 1)
    fault = try_execute(context, NoAnswers(), fetching(code), lambda _: True)
    assert isinstance(fault, Fault)
    assert context.gpr[RIP] == CODE + 4


def test_a_run_is_bounded() -> None:
    code = bytes.fromhex("c5f5efc0") * (MOST + 100)
    context = processor(RIP=CODE)
    assert try_execute(context, NoAnswers(), fetching(code), lambda _: True) is True
    assert context.gpr[RIP] == CODE + 4 * MOST


def test_every_handler_is_reached_by_its_encoding() -> None:
    reached = {find(it) for maker, _ in known() for it in [maker.make(random.Random(1))[1]]}
    expected = {handler for encoding, handler in all_handlers().items() if encoding in {m.encoding for m, _ in known()}}
    assert expected <= reached


def test_the_document_lists_what_there_is() -> None:
    from software_instructions import render

    written = (Path(__file__).parents[4] / "docs" / "software-instructions.md").read_text()
    assert written == render(), "run: python tools/software_instructions.py > docs/software-instructions.md"


def test_what_only_looks_like_an_instruction_in_software_is_left_alone() -> None:
    for code in ("0faee8", "0faef0", "0fc730", "0fc738", "660fc730"):  # lfence, mfence, vmptrld, vmptrst, vmclear
        assert find(at(code)) is None
