"""A guest caught at any instruction of the exit-less stub is brought to where its program is.

The stub is run by Unicorn one instruction at a time over plain memory, with a poller that answers, sends away, takes
or does nothing; after each number of steps the registers must settle to the program's state.
"""

import struct
from typing import Any

import capstone
import pytest
import unicorn
from unicorn import x86_const as u

from enisle.abi.types import PAGE
from enisle.abi.x86 import GPR_COUNT, R8, R9, R10, R11, RAX, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSI
from enisle.machine import exitless
from enisle.machine.exitless import ANSWERED, ENTERED, LEAVE, OPEN_WORD, POSTED, STATE_WORD, CallSlot, build_stub

STUB = 0x10_0000
RETURN, FLAGS = 0x40_1234, 0xAD7  # arithmetic flags all set
NUMBER, RESULT = 39, 0x1122_3344_5566
ARGUMENTS = {RDI: 11, RSI: 12, RDX: 13, R10: 14, R8: 15, R9: 16, RBX: 17}
REGISTERS = {
    RAX: u.UC_X86_REG_RAX, RBX: u.UC_X86_REG_RBX, RCX: u.UC_X86_REG_RCX, RDX: u.UC_X86_REG_RDX,
    RSI: u.UC_X86_REG_RSI, RDI: u.UC_X86_REG_RDI, R8: u.UC_X86_REG_R8, R9: u.UC_X86_REG_R9,
    R10: u.UC_X86_REG_R10, R11: u.UC_X86_REG_R11, RIP: u.UC_X86_REG_RIP, RFLAGS: u.UC_X86_REG_EFLAGS,
}  # fmt: skip


class Memory:
    """As much of GuestMemory as a slot needs."""

    def __init__(self) -> None:
        self.page = memoryview(bytearray(PAGE))
        self.words = self.page.cast("Q")


def make_slot(ring: int) -> tuple[CallSlot, Memory]:
    memory = Memory()
    slot: Any = CallSlot.__new__(CallSlot)
    CallSlot.__init__(slot, memory, 0, ring, 0)  # type: ignore[arg-type]
    slot.address = STUB
    slot.registers, slot.halves = memory.words[:GPR_COUNT], memory.words.cast("B").cast("I")
    slot._space = object()
    return slot, memory


class Stub:
    """The stub on an emulated processor, one instruction at a time."""

    def __init__(self, ring: int, is_open: bool) -> None:
        self.slot, self.memory = make_slot(ring)
        self.slot.set_open(is_open)
        self.code, self.labels = build_stub(ring)
        self.engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.engine.mem_map(STUB, 2 * PAGE)
        self.engine.mem_write(STUB, self.code)
        values = {RAX: NUMBER, RCX: RETURN, R11: FLAGS, RFLAGS: FLAGS, RIP: STUB, **ARGUMENTS}
        for register, value in values.items():
            self.engine.reg_write(REGISTERS[register], value)

    def step(self) -> bool:
        """Run one instruction; False where the stub would leave (out, sysret, jmp rcx)."""
        at = self.engine.reg_read(u.UC_X86_REG_RIP) - STUB
        if self.code[at : at + 2] in (exitless.OUT, exitless.JMP_RCX) or self.code[at : at + 3] == exitless.SYSRET:
            return False
        self.engine.mem_write(STUB + PAGE, bytes(self.memory.page))
        self.engine.emu_start(STUB + at, STUB + PAGE, count=1)
        self.memory.page[:] = self.engine.mem_read(STUB + PAGE, PAGE)
        return True

    def settled(self) -> tuple[bool, list[int]]:
        gpr = [0] * GPR_COUNT
        for register, number in REGISTERS.items():
            gpr[register] = self.engine.reg_read(number)
        return self.slot.settle(gpr), gpr


def check(stub: Stub, answered: bool) -> None:
    pending, gpr = stub.settled()
    assert pending is not answered
    assert gpr[RIP] == gpr[RCX] == RETURN
    assert gpr[RAX] == (RESULT if answered else NUMBER)
    assert {register: gpr[register] for register in ARGUMENTS} == ARGUMENTS
    if stub.slot.ring == 0:
        assert gpr[RFLAGS] == FLAGS
    else:
        assert gpr[RFLAGS] & 0x8D5 == FLAGS & 0x8D5, "the ring-3 stub may touch no flag"
    assert stub.slot.halves[STATE_WORD] in (ANSWERED, ENTERED)


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("is_open", [True, False])
def test_an_unanswered_call_is_pending_wherever_it_was_caught(ring: int, is_open: bool) -> None:
    for steps in range(40):
        stub = Stub(ring, is_open)
        for _ in range(steps):
            stub.step()
        check(stub, answered=False)


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("extra", range(12))
def test_an_answered_call_is_done_wherever_it_was_caught(ring: int, extra: int) -> None:
    stub = Stub(ring, True)
    while stub.slot.halves[STATE_WORD] != POSTED:
        assert stub.step()
    for _ in range(extra % 4):
        stub.step()
    assert stub.slot.take()
    assert [stub.slot.registers[register] for register in (RAX, RDI, RSI, RDX, R10, R8, R9)] == [
        NUMBER, 11, 12, 13, 14, 15, 16,
    ]  # fmt: skip
    stub.slot.answer(RESULT)
    for _ in range(extra):
        stub.step()
    check(stub, answered=True)


@pytest.mark.parametrize("ring", [0, 3])
def test_a_call_sent_away_takes_the_exit_door(ring: int) -> None:
    stub = Stub(ring, True)
    while stub.slot.halves[STATE_WORD] != POSTED:
        stub.step()
    assert stub.slot.take()
    stub.slot.send_away()
    assert stub.slot.halves[STATE_WORD] == LEAVE
    for _ in range(40):
        stub.step()
    at = stub.engine.reg_read(u.UC_X86_REG_RIP) - STUB
    assert stub.code[at : at + 2] == exitless.OUT
    check(stub, answered=False)


@pytest.mark.parametrize("ring", [0, 3])
def test_a_closed_slot_sends_a_spinning_guest_to_the_exit_door(ring: int) -> None:
    stub = Stub(ring, True)
    for _ in range(60):
        stub.step()
    stub.slot.set_open(False)
    for _ in range(40):
        stub.step()
    at = stub.engine.reg_read(u.UC_X86_REG_RIP) - STUB
    assert stub.code[at : at + 2] == exitless.OUT


def test_a_call_is_taken_once() -> None:
    slot, _ = make_slot(3)
    slot.halves[STATE_WORD] = POSTED
    assert slot.take()
    assert not slot.take()


def test_nothing_but_posted_is_taken() -> None:
    slot, _ = make_slot(3)
    for state in (ANSWERED, LEAVE, ENTERED, 7, 0xFFFF_FFFF):
        slot.halves[STATE_WORD] = state
        assert not slot.take()


@pytest.mark.parametrize("ring", [0, 3])
def test_the_stub_uses_no_stack_and_fits_its_page(ring: int) -> None:
    code, _ = build_stub(ring)
    assert len(code) < PAGE
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    text = [f"{i.mnemonic} {i.op_str}" for i in machine.disasm(code, 0)]
    assert not any("push" in line or "pop" in line or "rsp" in line for line in text)
    assert struct.calcsize("18Q") <= 4 * STATE_WORD < 4 * OPEN_WORD < PAGE
