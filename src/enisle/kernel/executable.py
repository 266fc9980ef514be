"""Executable memory under a blocking value: beside an `Mm`, the guard that lets only looked-at pages execute.

Without a value none of this is imported. Rights of mappings, faults and signals stay Linux's; what a page must go
through before it executes, and what becomes of a trap, is the machine room's (`Guard`). Pages of shared mappings are
never executable, since others may write to them at any time: their programs are stepped. Lock: the `Mm`'s.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enisle.abi.linux_mman import PROT_EXEC, PROT_READ, PROT_WRITE
from enisle.abi.types import PAGE, PAGE_SHIFT, Gpa, Gva, page_down
from enisle.abi.x86 import RIP, Pte, Vector
from enisle.errors import LinuxError
from enisle.kernel import faults
from enisle.kernel.vma import Vma
from enisle.machine import (
    NOT_OURS,
    SYSCALL,
    USER_END,
    USER_START,
    Exit,
    GuestFault,
    Interrupted,
    OutOfMemory,
    PageFault,
    Processor,
    ProcessorException,
    leaf_flags,
)

if TYPE_CHECKING:
    from enisle.kernel.mm import Mm
    from enisle.kernel.thread import Thread

AROUND = 16
"""Pages of a file that are looked at together."""
PRESENT = Pte.PRESENT


class Executable:
    """The executable side of one address space."""

    def __init__(self, mm: "Mm") -> None:
        enforcement = mm.machine.enforcement
        assert enforcement
        self._mm = mm
        self._guard = enforcement.guard(mm.space, mm.lock, self._release)
        self._wrote: dict[int, tuple[int, int]] = {}
        """By thread: where it was, and which page it wanted to write, at its last write fault."""
        self._pages = self._guard.pages

    def _release(self, gpa: Gpa, count: int) -> None:
        """Drop a reference of each frame of a run, after the host calls that look at it. Requires: mm.lock."""
        if not self._mm.has_pins:
            self._mm.memory.release(gpa, count)
            return
        for index in range(count):
            self._mm.release_frame(Gpa(gpa + index * PAGE))

    # ---- for the address space; Requires: mm.lock ------------------------------------------------------------------

    @staticmethod
    def flags(prot: int) -> int:
        """Return the entry bits of a page nobody has looked at yet. Who may execute may read (x86 knows no other)."""
        return leaf_flags(bool(prot & (PROT_READ | PROT_EXEC)), bool(prot & PROT_WRITE), False)

    def write(self, vma: Vma, page: int) -> bool:
        """Let a page be written that execution has made read-only; False when that is not why it is."""
        changed = self._pages.write(page, self.flags(vma.prot))
        if changed:
            self._mm.forget_pages((page >> PAGE_SHIFT,))
        return changed

    def settle(self, start: int, end: int) -> None:
        """The range is about to get other rights or another place. Raises ENOMEM."""
        try:
            self._pages.settle(start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT)
        except OutOfMemory:
            from errno import ENOMEM

            raise LinuxError(ENOMEM) from None

    def forget(self, start: int, end: int) -> None:
        """The range is unmapped."""
        self._pages.forget(start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT)

    def copy_to(self, child: "Executable") -> None:
        """The child's address space is a copy of this one, page for page."""
        self._pages.copy_to(child._pages)

    # ---- for threads -----------------------------------------------------------------------------------------------

    def writing(self, thread: "Thread", fault: PageFault) -> None:
        """Remember a write: an instruction that writes to its own page would otherwise never get both rights."""
        self._wrote[thread.tid] = thread.gpr[RIP], fault.address >> PAGE_SHIFT

    def fetch(self, thread: "Thread", fault: PageFault) -> bool:
        """Serve a fetch from a page that is not executable; False when the program may not execute there."""
        if self._wrote.pop(thread.tid, None) == (thread.gpr[RIP], fault.address >> PAGE_SHIFT):
            self._step_once(thread)
            return True
        try:
            with self._mm.lock:
                vma = self._mm.vmas.find(fault.address)
                if vma is None or not vma.prot & PROT_EXEC:
                    return False
                ready = self._make_ready(vma, page_down(fault.address))
            if not ready:
                self._step(thread)
        except OutOfMemory:
            faults.out_of_memory(thread)
        except OSError:  # the mapped file has become shorter
            faults.bus_error(thread)
        return True

    def _make_ready(self, vma: Vma, page: int) -> bool:
        """Make a page executable; False when it must be stepped. Requires: mm.lock. Raises OutOfMemory, OSError."""
        mm = self._mm
        if not mm.space.entry(page) & PRESENT:
            mm.fault(page, False, False, guest=False)
        # A host call that still looks at frames of this space could change what was looked at.
        if vma.shared:
            self._pages.stepped.add(page >> PAGE_SHIFT)
            return False
        if mm.has_pins:
            return False
        around: range | tuple[int, ...] = ()
        number = page >> PAGE_SHIFT
        if vma.backing and not vma.prot & PROT_WRITE:
            first = max(number & -AROUND, vma.start >> PAGE_SHIFT)
            around = range(first, min((number & -AROUND) + AROUND, vma.end >> PAGE_SHIFT))
        ready = self._pages.fetch(page, around)
        mm.forget_pages((number, *around))
        return ready

    def _step(self, thread: "Thread") -> None:
        """Step the thread as long as it stays on pages that must be stepped and nobody wants it."""
        program = ThreadProgram(thread, self)
        while True:
            exit = self._guard.step(program)
            if exit is SYSCALL:
                thread.serve_syscall()
                return
            if exit is not None:
                self._serve(thread, exit)
                return
            if thread.work or not self._guard.is_stepped(thread.gpr[RIP]):
                return

    def _step_once(self, thread: "Thread") -> None:
        try:
            exit = self._guard.step(ThreadProgram(thread, self), most=1)
        except OutOfMemory:
            faults.out_of_memory(thread)
            return
        if exit is SYSCALL:
            thread.serve_syscall()
        elif exit is not None:
            self._serve(thread, exit)

    @staticmethod
    def _serve(thread: "Thread", exit: Exit) -> None:
        """Serve what a step came to. An exception is the program's own: it was judged already."""
        if isinstance(exit, ProcessorException):
            faults.deliver(thread, exit)
        else:
            thread.serve(exit)

    def interrupted(self, thread: "Thread") -> None:
        """Let a trap come through that a kick has come before: RIP is behind its INT3, where no program ever is."""
        while self._guard.is_behind_trap(thread.gpr[RIP]):
            exit = thread.run_processor()
            if not isinstance(exit, Interrupted):
                thread.processor.kick()  # whoever wanted it back still does
                if exit is SYSCALL:
                    thread.serve_syscall()
                else:
                    thread.serve(exit)
                return

    def exception(self, thread: "Thread", event: ProcessorException) -> bool:
        """Deal with an exception that a trap may have caused; False when it is the program's own."""
        try:
            exit = self._guard.exception(ThreadProgram(thread, self), event)
        except OutOfMemory:
            faults.out_of_memory(thread)
            return True
        if exit is NOT_OURS:
            return False
        if exit is SYSCALL:
            thread.serve_syscall()
        elif exit is not None:
            self._serve(thread, exit)
        return True

    # ---- memory ----------------------------------------------------------------------------------------------------

    def read_code(self, address: int, size: int) -> bytes:
        """Return executable memory as the program wrote it, up to where execution must end. Raises GuestFault."""
        mm = self._mm
        with mm.lock:
            end = address
            while end < address + size:
                vma = mm.vmas.find(end) if USER_START <= end < USER_END else None
                if vma is None or not vma.prot & PROT_EXEC:
                    break
                end = min(vma.end, address + size)
            content = b""
            while address + len(content) < end:
                at = address + len(content)
                here = min(end, page_down(at) + PAGE) - at
                try:
                    content += self._pages.restore(at, mm.read(at, here))
                except LinuxError:
                    break
        if not content:
            raise GuestFault(Vector.PF, 0, address)
        return content


class ThreadProgram:
    """A stopped guest thread, as the guard sees it."""

    def __init__(self, thread: "Thread", executable: Executable) -> None:
        self._thread, self._executable = thread, executable
        self.processor: Processor = thread.processor

    @property
    def number(self) -> int:
        from enisle.kernel.calls.sched import processor_of

        return processor_of(self._thread)

    def fetch(self, address: int, size: int) -> bytes:
        return self._executable.read_code(address, size)

    def read(self, address: int, size: int) -> bytes:
        try:
            return self._thread.mm.read(address, size)
        except LinuxError:
            raise GuestFault(Vector.PF, 0, self._unreachable(address, size, False), False) from None

    def store(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        mm = self._thread.mm
        with mm.lock:
            for address, content in pieces:
                if mm.reach(address, len(content), True) < len(content):
                    raise GuestFault(Vector.PF, 0, self._unreachable(address, len(content), True), True)
            for address, content in pieces:
                mm.write(address, content)

    def _unreachable(self, address: int, size: int, write: bool) -> int:
        return Gva(address + self._thread.mm.reach(address, size, write))

    def run(self) -> Exit:
        return self._thread.run_processor()
