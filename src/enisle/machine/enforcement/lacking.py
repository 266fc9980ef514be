"""Functions that a value shows although the processor lacks them: software executes their instructions.

What they are follows from the answers: visible and not the processor's own. A processor raises #UD at such an
instruction; the emulated one, which takes some for others, is stopped there (`emulated_traps`). Any thread.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.abi.x86_features import NAMES
from enisle.machine.blocking.instructions import Action
from enisle.machine.enforcement.perform import ProcessorAnswers, ProcessorContext, judge
from enisle.machine.processor import Registers
from enisle.machine.software.decode import Instruction
from enisle.machine.software.features import features_of
from enisle.machine.software.opcodes import VEX, Features
from enisle.machine.software.run import Fetch, try_execute

if TYPE_CHECKING:
    from enisle.machine.blocking.query import Queries
    from enisle.machine.emulated_traps import CodeTraps
    from enisle.machine.software.context import Fault

GENERAL = frozenset(("bmi1", "bmi2"))
"""VEX-encoded features that have to do with general registers alone."""
ZMM_HIGH = 6
"""The component of bits 256-511 of the vector registers (SDM 1 13.1)."""
OF_XSAVE = frozenset(("xsave", "xsaveopt", "xsavec", "xgetbv1"))


class Lacking:
    """What software has to execute on one machine."""

    def __init__(self, queries: "Queries", make_traps: "Callable[[], CodeTraps | None]") -> None:
        """`make_traps`: makes its processors stop before AVX instructions, if they have to be stopped."""
        self._value, self._visible = queries.value, queries.visible
        self.features = queries.visible - queries.host.features
        if "osxsave" in self.features:  # CR4.OSXSAVE is clear: these are undefined (SDM 1 13.2)
            self.features |= OF_XSAVE & queries.visible
        self.traps = make_traps() if "avx" in self.features else None
        self.zmm_high = queries.host.layout().get(ZMM_HIGH, (None, 0))[0]
        self._wanted: dict[Features, bool] = {}
        """Of VEX-encoded instructions, where features alone decide."""
        self.executed = 0

    def wants(self, instruction: Instruction, gpr: Registers) -> bool:
        """Return whether software executes the instruction instead of the processor."""
        if instruction.encoding != VEX:
            return self._examine(instruction, gpr)
        wanted = self._wanted.get(instruction.features)
        if wanted is None:
            wanted = self._wanted[instruction.features] = self._examine(instruction, gpr)
        return wanted

    def _examine(self, instruction: Instruction, gpr: Registers) -> bool:
        needed = features_of(instruction)
        # The end of a page can hide which VEX instruction it is: the processor is stopped there all the same.
        stopped = self.traps is not None and instruction.encoding == VEX and not GENERAL.isdisjoint(needed)
        if self.features.isdisjoint(needed) and not stopped:
            return False
        if not self._visible.issuperset(NAMES.intersection(needed)):
            return False
        found = judge(self._value, instruction, gpr)
        return found is None or found.action != Action.BLOCK

    def misleads(self, instruction: Instruction) -> bool:
        """Return whether the processor would execute something else than the instruction."""
        return self.traps is not None and instruction.encoding == VEX and GENERAL.isdisjoint(instruction.features)

    def execute(self, context: ProcessorContext, answers: ProcessorAnswers, fetch: Fetch) -> "bool | Fault":
        """Execute the instruction at RIP and those like it that follow; see `try_execute`."""
        outcome = try_execute(context, answers, fetch, lambda instruction: self.wants(instruction, context.gpr))
        context.finish()
        self.executed += 1
        return outcome
