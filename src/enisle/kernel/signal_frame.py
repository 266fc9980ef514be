"""The frame a signal handler runs on, and the way back: `struct rt_sigframe` of x86-64 Linux, byte for byte.

From the top: 128 bytes of red zone, the XSAVE area (64-byte aligned, Linux's marks in it), then return address,
ucontext and siginfo. Unwinders, debuggers and garbage collectors read it; rt_sigreturn believes none of it.
"""

import struct
from errno import EFAULT
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi.x86 import (
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RFLAGS,
    RIP,
    RSI,
    RSP,
    Rflags,
)
from enisle.errors import LinuxError
from enisle.kernel.signal_actions import AltStack, SigAction
from enisle.kernel.signal_info import SigInfo
from enisle.machine import USER_END

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

USER_CS, USER_SS = 0x33, 0x2B
ORDER = (R8, R9, R10, R11, R12, R13, R14, R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP, RFLAGS)
"""Registers as struct sigcontext has them."""
RED_ZONE = 128
FPSTATE_ALIGNMENT = 64
XFEATURE_FPSSE = 3
MXCSR_DEFAULT, FCW_DEFAULT, MXCSR_DEFINED = 0x1F80, 0x37F, 0x2_FFFF
XSTATE_BV = struct.Struct("<QQ48s")
HEADER = slice(s.FXSAVE_SIZE, s.FXSAVE_SIZE + s.XSAVE_HEADER_SIZE)
STATE_BITS = slice(s.FXSAVE_SIZE, s.FXSAVE_SIZE + 8)
XSTATE_BV_FIELD = slice(s.FXSAVE_SIZE, s.FXSAVE_SIZE + 8)
UC_FLAGS = s.UC_FP_XSTATE | s.UC_SIGCONTEXT_SS | s.UC_STRICT_RESTORE_SS
CLEARED = Rflags.DF | Rflags.RF | Rflags.TF
RESTORED = int(
    Rflags.AC
    | Rflags.OF
    | Rflags.DF
    | Rflags.TF
    | Rflags.SF
    | Rflags.ZF
    | Rflags.AF
    | Rflags.PF
    | Rflags.CF
    | Rflags.RF
)
"""What rt_sigreturn lets a program set (FIX_EFLAGS)."""


def _initial_xsave() -> bytes:
    area = bytearray(s.FXSAVE_SIZE + s.XSAVE_HEADER_SIZE)
    struct.pack_into("<H", area, 0, FCW_DEFAULT)
    struct.pack_into("<I", area, 24, MXCSR_DEFAULT)
    struct.pack_into("<Q", area, s.FXSAVE_SIZE, XFEATURE_FPSSE)
    return bytes(area)


INITIAL_XSAVE = _initial_xsave()
"""FPU and vector state of a new program: everything in its initial configuration (SDM 1 13.6)."""


def push(thread: "Thread", info: SigInfo, action: SigAction, saved_mask: int) -> None:
    """Store the frame and point the registers at the handler. Raises EFAULT, leaving the registers alone."""
    if not action.flags & s.SA_RESTORER:
        raise LinuxError(EFAULT)
    gpr = thread.gpr
    area = _fpstate(thread)
    fpstate, frame = place(gpr[RSP], thread.altstack, bool(action.flags & s.SA_ONSTACK), len(area))
    thread.mm.write(fpstate, area)
    siginfo = bytes(info) if action.flags & s.SA_SIGINFO else b""
    content = action.restorer.to_bytes(8, "little") + _ucontext(thread, saved_mask, fpstate) + siginfo
    thread.mm.write(frame, content)
    gpr[RDI], gpr[RAX] = info.signo, 0
    gpr[RDX] = frame + s.RETURN_ADDRESS_SIZE
    gpr[RSI] = frame + s.RETURN_ADDRESS_SIZE + s.UCONTEXT_SIZE
    gpr[RIP], gpr[RSP] = action.handler, frame
    gpr[RFLAGS] = gpr[RFLAGS] & ~CLEARED
    thread.processor.xrstor(INITIAL_XSAVE)


def place(sp: int, altstack: AltStack, on_altstack: bool, fpstate_size: int) -> tuple[int, int]:
    """Return the addresses of the XSAVE area and of the frame. Raises EFAULT when an alternate stack is too small."""
    nested, entering = altstack.is_active(sp), False
    sp -= RED_ZONE
    if on_altstack and altstack.state(sp) == 0:
        sp, entering = altstack.sp + altstack.size, True
    fpstate = (sp - fpstate_size) & -FPSTATE_ALIGNMENT
    frame = ((fpstate - s.RT_SIGFRAME_SIZE) & -16) - 8
    if (nested or entering) and not altstack.holds(frame):
        raise LinuxError(EFAULT)
    if not 0 < frame < USER_END:
        raise LinuxError(EFAULT)
    return fpstate, frame


