"""XSAVE, XSAVEOPT, XSAVEC and XRSTOR in software, for processors that keep x87, SSE and AVX state (SDM 1 13.7-13.10).

glibc saves vector registers so on the first call of each function.
"""

import struct

from enisle.machine.software.context import AREA_SIZE, AVX, XMM, XSTATE_BV, general_protection
from enisle.machine.software.operands import Step

X87_BIT, SSE_BIT, AVX_BIT = 1, 2, 4
XCOMP_BV, HEADER_END, COMPACTED = 520, 576, 1 << 63
MXCSR, MXCSR_BITS = 24, 0xFFFF
ALIGNMENT = 64
PARTS = {
    X87_BIT: ((0, MXCSR), (32, XMM)),
    SSE_BIT: ((XMM, XMM + 256),),
    AVX_BIT: ((AVX, AREA_SIZE),),
}
"""Where the bytes of each component stand; MXCSR and its mask belong to SSE and AVX both."""
CONTROL = (MXCSR, 32)
INITIAL_X87 = struct.pack("<H22x", 0x37F)
A, D = 0, 2
"""Numbers of RAX and RDX in an instruction."""


def _requested(step: Step) -> int:
    """Return which components the instruction is about: EDX:EAX and XCR0. Raises Fault."""
    enabled = step.answers.xgetbv(0) or 0
    return (step.gpr(D, 4) << 32 | step.gpr(A, 4)) & enabled & (X87_BIT | SSE_BIT | AVX_BIT)


def _operand(step: Step) -> int:
    address = step.address()
    step.check(address, HEADER_END, ALIGNMENT)
    return address


def _header(area: bytes | bytearray) -> int:
    return int.from_bytes(area[XSTATE_BV : XSTATE_BV + 8], "little")


def _store(step: Step, address: int, area: bytearray, components: int, control: bool) -> None:
    for bit, parts in PARTS.items():
        if components & bit:
            for start, end in parts:
                step.store_at(address + start, bytes(area[start:end]))
    if control:
        step.store_at(address + CONTROL[0], bytes(area[slice(*CONTROL)]))


def xsave(step: Step) -> None:
    """XSAVE, and XSAVEOPT without its optimization."""
    address, wanted = _operand(step), _requested(step)
    area = step.context.vectors.area
    in_use = _header(area) | X87_BIT
    _store(step, address, area, wanted, bool(wanted & (SSE_BIT | AVX_BIT)))
    old = int.from_bytes(step.load_at(address + XSTATE_BV, 8), "little")
    step.store_at(address + XSTATE_BV, (old & ~wanted | in_use & wanted).to_bytes(8, "little"))


def xsavec(step: Step) -> None:
    """XSAVEC; AVX is the only component beyond the header, so that both formats have it at one place."""
    address, wanted = _operand(step), _requested(step)
    area = step.context.vectors.area
    in_use = (_header(area) | X87_BIT) & wanted
    _store(step, address, area, in_use, bool(in_use & SSE_BIT))
    step.store_at(address + XSTATE_BV, struct.pack("<QQ", in_use, wanted | COMPACTED))


def xrstor(step: Step) -> None:
    address, wanted = _operand(step), _requested(step)
    header = step.load_at(address + XSTATE_BV, HEADER_END - XSTATE_BV)
    present, compaction = struct.unpack_from("<QQ", header)
    enabled = step.answers.xgetbv(0) or 0
    is_compact = bool(compaction & COMPACTED)
    allowed = compaction & ~COMPACTED & enabled if is_compact else enabled
    if (
        present & ~allowed
        or (not is_compact and any(header[8:24]))
        or compaction & ~COMPACTED & ~enabled
        or any(header[16:])
    ):
        raise general_protection()
    new = bytearray(step.context.vectors.area)
    for bit, parts in PARTS.items():
        if not wanted & bit:
            continue
        for start, end in parts:
            new[start:end] = step.load_at(address + start, end - start) if present & bit else bytes(end - start)
    if wanted & X87_BIT and not present & X87_BIT:
        new[: len(INITIAL_X87)] = INITIAL_X87
    if wanted & SSE_BIT or (wanted & AVX_BIT and not is_compact):
        _load_control(step, address, new, not is_compact or bool(present & SSE_BIT))
    used = _header(new) & ~wanted | present & wanted
    new[XSTATE_BV : XSTATE_BV + 8] = used.to_bytes(8, "little")
    step.then(lambda: step.context.vectors.replace(new))


def _load_control(step: Step, address: int, area: bytearray, present: bool) -> None:
    control = step.load_at(address + MXCSR, 4) if present else struct.pack("<I", 0x1F80)
    if int.from_bytes(control, "little") & ~MXCSR_BITS:
        raise general_protection()
    area[MXCSR : MXCSR + 4] = control


HANDLERS = {
    "np 0F AE /4 mem": xsave,
    "np 0F AE /5 mem": xrstor,
    "np 0F AE /6 mem": xsave,
    "np 0F C7 /4 mem": xsavec,
}
