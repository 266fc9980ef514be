"""What a machine with a blocking value does about it: the tiers, the scanner, and what a processor has to look out for.

Made once with the machine, before any guest runs and before an island's door closes; whether this host can do what the
value's policy asks for has been decided by then (`blocking.admission`). Immutable but for counters; any thread.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.abi import tsc
from enisle.abi.types import Gpa
from enisle.machine.blocking.instructions import OF_FEATURE, Instruction
from enisle.machine.blocking.query import Queries
from enisle.machine.blocking.value import BlockingValue
from enisle.machine.enforcement import hardware
from enisle.machine.enforcement.audit import Auditor
from enisle.machine.enforcement.guard import Guard
from enisle.machine.enforcement.lacking import Lacking
from enisle.machine.enforcement.opcodes import CODED, traps_of
from enisle.machine.enforcement.pages import TextCache
from enisle.machine.enforcement.perform import ProcessorAnswers
from enisle.machine.enforcement.scan import Scanner
from enisle.machine.enforcement.tiers import CONTROLS, MAPS, Tier, TierTable, probe_controls
from enisle.machine.pagetables import AddressSpace
from enisle.machine.processor import Processor
from enisle.records import Record

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from enisle.machine.machine import Machine

HARDWARE = frozenset(CONTROLS) | {Instruction.CPUID}
X87_SSE, PKRU = 3, 1 << 9
NATIVE_FAULTS = (Instruction.RDMSR, Instruction.WRMSR, Instruction.RDPMC, Instruction.XSETBV)
"""Instructions that fault in ring 3 of their own, where the probe has seen it."""


class EnforcementStatistics(Record):
    """What blocking has cost so far."""

    pages_scanned: int
    pages_known: int
    text_frames: int
    trapped: int
    """Trapped instructions that were judged."""
    blocked: int
    steps: int
    """Runs executed out of line."""
    audits: int
    offences: int
    """Uses of vector state that was not permitted."""


class Enforcement:
    """The enforcing side of `machine.blocking`."""

    def __init__(self, machine: "Machine", cached: bool = True) -> None:
        assert machine.blocking
        assert machine.queries
        self.value: BlockingValue = machine.blocking
        self.queries: Queries = machine.queries
        self.matrix = probe_controls(machine.backend, cached)
        self.tiers = TierTable(self.matrix, self.value)
        self.scanner = Scanner(traps_of(self._coded(), self._features(), self._faulting()))
        self.text = TextCache(machine.memory)
        self.counts: Counter[str] = Counter()
        real = machine.queries.host.xcr0
        self.forbidden_state = real & ~machine.queries.xcr0 & ~(X87_SSE | PKRU) if self.matrix.audit else 0
        """Components of the XSAVE area that no program may have in use."""
        self.auditor = Auditor(self.forbidden_state, self.counts) if self.forbidden_state else None
        self.uses_hardware = any(self.tiers[kind].tier == Tier.HW for kind in HARDWARE & self.value.trapped())
        """A processor is told what to refuse, before its first run."""
        self.counter_offset = 0
        self.lacking = Lacking(machine.queries, machine.trap_code)
        """What software executes because the processor cannot."""
        self._prepare()

    def _coded(self) -> list[Instruction]:
        """Return the coded classes to look for: trapped, and not kept by a control of the processor."""
        return [kind for kind in self.value.trapped() if kind in CODED and self.tiers[kind].tier != Tier.HW]

    def _faulting(self) -> frozenset[Instruction]:
        return frozenset(kind for kind in NATIVE_FAULTS if self.tiers[kind].tier == Tier.HW)

    def _features(self) -> set[str]:
        """Return the features whose instructions are looked for: announced or not, the processor may execute them."""
        return {
            name
            for name in self.value.actions
            if name in OF_FEATURE and self.tiers[OF_FEATURE[name][0]].tier != Tier.HW
        }

    def _prepare(self) -> None:
        """Import and map what must be there before an island's door closes."""
        from enisle.machine.software import execute
        from enisle.machine.software.opcodes import rules

        execute.table()
        for encoding, numbers in MAPS.items():
            for number in numbers:
                rules(encoding, number)
        tsc.reader()()

    def prepare_processor(self, processor: Processor) -> None:
        """Do what a new processor needs before its first run. Raises HostError."""
        if self.uses_hardware:
            hardware.apply(processor, self)
        if self.auditor:
            self.auditor.attach(processor)

    def close(self) -> None:
        if self.auditor:
            self.auditor.close()

    # ---- for processors ----------------------------------------------------------------------------------------------

    def guard(
        self, space: AddressSpace, lock: "AbstractContextManager[bool]", release: Callable[[Gpa, int], None]
    ) -> Guard:
        """Return the guard of one address space; `release` drops a reference of frames that are no longer mapped."""
        return Guard(self, space, lock, release)

    def answers(self, processor: Processor, number: Callable[[], int] = lambda: 0) -> ProcessorAnswers:
        return ProcessorAnswers(self.queries, processor, self.counter_offset, number)

    def covers_counter(self) -> bool:
        """Return whether programs must not read the time-stamp counter by themselves."""
        return bool({Instruction.RDTSC, Instruction.RDTSCP} & self.value.trapped())

    def statistics(self) -> EnforcementStatistics:
        counts = self.counts
        return EnforcementStatistics(
            self.scanner.scanned,
            self.scanner.remembered,
            len(self.text),
            counts["trapped"],
            counts["blocked"],
            counts["steps"],
            counts["audits"],
            counts["offences"],
        )
