"""The guard of one address space: what it does when a processor meets a trap, or code that may only be stepped.

It owns the pages' states and the slots where single runs execute. The kernel room gives it a `Program` for the thread
that stopped, and takes back an `Exit` to serve as if the processor had brought it, or None: the thread runs on.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, RIP, Vector
from enisle.machine import layout
from enisle.machine.blocking.instructions import Action, Instruction
from enisle.machine.enforcement.audit import Offence
from enisle.machine.enforcement.control import is_control, is_system_call, transfer
from enisle.machine.enforcement.outofline import INT3, LONGEST_RUN, Run, give_back, lend, plan
from enisle.machine.enforcement.pages import CodePages
from enisle.machine.enforcement.perform import Judgement, ProcessorContext, judge, perform
from enisle.machine.enforcement.program import Program, Slot, as_exit, undecodable
from enisle.machine.pagetables import AddressSpace
from enisle.machine.processor import SYSCALL, Exit, Interrupted, PageFault, Processor, ProcessorException
from enisle.machine.software import decode as decoder
from enisle.machine.software import execute as software
from enisle.machine.software.context import Context, Fault
from enisle.machine.software.context import Fault as GuestFault
from enisle.machine.software.decode import LONGEST, decode_at

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from enisle.machine.enforcement.enforcement import Enforcement

PRIVILEGED = frozenset(Instruction(name) for name in ("rdmsr", "wrmsr", "rdpmc", "xsetbv", "cpuid", "rdtsc", "rdtscp"))
"""Instructions that fault with #GP where a control of the processor, or their privilege, keeps them from ring 3."""
CAUGHT = (Vector.UD, Vector.BP, Vector.GP)
FETCHED = 384
"""Bytes read for one run."""
RUNS_KEPT = 256


class NotOurs(Exit):
    """The exception is the program's own."""

    __slots__ = ()


NOT_OURS = NotOurs()


