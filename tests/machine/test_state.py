"""FPU and vector state: the standard-format XSAVE area and what the guest sees of it."""

import struct

from enisle.abi.x86 import RAX, RBX, RCX, RDI, RDX
from enisle.machine import Syscall
from machine.guest import DATA, SYSCALL, UD2, Guest

FXSAVE = b"\x48\x0f\xae\x07"  # fxsave64 [rdi]
LEGACY = 512
XMM = 160
X87 = struct.pack("<HHBBHQQII", 0x37F, 0x3000, 0xC0, 0, 0, 0, 0, 0x1F80, 0xFFFF)
"""Top of stack 6: ST0 and ST1 are physical registers 6 and 7."""
ONE, PI = bytes.fromhex("0000000000000080ff3f"), bytes.fromhex("35c26821a2da0fc90040")
XMM_VALUES = bytes(range(256))


def image() -> bytes:
    legacy = X87 + ONE.ljust(16, b"\0") + PI.ljust(16, b"\0") + bytes(96) + XMM_VALUES
    return legacy.ljust(LEGACY, b"\0") + struct.pack("<Q56x", 3)


def meaning(area: bytes) -> tuple[bytes, ...]:
    """Return what is architectural: control, status, tags, MXCSR, ST0…7 and XMM0…15."""
    stack = b"".join(area[32 + 16 * index : 42 + 16 * index] for index in range(8))
    return area[:5], area[24:28], stack, area[XMM : XMM + 256]


def test_state_that_is_loaded_is_saved_and_seen_by_the_guest(guest: Guest) -> None:
    guest.processor.xrstor(image())
    assert meaning(guest.processor.xsave()) == meaning(image())
    guest.load(FXSAVE + SYSCALL)
    guest.gpr[RDI] = DATA
    assert isinstance(guest.processor.run(), Syscall)
    assert meaning(guest.memory.read(guest.data, LEGACY)) == meaning(image())


def test_state_that_the_guest_makes_is_saved(guest: Guest) -> None:
    # fninit; fld1; fldpi; movq xmm9, rax; fxsave64
    guest.load(b"\xdb\xe3\xd9\xe8\xd9\xeb\x66\x4c\x0f\x6e\xc8" + FXSAVE + SYSCALL)
    guest.gpr[RDI], guest.gpr[RAX] = DATA, 0x0123_4567_89AB_CDEF
    guest.processor.run()
    area = guest.processor.xsave()
    assert meaning(area) == meaning(guest.memory.read(guest.data, LEGACY))
    assert area[32:42] == PI
    assert area[48:58] == ONE
    assert struct.unpack_from("<Q", area, XMM + 9 * 16)[0] == 0x0123_4567_89AB_CDEF
    assert struct.unpack_from("<Q", area, LEGACY)[0] & 3 == 3


def test_state_survives_another_processors_work(guest: Guest) -> None:
    guest.load(SYSCALL + FXSAVE + SYSCALL)
    guest.processor.xrstor(image())
    guest.processor.run()
    with guest.another() as other:
        guest.begin(other)
        other.run()
    guest.gpr[RDI] = DATA
    guest.processor.run()
    assert meaning(guest.memory.read(guest.data, LEGACY)) == meaning(image())


def test_parts_that_an_image_leaves_out_are_initial(guest: Guest) -> None:
    guest.processor.xrstor(image())
    guest.processor.xrstor(image()[:LEGACY] + struct.pack("<Q56x", 0))
    area = meaning(guest.processor.xsave())
    present = struct.unpack_from("<Q", guest.processor.xsave(), LEGACY)[0]
    assert present & 2 == 0 or area[3] == bytes(256)
    guest.load(FXSAVE + SYSCALL)
    guest.gpr[RDI] = DATA
    guest.processor.run()
    content = guest.memory.read(guest.data, LEGACY)
    assert content[XMM : XMM + 256] == bytes(256)
    assert struct.unpack_from("<H", content)[0] == 0x37F


def test_an_exception_does_not_disturb_vector_state(guest: Guest) -> None:
    guest.processor.xrstor(image())
    guest.run(UD2)
    guest.run(b"\x31\xc9\xf7\xf1")
    assert meaning(guest.processor.xsave()) == meaning(image())


def test_cpuid_offers_no_more_than_the_processor_can(guest: Guest) -> None:
    guest.load(b"\x0f\xa2" + SYSCALL)
    guest.gpr[RAX] = 1
    guest.processor.run()
    features = guest.gpr[RCX]
    assert guest.gpr[RDX] >> 26 & 1, "SSE2 is part of x86-64"
    assert guest.gpr[RBX] is not None
    usable = features >> 27 & 1 and features >> 28 & 1  # OSXSAVE and AVX
    guest.load(b"\xc5\xfc\x58\xc1" + SYSCALL)  # vaddps ymm0, ymm0, ymm1
    assert not usable or isinstance(guest.processor.run(), Syscall)