def _fpstate(thread: "Thread") -> bytes:
    """Return the XSAVE area as the guest's frame holds it: with what Linux adds in fields left to software."""
    machine = thread.kernel.machine
    size = machine.xsave_size
    area = bytearray(thread.processor.xsave()[:size].ljust(size, b"\0"))
    extended = size + s.FP_XSTATE_MAGIC2_SIZE
    s.FX_SW_BYTES.pack_into(area, s.FX_SW_OFFSET, s.FP_XSTATE_MAGIC1, extended, machine.xfeatures, size)
    if machine.queries:  # nothing of components that the guest is not told of
        present = int.from_bytes(area[XSTATE_BV_FIELD], "little") & machine.xfeatures
        area[XSTATE_BV_FIELD] = present.to_bytes(8, "little")
    area[s.FXSAVE_SIZE] |= XFEATURE_FPSSE
    if machine.blocking is not None:  # components that are hidden may be in use all the same
        shown = int.from_bytes(area[STATE_BITS], "little") & machine.xfeatures
        area[STATE_BITS] = shown.to_bytes(8, "little")
    return bytes(area) + s.FP_XSTATE_MAGIC2.to_bytes(4, "little")


def _ucontext(thread: "Thread", saved_mask: int, fpstate: int) -> bytes:
    gpr, stack = thread.gpr, thread.altstack
    trap = thread.last_trap
    return (
        s.UCONTEXT_HEAD.pack(UC_FLAGS, 0, stack.sp, _signed(stack.flags), stack.size)
        + s.SIGCONTEXT.pack(
            *[gpr[index] for index in ORDER],
            *(USER_CS, 0, 0, USER_SS),
            *(trap.error_code, trap.vector, saved_mask, trap.address),
            fpstate,
        )
        + saved_mask.to_bytes(8, "little")
    )


def _signed(flags: int) -> int:
    return flags - (1 << 32) if flags & 1 << 31 else flags


# ---- the way back --------------------------------------------------------------------------------------------------


class Restored:
    """What a frame says, decoded and checked."""

    __slots__ = ("altstack", "mask", "registers", "xsave")

    def __init__(self, registers: tuple[int, ...], xsave: bytes, mask: int, altstack: AltStack) -> None:
        self.registers, self.xsave, self.mask, self.altstack = registers, xsave, mask, altstack


def pop(thread: "Thread") -> Restored:
    """Read the frame below the stack pointer and load the registers from it. Raises EFAULT for one that is no good."""
    frame = thread.gpr[RSP] - s.RETURN_ADDRESS_SIZE
    raw = thread.mm.read(frame + s.RETURN_ADDRESS_SIZE, s.UCONTEXT_SIZE)
    _, _, sp, stack_flags, stack_size = s.UCONTEXT_HEAD.unpack_from(raw)
    *registers, cs, _, _, ss, _, _, _, _, fpstate = s.SIGCONTEXT.unpack_from(raw, s.UCONTEXT_HEAD.size)
    mask = int.from_bytes(raw[-8:], "little")
    if cs | 3 != USER_CS or ss | 3 not in (USER_SS, 3):
        raise LinuxError(EFAULT)
    xsave = read_fpstate(thread, fpstate) if fpstate else INITIAL_XSAVE
    restored = Restored(tuple(registers), xsave, mask, AltStack(sp, stack_size, stack_flags & 0xFFFF_FFFF))
    _load(thread, restored)
    return restored


def _load(thread: "Thread", restored: Restored) -> None:
    gpr = thread.gpr
    flags = gpr[RFLAGS]
    for index, value in zip(ORDER, restored.registers, strict=True):
        gpr[index] = value
    gpr[RFLAGS] = (flags & ~RESTORED) | (restored.registers[-1] & RESTORED)
    thread.processor.xrstor(restored.xsave)


def read_fpstate(thread: "Thread", address: int) -> bytes:
    """Return the XSAVE area of a frame, made fit for XRSTOR. Raises EFAULT where XRSTOR would fault.

    Without Linux's marks it is a plain FXSAVE area and everything else starts afresh (fpu__restore_sig).
    """
    if address % FPSTATE_ALIGNMENT:
        raise LinuxError(EFAULT)
    machine = thread.kernel.machine
    legacy = thread.mm.read(address, s.FXSAVE_SIZE)
    if int.from_bytes(legacy[24:28], "little") & ~MXCSR_DEFINED:
        raise LinuxError(EFAULT)
    size = marked_size(legacy, machine.xsave_size)
    if size and thread.mm.read_u32(address + size) != s.FP_XSTATE_MAGIC2:
        size = 0
    if not size:
        return legacy + XSTATE_BV.pack(XFEATURE_FPSSE, 0, bytes(48))
    area = bytearray(thread.mm.read(address, size))
    present, compacted, reserved = XSTATE_BV.unpack(area[HEADER])
    if compacted or any(reserved) or present & ~machine.xfeatures:
        raise LinuxError(EFAULT)
    wanted = s.FX_SW_BYTES.unpack_from(legacy, s.FX_SW_OFFSET)[2]
    XSTATE_BV.pack_into(area, s.FXSAVE_SIZE, present & wanted, 0, bytes(48))
    return bytes(area)


def marked_size(legacy: bytes, largest: int) -> int:
    """Return the size of the XSAVE area its first 512 bytes announce, 0 when they announce none."""
    magic, extended, _, size = s.FX_SW_BYTES.unpack_from(legacy, s.FX_SW_OFFSET)
    smallest = s.FXSAVE_SIZE + s.XSAVE_HEADER_SIZE
    return size if magic == s.FP_XSTATE_MAGIC1 and smallest <= size <= min(largest, extended) else 0
