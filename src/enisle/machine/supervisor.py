"""The supervisor half of every address space: GDT, IDT, exception stubs, the system-call stub, TSS and stacks.

It is a few plain instructions per entry, because a software KVM emulates ring 0. Every stub ends in an exit and is
never resumed, but for the one system-call stub of a hypervisor that enters ring 0 (SYSRET).
"""

import struct

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import VECTORS_WITH_ERROR_CODE, Pte, Vector
from enisle.machine import layout
from enisle.machine.exitless import build_stub
from enisle.machine.memory import GuestMemory
from enisle.machine.pagetables import AddressSpace, PageTableOps, Shadows, leaf_flags
from enisle.records import Record

KERNEL_CS, KERNEL_DS, USER_DS, USER_CS, TSS_SELECTOR = 0x10, 0x18, 0x2B, 0x33, 0x38
STAR = KERNEL_CS << 32 | (USER_DS - 8) << 48  # SYSRET loads CS from +16, SS from +8 (APM 2 6.1.1)

OUT_SYSCALL = bytes((0xE6, layout.SYSCALL_PORT))  # out imm8, al
SYSRET = b"\x48\x0f\x07"
SYSRET_ADDRESS = layout.SYSCALL_STUB + len(OUT_SYSCALL)

TSS_RSP0 = 4
TSS_IO_BASE = 0x66
TSS_SIZE = 0x68
IO_BITMAP_BYTES = layout.SYSCALL_PORT // 8 + 1

SPACE_FRAMES, PROCESSOR_FRAMES = 16, 8
"""At least what a new address space or processor takes, with the tables that lead to it."""
ONLY_SUPERVISOR = Pte.PRESENT | Pte.WRITABLE


class ExceptionFrame(Record):
    """What an exception stub leaves at the top of the processor's stack, lowest address first."""

    vector: int
    cr2: int
    error_code: int
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int


FRAME_WORDS = len(ExceptionFrame._fields)


def exception_stub(vector: int) -> bytes:
    """Return the code for one vector: complete the frame to [vector, cr2, error code, …] and halt. At most 16 bytes."""
    push = bytes((0x6A, vector & 0x7F))
    if vector == Vector.PF:
        # push rax; push rax; mov rax, cr2; mov [rsp+8], rax; pop rax; push 14; hlt
        return b"\x50\x50\x0f\x20\xd0\x48\x89\x44\x24\x08\x58" + push + b"\xf4"
    return (b"" if vector in VECTORS_WITH_ERROR_CODE else b"\x6a\x00") + b"\x6a\x00" + push + b"\xf4"


def _gate(address: int, dpl: int) -> bytes:
    kind = 0x8E | dpl << 5  # present 64-bit interrupt gate (SDM 3A 6.14.1)
    return struct.pack("<HHBBHII", address & 0xFFFF, KERNEL_CS, 0, kind, address >> 16 & 0xFFFF, address >> 32, 0)


GDT = struct.pack(
    "<7Q",
    0,
    0,
    0x00AF_9B00_0000_FFFF,  # kernel code, 64-bit
    0x00CF_9300_0000_FFFF,  # kernel data
    0,  # user code, 32-bit: none
    0x00CF_F300_0000_FFFF,  # user data
    0x00AF_FB00_0000_FFFF,  # user code, 64-bit
)


class Supervisor:
    """Builds the shared half and hands out per-processor pages."""

    def __init__(self, memory: GuestMemory, ops: PageTableOps, shadows: Shadows) -> None:
        self.memory, self._ops, self._shadows = memory, ops, shadows
        self._space = AddressSpace(memory, ops)
        self._processors = 0
        self._exitless: Gpa | None = None
        stubs = b"".join(exception_stub(vector).ljust(16, b"\xf4") for vector in range(32))
        gates = b"".join(
            _gate(layout.EXCEPTION_STUBS + 16 * vector, 3 if vector in (Vector.BP, Vector.OF) else 0)
            for vector in range(32)
        )
        for address, content, flags in (
            (layout.GDT, GDT, ONLY_SUPERVISOR),
            (layout.IDT, gates, ONLY_SUPERVISOR),
            (layout.EXCEPTION_STUBS, stubs, ONLY_SUPERVISOR),
        ):
            self._page(address, content, flags)
        self.entry = (256, ops.get(self._space.table, 256))
        """Index and entry of the PML4 that every address space shares."""
        self._common: list[tuple[Gva, Gpa, int]] = []
        self.add_common_page(Gva(layout.SYSCALL_STUB), OUT_SYSCALL + SYSRET, execute=True)

    @property
    def space(self) -> AddressSpace:
        """The space whose half all others share."""
        return self._space

    def add_common_page(self, address: Gva, content: bytes, execute: bool) -> Gpa:
        """Make a page that every space has at `address`, readable in ring 3. Before the first space is made."""
        gpa = self.memory.allocate_frame()
        self.memory.write(gpa, content)
        self._common.append((address, gpa, leaf_flags(True, False, execute)))
        return gpa

    def exitless_stub(self, ring: int) -> Gpa:
        """Return the frame with the stub of the exit-less door, made at first use."""
        if self._exitless is None:
            self._exitless = self.memory.allocate_frame()
            self.memory.write(self._exitless, build_stub(ring)[0])
        return self._exitless

    def new_address_space(self) -> AddressSpace:
        """Return an empty space with the supervisor's half and the common pages. Raises OutOfMemory."""
        self.memory.require(SPACE_FRAMES)
        space = AddressSpace(self.memory, self._ops.space(), self.entry, self._shadows)
        for address, gpa, flags in self._common:
            self.memory.share(gpa, 1)
            space.map(address, gpa, 1, flags)
        return space

    def _page(self, address: int, content: bytes, flags: int) -> Gpa:
        gpa = self.memory.allocate_frame()
        self.memory.write(gpa, content)
        self._space.map(Gva(address), gpa, 1, flags)
        return gpa

    def add_processor(self) -> tuple[int, Gpa]:
        """Make the pages of one more processor; return its TSS address and where its exception frames appear.

        Raises OutOfMemory, with nothing done.
        """
        address = layout.PROCESSOR_PAGES + self._processors * layout.PROCESSOR_STRIDE
        assert address < layout.SUPERVISOR_END, "too many processors"
        self.memory.require(PROCESSOR_FRAMES)
        self._processors += 1
        tss = bytearray(TSS_SIZE + IO_BITMAP_BYTES + 1)
        stack_top = address + 2 * PAGE
        struct.pack_into("<Q", tss, TSS_RSP0, stack_top)
        struct.pack_into("<H", tss, TSS_IO_BASE, TSS_SIZE)
        tss[TSS_SIZE:] = b"\xff" * (IO_BITMAP_BYTES + 1)
        tss[TSS_SIZE + layout.SYSCALL_PORT // 8] &= ~(1 << layout.SYSCALL_PORT % 8)
        self._page(address, bytes(tss), ONLY_SUPERVISOR)
        stack = self._page(address + PAGE, b"", ONLY_SUPERVISOR)
        return address, Gpa(stack + PAGE - 8 * FRAME_WORDS)
