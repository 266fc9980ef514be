"""Exceptions of the guest: memory that can be made there, or the signal Linux sends (arch/x86/kernel/traps.c).

Runs on the faulting thread; RIP is as the processor left it.
"""

import os
import struct
from typing import TYPE_CHECKING

from enisle.abi import linux_signal as s
from enisle.abi.types import PAGE, page_down
from enisle.abi.x86 import RFLAGS, RIP, PageFaultError, Rflags, Vector
from enisle.kernel import signals
from enisle.kernel.mm import OUT_OF_MEMORY
from enisle.kernel.vma import SHARED_ANONYMOUS
from enisle.machine import USER_END, PageFault, ProcessorException

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

FLOATING_POINT = (
    (0x01, s.FPE_FLTINV),
    (0x04, s.FPE_FLTDIV),
    (0x08, s.FPE_FLTOVF),
    (0x12, s.FPE_FLTUND),
    (0x20, s.FPE_FLTRES),
)
"""Exception flags of the FPU, in Linux's order, and their si_code (fpu__exception_code)."""
LONGEST_ACCESS = 64


def page_fault(thread: "Thread", fault: PageFault) -> None:
    """Make the page there, or send SIGSEGV; at the island's memory limit the process is killed."""
    nodes = thread.kernel.nodes
    if nodes and nodes.fill(thread, fault):
        return  # only this node's tree had lacked it
    executable = thread.mm.executable
    if executable is not None and fault.execute and executable.fetch(thread, fault):
        return
    if executable is not None and fault.write:
        executable.writing(thread, fault)
    code = thread.mm.fault(fault.address, fault.write, fault.execute)
    if code is None:
        if nodes:
            nodes.fill(thread, fault)  # now, instead of by a second fault
        return
    if code == OUT_OF_MEMORY:
        out_of_memory(thread)
        return
    error = PageFaultError.USER
    # Linux hides whether an address of the kernel's half is mapped.
    error |= PageFaultError.PRESENT if fault.present or fault.address >= USER_END else 0
    error |= PageFaultError.WRITE if fault.write else 0
    error |= PageFaultError.FETCH if fault.execute else 0
    thread.last_trap = signals.Trap(Vector.PF, error, fault.address)
    signals.force_signal(thread, signals.fault_info(s.SIGSEGV, code, fault.address))


def out_of_memory(thread: "Thread") -> None:
    """Kill the process: the island has no memory left for it."""
    process = thread.process
    name = process.name.decode(errors="replace")
    thread.kernel.report(f"out of memory: killed process {process.pid} ({name})")
    process.exit_group(s.SIGKILL)


def exception(thread: "Thread", event: ProcessorException) -> None:
    """Deal with any other exception: a trap of a blocking value's, or the program's own."""
    if thread.mm.executable is None or not thread.mm.executable.exception(thread, event):
        deliver(thread, event)


def deliver(thread: "Thread", event: ProcessorException) -> None:
    """Send the signal of an exception."""
    vector = event.vector
    info = _signal_of(thread, vector)
    if info is None:
        return
    address = thread.last_trap.address  # CR2 stays what the last page fault left
    thread.last_trap = signals.Trap(vector, event.error_code, address)
    signals.force_signal(thread, info)


def _signal_of(thread: "Thread", vector: int) -> signals.SigInfo | None:
    here = thread.gpr[RIP]
    match vector:
        case Vector.DE:
            return signals.fault_info(s.SIGFPE, s.FPE_INTDIV, here)
        case Vector.UD:
            return signals.fault_info(s.SIGILL, s.ILL_ILLOPN, here)
        case Vector.DB:
            stepped = thread.gpr[RFLAGS] & Rflags.TF
            return signals.fault_info(s.SIGTRAP, s.TRAP_TRACE if stepped else s.TRAP_BRKPT, here)
        case Vector.BP:
            return signals.kernel_info(s.SIGTRAP)
        case Vector.MF | Vector.XM:
            code = floating_point_code(thread.processor.xsave(), vector == Vector.XM)
            return signals.fault_info(s.SIGFPE, code, here) if code else None
        case Vector.AC:
            return signals.fault_info(s.SIGBUS, s.BUS_ADRALN, 0)
        case Vector.NP | Vector.SS:
            return signals.kernel_info(s.SIGBUS)
        case _:
            return signals.kernel_info(s.SIGSEGV)


def floating_point_code(xsave: bytes, simd: bool) -> int:
    """Return si_code for the unmasked exceptions in an FXSAVE image, 0 when there is none."""
    if simd:
        (mxcsr,) = struct.unpack_from("<I", xsave, 24)
        raised = ~(mxcsr >> 7) & mxcsr
    else:
        control, status = struct.unpack_from("<HH", xsave)
        raised = status & ~control
    return next((code for flags, code in FLOATING_POINT if raised & flags), 0)


def bus_error(thread: "Thread") -> None:
    """Send SIGBUS for a mapped page that the host cannot back: a file mapping beyond the end of its file.

    Shared anonymous memory has no such end: the island's limit is reached.
    """
    from enisle.kernel import operand

    addresses, stores = operand.touched(thread)
    address = missing_page(thread, addresses)
    vma = thread.mm.vmas.find(address)
    if vma and vma.name == SHARED_ANONYMOUS and not is_beyond_file(thread, address):
        out_of_memory(thread)
        return
    error = PageFaultError.USER | (PageFaultError.WRITE if stores else 0)
    thread.last_trap = signals.Trap(Vector.PF, error, address)
    signals.force_signal(thread, signals.fault_info(s.SIGBUS, s.BUS_ADRERR, address))


def missing_page(thread: "Thread", addresses: list[int]) -> int:
    """Return which of the addresses has no page, or the start of the page after it that an access runs into."""
    for address in addresses:
        following = page_down(address) + PAGE
        if is_beyond_file(thread, address):
            return address
        if following - address < LONGEST_ACCESS and is_beyond_file(thread, following):
            return following
    return addresses[1]


def is_beyond_file(thread: "Thread", address: int) -> bool:
    """Return whether the address is in a page that the mapped file does not reach."""
    vma = thread.mm.vmas.find(address)
    if vma is None or vma.backing is None:
        return False
    return vma.offset + page_down(address) - vma.start >= os.fstat(vma.backing.fd).st_size
