"""The exit-less door: a page per processor through which a system call goes to another core and back.

SYSCALL lands in a stub that stores the registers into its processor's call slot, posts the call and spins until a
poller has answered; the guest never leaves. When nobody polls, the stub takes the exit door at once. A slot is shared
with every thread of its process, so its words are wishes, not facts: they are fetched once and never trusted.
(FlexSC, Soares and Stumm, OSDI 2010, is the same idea.)
"""

import struct
import threading
import time

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import GPR_COUNT, R8, R9, R10, R11, RAX, RCX, RDI, RDX, RFLAGS, RIP, RSI, Pte
from enisle.machine import layout
from enisle.machine.memory import GuestMemory
from enisle.machine.pagetables import AddressSpace
from enisle.machine.processor import Registers

STATE_WORD = 2 * GPR_COUNT
OPEN_WORD = STATE_WORD + 1
"""Indices of 32-bit words in a slot; the 64-bit words before them are registers in `abi.x86` order."""
STATE, OPEN = 4 * STATE_WORD, 4 * OPEN_WORD
ANSWERED, POSTED, LEAVE, ENTERED, TAKEN = range(5)
"""States of a slot: answered, waiting for a poller, told to take the exit door, not posted yet, being served."""

SLOT_FLAGS = Pte.PRESENT | Pte.USER | Pte.WRITABLE | Pte.NX
STUB_FLAGS = Pte.PRESENT | Pte.USER
OUT = bytes((0xE6, layout.SYSCALL_PORT))
SYSRET = b"\x48\x0f\x07"

_STORE = {RAX: b"\x48\x89\x05", RDI: b"\x48\x89\x3d", RSI: b"\x48\x89\x35", RDX: b"\x48\x89\x15"}
_STORE.update({R10: b"\x4c\x89\x15", R8: b"\x4c\x89\x05", R9: b"\x4c\x89\x0d", RCX: b"\x48\x89\x0d"})
"""mov [rip+disp32], register"""