class Guard:
    """Guards one address space. `lock` is the space's; callers hold it wherever they touch `pages`, nobody in a run."""

    def __init__(
        self,
        enforcement: "Enforcement",
        space: AddressSpace,
        lock: "AbstractContextManager[bool]",
        release: Callable[[Gpa, int], None],
    ) -> None:
        self.enforcement, self.space, self._lock = enforcement, space, lock
        self.pages = CodePages(space, enforcement.scanner, enforcement.text, release)
        if enforcement.lacking.traps:
            enforcement.lacking.traps.begin(space.root)
            self.pages.traps = enforcement.lacking.traps
        self._slots: dict[int, Slot] = {}
        self._runs: dict[tuple[int, int], Run] = {}
        self._seen: dict[int, tuple[int, object]] = {}
        self._unmovable: set[bytes] = set()

    # ---- exceptions ------------------------------------------------------------------------------------------------

    def exception(self, program: Program, event: ProcessorException) -> Exit | None:
        """Deal with an exception; NOT_OURS when it is the program's own business. Raises OutOfMemory."""
        gpr = program.processor.gpr
        if isinstance(event, Offence) or event.vector not in CAUGHT or gpr[RIP] >= layout.USER_END:
            return NOT_OURS
        address = gpr[RIP] - (event.vector == Vector.BP)
        page = self.pages.code.get(address >> 12)
        trapped = page.trapped.get(address) if page and event.vector == Vector.UD else None
        if trapped:  # a place of ours that has been met before: nobody can write there
            found = judge(self.enforcement.value, trapped, gpr)
            if found:
                return self._perform(program, trapped, found)
            if trapped.bytes in self._unmovable:
                return self._substitute(program, trapped)
        try:
            code = program.fetch(address, 2 * LONGEST)
        except Fault:
            return NOT_OURS
        instruction = decode_at(code, 0, address)
        if event.vector == Vector.GP:
            return self._protected(program, instruction)
        if instruction and event.vector == Vector.UD and self.enforcement.lacking.wants(instruction, gpr):
            return self._in_software(program)
        length = instruction.length if instruction else 1
        if self.pages.is_changed(address, length):
            if instruction and page and event.vector == Vector.UD and self._is_constant(address, length):
                page.trapped[address] = instruction
            gpr[RIP] = address
            return self._execute(program, code, instruction, most=1)
        if self._is_judged(instruction, program.processor):
            gpr[RIP] = address
            return self._execute(program, code, instruction, most=1)
        if self._is_own(event.vector, instruction) or self._seen_before(program.processor, address):
            return NOT_OURS
        gpr[RIP] = address  # the page changed after the processor had stopped there: look again
        return None

    def _is_constant(self, address: int, length: int) -> bool:
        """Return whether an instruction stays as it is as long as its page is code, and the value alone judges it."""
        return address >> 12 == (address + length - 1) >> 12 and not self.enforcement.lacking.features

    def _protected(self, program: Program, instruction: decoder.Instruction | None) -> Exit | None:
        """RDMSR and its like fault by themselves in ring 3; the value may answer or fault differently."""
        if instruction is None:
            return NOT_OURS
        found = judge(self.enforcement.value, instruction, program.processor.gpr)
        if found is None or found.kind not in PRIVILEGED:
            return NOT_OURS
        return self._perform(program, instruction, found)

    def _is_judged(self, instruction: decoder.Instruction | None, processor: Processor) -> bool:
        """Return whether the value has something to say of an instruction that the processor does not know."""
        if instruction is None:
            return False
        found = judge(self.enforcement.value, instruction, processor.gpr)
        return found is not None and found.action != Action.ALLOW

    @staticmethod
    def _is_own(vector: int, instruction: decoder.Instruction | None) -> bool:
        """Return whether what stands in memory raises the exception by itself."""
        if instruction is None or instruction.kind == decoder.UNDEFINED:
            return vector == Vector.UD
        return vector == Vector.BP and instruction.kind == decoder.INTERRUPT

    def _seen_before(self, processor: Processor, address: int) -> bool:
        """Return whether the same place of the same page has already been tried again."""
        page = self.pages.code.get(address >> 12)
        if page is None:  # not executable any more: what raised the exception has been written over meanwhile
            return False
        before = self._seen.get(id(processor))
        self._seen[id(processor)] = (address, page)
        return before is not None and before[0] == address and before[1] is page

    # ---- steps -----------------------------------------------------------------------------------------------------

    def step(self, program: Program, most: int = LONGEST_RUN) -> Exit | None:
        """Execute up to `most` instructions at RIP under judgement; return what must be served, None to go on.

        RIP is the program's own in every case. Raises OutOfMemory.
        """
        gpr = program.processor.gpr
        try:
            code = program.fetch(gpr[RIP], 2 * LONGEST if most == 1 else FETCHED)
        except Fault as fault:
            return PageFault(Gva(fault.address), False, True, False)
        return self._execute(program, code, decode_at(code, 0, gpr[RIP]), most)

    def _execute(
        self, program: Program, code: bytes, instruction: decoder.Instruction | None, most: int
    ) -> Exit | None:
        """Execute the instruction at RIP, with which `code` begins, and perhaps what follows."""
        gpr = program.processor.gpr
        if instruction is None:
            return undecodable(code, gpr[RIP])
        if self.enforcement.lacking.wants(instruction, gpr):
            return self._in_software(program)
        found = judge(self.enforcement.value, instruction, gpr)
        if found:
            return self._perform(program, instruction, found)
        if is_control(instruction):
            outcome = transfer(instruction, self._context(program))
            return SYSCALL if is_system_call(instruction) else as_exit(outcome)
        return self._run(program, code, instruction, most)

    def _in_software(self, program: Program) -> Exit | None:
        """Execute what the processor lacks; #UD where no software is there for it."""
        enforcement = self.enforcement
        answers = enforcement.answers(program.processor, lambda: program.number)
        outcome = enforcement.lacking.execute(self._context(program), answers, program.fetch)
        if outcome is True:
            return None
        return as_exit(outcome) if outcome else ProcessorException(Vector.UD, 0)

    def _perform(self, program: Program, instruction: decoder.Instruction, found: Judgement) -> Exit | None:
        enforcement = self.enforcement
        enforcement.counts["trapped"] += 1
        enforcement.counts["blocked"] += found.action == Action.BLOCK
        answers = enforcement.answers(program.processor, lambda: program.number)
        return as_exit(perform(enforcement.value, answers, instruction, found, self._context(program)))

    def _context(self, program: Program) -> ProcessorContext:
        return ProcessorContext(program.processor, program.read, program.store, self.enforcement.lacking.zmm_high)

    def _substitute(self, program: Program, instruction: decoder.Instruction) -> Exit | None:
        """Execute in software a permitted instruction whose copy would hold a trapped opcode: CRC32 is MOVBE behind F2.

        #UD where no software is there for it.
        """
        answers = self.enforcement.answers(program.processor, lambda: program.number)
        context = self._context(program)
        result = software.execute(instruction, cast("Context", context), answers)
        if result.outcome == software.UNSUPPORTED:
            return ProcessorException(Vector.UD, 0)
        context.finish()
        return as_exit(result.fault)

    def _run(self, program: Program, code: bytes, instruction: decoder.Instruction, most: int) -> Exit | None:
        """Execute a run out of line that begins with `instruction`."""
        processor = program.processor
        gpr, slot = processor.gpr, self._slot(processor)
        run = self._planned(code, gpr[RIP], slot, processor, most)
        if run is None:  # there is no way to execute it without making a trap executable
            if len(self._unmovable) < RUNS_KEPT:
                self._unmovable.add(instruction.bytes)
            return self._substitute(program, instruction)
        self.enforcement.counts["steps"] += 1
        slot.load(run.content)
        before = lend(run, gpr)
        gpr[RIP] = slot.address
        exit, kicked = program.run(), False
        # INT3's exception may be on its way, or get lost with the kick: then the INT3 after it comes to be executed.
        while isinstance(exit, Interrupted) and 0 <= gpr[RIP] - slot.address <= len(run.content):
            kicked = True
            exit = program.run()
        if kicked:
            processor.kick()  # whoever wanted it back still does
        offset = gpr[RIP] - slot.address
        behind = offset - len(run.content)
        if isinstance(exit, ProcessorException) and exit.vector == Vector.BP and behind in (0, 1):
            gpr[RIP] = run.marks[-1][1]
            give_back(run, gpr, before, done=True)
            return None
        address = run.address_at(offset)
        if address is not None:
            gpr[RIP] = address
        give_back(run, gpr, before, done=address == run.marks[-1][1])
        if address is None and isinstance(exit, ProcessorException):  # it returned far, and ran on elsewhere
            served = self.exception(program, exit)
            return exit if served is NOT_OURS else served
        return exit

    def _planned(self, code: bytes, address: int, slot: Slot, processor: Processor, most: int) -> Run | None:
        """Return a run, the one made before if the same bytes still stand there and no register was lent to it."""
        key = address, slot.address
        known = self._runs.get(key) if most > 1 else None
        if known and code.startswith(known.source):
            return known
        value, lacking = self.enforcement.value, self.enforcement.lacking
        gpr = processor.gpr

        def is_harmless(it: decoder.Instruction) -> bool:
            return judge(value, it, gpr) is None and not lacking.wants(it, gpr) and not lacking.misleads(it)

        run = plan(code, gpr, slot.address, self.enforcement.scanner, is_harmless, most)
        if run and not run.lent and most > 1:
            if len(self._runs) >= RUNS_KEPT:
                self._runs.clear()
            self._runs[key] = run
        return run

    def _slot(self, processor: Processor) -> Slot:
        slot = self._slots.get(id(processor))
        if slot is None:
            with self._lock:
                address = layout.STEPS + PAGE * len(self._slots)
                assert address < layout.STEPS_END, "more threads than slots"
                slot = self._slots[id(processor)] = Slot(self.space, address)
        return slot

    def is_behind_trap(self, address: int) -> bool:
        """Return whether an INT3 of ours stands right before `address`."""
        with self._lock:
            if not self.pages.is_changed(address - 1):
                return False
            leaf = self.space.entry(address - 1)
            frame = Gpa(leaf & PTE_ADDRESS)
            return self.space.memory.read(Gpa(frame + (address - 1) % PAGE), 1) == INT3

    def is_stepped(self, address: int) -> bool:
        return address >> 12 in self.pages.stepped


__all__ = ["NOT_OURS", "Guard", "GuestFault", "Program", "Slot", "as_exit"]