class _Code:
    """A few instructions with labels; slot operands are relative to RIP (the slot is the page after the code)."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def emit(self, code: bytes) -> None:
        self.bytes += code

    def slot(self, opcode: bytes, offset: int, immediate: bytes = b"") -> None:
        """An instruction whose operand is [slot + offset]."""
        end = len(self.bytes) + len(opcode) + 4 + len(immediate)
        self.bytes += opcode + struct.pack("<i", PAGE + offset - end) + immediate

    def jump(self, opcode: bytes, label: str) -> None:
        self.bytes += opcode + b"\0"
        self._jumps.append((len(self.bytes), label))

    def label(self, name: str) -> None:
        self.labels[name] = len(self.bytes)

    def finish(self) -> bytes:
        for end, label in self._jumps:
            distance = self.labels[label] - end
            assert -128 <= distance < 128, f"{label}: {distance}"
            self.bytes[end - 1] = distance & 0xFF
        return bytes(self.bytes)


JRCXZ, JMP, PAUSE, JMP_RCX = b"\xe3", b"\xeb", b"\xf3\x90", b"\xff\xe1"
LOAD_ECX, LOAD_RCX, LOAD_RAX = b"\x8b\x0d", b"\x48\x8b\x0d", b"\x48\x8b\x05"
STORE_IMMEDIATE = b"\xc7\x05"
ECX_MINUS_LEAVE = b"\x8d\x49\xfe"  # lea ecx, [rcx-2]


def build_stub(ring: int) -> tuple[bytes, dict[str, int]]:
    """Return the stub for a hypervisor whose SYSCALL runs LSTAR's code in `ring` (0 or 3), and its labels.

    It needs no stack and leaves all registers but RAX and RCX alone. In ring 3 it touches no flag (JRCXZ and LEA do
    not) and keeps the return address in the slot: a sibling that forges it gains nothing it has not. In ring 0
    SYSRET restores the flags, and RCX never leaves its register.
    """
    code = _Code()
    code.slot(STORE_IMMEDIATE, STATE, struct.pack("<I", ENTERED))
    if ring == 3:
        code.slot(_STORE[RCX], 8 * RCX)
        code.label("saved")
        code.slot(LOAD_ECX, OPEN)
        code.jump(JRCXZ, "closed")
        for register in (RAX, RDI, RSI, RDX, R10, R8, R9):
            code.slot(_STORE[register], 8 * register)
        code.slot(STORE_IMMEDIATE, STATE, struct.pack("<I", POSTED))
        code.label("spin")
        code.emit(PAUSE)
        code.slot(LOAD_ECX, STATE)
        code.jump(JRCXZ, "answered")
        code.emit(ECX_MINUS_LEAVE)
        code.jump(JRCXZ, "closed")
        code.slot(LOAD_ECX, OPEN)
        code.jump(JRCXZ, "closed")
        code.jump(JMP, "spin")
        code.label("answered")
        code.slot(LOAD_RAX, 8 * RAX)
        code.label("return")
        code.slot(LOAD_RCX, 8 * RCX)
        code.label("go")
        code.emit(JMP_RCX)
        code.label("closed")
        code.slot(LOAD_RCX, 8 * RCX)
        code.emit(OUT)
        return code.finish(), code.labels
    _ring0_stub(code)
    return code.finish(), code.labels


def _ring0_stub(code: _Code) -> None:
    """As above, but flags may change (SYSRET restores them from R11) and RCX is never touched."""
    load_eax, test_eax, cmp_leave = b"\x8b\x05", b"\x85\xc0", b"\x83\xf8\x02"
    je, jne = b"\x74", b"\x75"
    code.slot(_STORE[RAX], 8 * RAX)
    code.label("saved")
    code.slot(load_eax, OPEN)
    code.emit(test_eax)
    code.jump(je, "closed")
    for register in (RDI, RSI, RDX, R10, R8, R9):
        code.slot(_STORE[register], 8 * register)
    code.slot(STORE_IMMEDIATE, STATE, struct.pack("<I", POSTED))
    code.label("spin")
    code.emit(PAUSE)
    code.slot(load_eax, STATE)
    code.emit(test_eax)
    code.jump(je, "answered")
    code.emit(cmp_leave)
    code.jump(je, "closed")
    code.slot(load_eax, OPEN)
    code.emit(test_eax)
    code.jump(jne, "spin")
    code.label("closed")
    code.slot(LOAD_RAX, 8 * RAX)
    code.emit(OUT)
    code.emit(SYSRET)
    code.label("answered")
    code.slot(LOAD_RAX, 8 * RAX)
    code.label("return")
    code.label("go")
    code.emit(SYSRET)


class CallSlot:
    """One processor's slot, mapped into the address space of the thread it serves.

    `registers` are the 18 words a poller decodes. `lock` orders taking a call against withdrawing it; `serving` is
    true while a poller works for the thread.
    """

    def __init__(self, memory: GuestMemory, number: int, ring: int, stub: Gpa) -> None:
        self.memory, self.ring, self._stub = memory, ring, stub
        self.labels = build_stub(ring)[1]
        self.address = layout.SLOTS + number * layout.SLOT_STRIDE
        assert self.address + layout.SLOT_STRIDE <= layout.SLOTS_END, f"no slot for processor {number}"
        self.lock = threading.Lock()
        self.serving = False
        self._space: AddressSpace | None = None

    def bind(self, space: AddressSpace) -> None:
        """Map a fresh, closed slot into `space`. Raises OutOfMemory."""
        frame = self.memory.allocate_frame()
        words = self.memory.words[frame >> 3 : (frame >> 3) + PAGE // 8]
        self.registers, self.halves = words[:GPR_COUNT], words.cast("B").cast("I")
        self.memory.share(self._stub, 1)
        space.map(Gva(self.address), self._stub, 1, STUB_FLAGS)
        space.map(Gva(self.address + PAGE), frame, 1, SLOT_FLAGS)
        self._space = space

    def unbind(self) -> None:
        """Take the slot out of its space: a process must not reach a processor that serves another."""
        with self.lock:
            space, self._space = self._space, None  # from here on no poller takes a call: the frame is given back
        if space:
            self.set_open(False)
            while self.serving:
                time.sleep(0)
            space.unmap(Gva(self.address), 2)

    @property
    def is_bound(self) -> bool:
        return self._space is not None

    def set_open(self, value: bool) -> None:
        """Tell the stub whether somebody polls."""
        self.halves[OPEN_WORD] = int(value)

    def take(self) -> bool:
        """Take the posted call, if there is one, for serving it now."""
        if self.halves[STATE_WORD] != POSTED:
            return False
        with self.lock:
            if self._space is None or self.halves[STATE_WORD] != POSTED:
                return False
            self.halves[STATE_WORD] = TAKEN
            self.serving = True
            return True

    def answer(self, result: int) -> None:
        """Give the guest its result; it runs on."""
        self.registers[RAX] = result
        self.serving = False
        self.halves[STATE_WORD] = ANSWERED

    def send_away(self) -> None:
        """Make the guest take the exit door with this call."""
        self.serving = False
        self.halves[STATE_WORD] = LEAVE

    def settle(self, gpr: Registers) -> bool:
        """Bring the registers of a processor that stopped inside the stub to where its guest is.

        Returns True when the call is still to be served (RAX holds its number), False when it has been answered. A
        call that a poller is serving is waited for.
        """
        while self.serving:
            time.sleep(0)
        offset, labels = gpr[RIP] - self.address, self.labels
        with self.lock:
            state = self.halves[STATE_WORD]
            pending = offset == 0 or state != ANSWERED
            if pending:
                self.halves[STATE_WORD] = ENTERED
        if self.ring == 3:
            self._settle_ring3(gpr, offset, pending)
        elif pending:
            gpr[RAX] = self.registers[RAX] if offset >= labels["saved"] else gpr[RAX]
        elif offset != labels["return"]:
            gpr[RAX] = self.registers[RAX]
        gpr[RIP] = gpr[RCX]
        if self.ring == 0:
            gpr[RFLAGS] = gpr[R11]
        return pending

    def _settle_ring3(self, gpr: Registers, offset: int, pending: bool) -> None:
        labels = self.labels
        saved = offset >= labels["saved"]
        if saved and offset != labels["go"]:
            gpr[RCX] = self.registers[RCX]
        if not pending and offset not in (labels["return"], labels["go"]):
            gpr[RAX] = self.registers[RAX]

    def holds(self, address: int) -> bool:
        """Return whether `address` is in the stub."""
        return self._space is not None and self.address <= address < self.address + PAGE
