"""What a processor answers under a blocking value: CPUID, XCR0, sizes of the XSAVE area, AT_HWCAP, /proc/cpuinfo.

Everything is derived from the value and the CPUID table of the processor behind it, nothing is written by hand: what
is hidden is unavailable and the other way round. Immutable after it is made (it remembers answers); any thread.
"""

from functools import cached_property

from enisle.abi.cpuid import HYPERVISOR, ZERO, Answer, CpuidTable, Leaf
from enisle.abi.x86_features import (
    BITS,
    EAX,
    ECX,
    EDX,
    FEATURES,
    GATES,
    HWCAP2_FSGSBASE,
    KNOWN_LEAVES,
    STANDARD_LAYOUT,
    SYNTHETIC,
    U32,
    XCR0_BITS,
    XSAVE_LEAF,
    XSAVE_LEGACY_SIZE,
    Register,
    closed,
    needs_of,
)
from enisle.machine.blocking.value import BlockingValue

U64 = (1 << 64) - 1
BASIC_LIMIT = 0x4000_0000
ANSWERS_KEPT = 512
CET_STATES = 0b11 << 11
"""IA32_XSS: user and supervisor state of shadow stacks and indirect branch tracking (SDM 1 13.1)."""


class Queries:
    """The answers of one processor: `host_cpuid` is what the processor behind it says without a value.

    `real_xcr0` is what XSAVE really goes by where masking XCR0 has no effect on the processor; None: it has. Then the
    announced size still covers what XSAVE stores, or programs that trust it would be overwritten.
    """

    def __init__(self, value: BlockingValue, host_cpuid: CpuidTable, real_xcr0: int | None = None) -> None:
        self.value, self.host, self.real_xcr0 = value, host_cpuid, real_xcr0
        self.visible = visible(value, host_cpuid.features)
        """The names of all features that are announced, and may be used."""
        self._answers: dict[Leaf, Answer] = {}
        self._masks = self._make_masks()
        self._last_basic = max([host_cpuid.last(0), *self._emulated_leaves()])

    def _emulated_leaves(self) -> list[int]:
        added = self.visible - self.host.features
        return [FEATURES[name].leaf for name in added if FEATURES[name].leaf < BASIC_LIMIT]

    def _make_masks(self) -> dict[Register, tuple[int, int]]:
        """Return for each register that holds features which bits stay and which are added."""
        masks: dict[Register, tuple[int, int]] = {}
        for place, names in BITS.items():
            shown = sum(1 << bit for bit, name in names.items() if name in self.visible)
            named = sum(1 << bit for bit in names)
            own = sum(1 << bit for bit, name in names.items() if name in self.visible and FEATURES[name].place == place)
            added = own & sum(1 << bit for bit, name in names.items() if name not in self.host.features)
            masks[place] = (shown if self.value.strict else U32 & ~named | shown), added
        return masks

    @property
    def missing(self) -> frozenset[str]:
        """What the value demands and this processor cannot show."""
        return self.value.demands - self.visible

    # ---- CPUID -----------------------------------------------------------------------------------------------------

    def cpuid(self, leaf: int, subleaf: int = 0) -> Answer:
        """Return EAX, EBX, ECX, EDX for a leaf and subleaf as EAX and ECX hold them."""
        asked = leaf & U32, subleaf & U32
        known = self._answers.get(asked)
        if known is None:
            known = self._derive(*self._resolve(*asked))
            if len(self._answers) < ANSWERS_KEPT:
                self._answers[asked] = known
        return known

    def _derive(self, leaf: int, subleaf: int) -> Answer:
        answer = list(self.host.entries.get((leaf, subleaf)) or self.host.get(leaf, subleaf))
        if self._is_hidden(leaf):
            return ZERO
        if leaf == XSAVE_LEAF:
            answer = self._xsave_leaf(subleaf, answer)
        elif leaf == 0:
            answer[EAX] = self._last_basic
        for register in range(4):
            stays, added = self._masks.get((leaf, subleaf, register), (U32, 0))
            answer[register] = (answer[register] & stays | added) & self._raw_mask(leaf, subleaf, register)
        return answer[0], answer[1], answer[2], answer[3]

    def _raw_mask(self, leaf: int, subleaf: int, register: int) -> int:
        return self.value.masks.get((leaf, subleaf, register), U32)

    def _resolve(self, leaf: int, subleaf: int) -> tuple[int, int]:
        if self.host.last(0) < leaf <= self._last_basic:
            return leaf, subleaf
        return self.host.resolve(leaf, subleaf)

    def _is_hidden(self, leaf: int) -> bool:
        gates = GATES.get(leaf)
        if gates is not None and self.visible.isdisjoint(gates):
            return not self.host.features.isdisjoint(gates) or self.value.strict
        return self.value.strict and leaf & 0xC000_0000 != HYPERVISOR and leaf not in KNOWN_LEAVES

    # ---- XSAVE -----------------------------------------------------------------------------------------------------

    @cached_property
    def xcr0(self) -> int:
        """The components of the XSAVE area that are enabled."""
        return sum(1 << bit for bit, name in XCR0_BITS.items() if name in self.visible)

    @cached_property
    def layout(self) -> dict[int, tuple[int, int]]:
        """Offset and size of each component beyond the first two."""
        return {
            bit: self.host.layout().get(bit) or STANDARD_LAYOUT[bit]
            for bit in XCR0_BITS
            if self.xcr0 >> bit & 1 and bit >= 2
        }

    @cached_property
    def xsave_size(self) -> int:
        """Bytes of a standard-format XSAVE area of the enabled components (SDM 1 13.4.3)."""
        return max([XSAVE_LEGACY_SIZE, *(offset + size for offset, size in self.layout.values())])

    @cached_property
    def stored(self) -> dict[int, tuple[int, int]]:
        """Offset and size of what XSAVE may store: where it goes by another XCR0 than is announced, more than `layout`.

        glibc saves with a mask of its own and takes the sizes from here; XRSTOR then touches all that XCOMP_BV names.
        """
        real = self.real_xcr0 or 0
        return {bit: place for bit, place in self.host.layout().items() if real >> bit & 1} | self.layout

    @property
    def announced_xsave_size(self) -> int:
        """What leaf 0xD says: the size of all that is stored."""
        return max([XSAVE_LEGACY_SIZE, *(offset + size for offset, size in self.stored.values())])

    def _xsave_leaf(self, subleaf: int, answer: list[int]) -> list[int]:
        if "xsave" not in self.visible or (not self.value.strict and self.xcr0 == self.host.xcr0):
            return answer  # nothing is hidden: the processor's own words, disabled components too
        if subleaf == 0:
            return [answer[EAX], self.announced_xsave_size, self.announced_xsave_size, 0]
        if subleaf == 1:
            supervisor = answer[ECX] if "xsaves" in self.visible else 0
            if self.visible.isdisjoint(("shstk", "ibt")):
                supervisor &= ~CET_STATES
            return [answer[EAX], self._compact_size(), supervisor, 0]
        if subleaf in self.stored:
            offset, size = self.stored[subleaf]
            return [size, offset, answer[ECX], 0]
        user = subleaf in XCR0_BITS or "xsaves" not in self.visible
        return [0, 0, 0, 0] if user else answer

    def _compact_size(self) -> int:
        """Return the size of a compacted area of all that is stored (SDM 1 13.4.3)."""
        end = XSAVE_LEGACY_SIZE
        for bit, (_, size) in sorted(self.stored.items()):
            if self.host.entries.get((XSAVE_LEAF, bit), ZERO)[ECX] & 2:
                end = end + 63 & ~63
            end += size
        return end

    def xgetbv(self, index: int, in_use: int = U64) -> int | None:
        """Return an extended control register, None where XGETBV faults; `in_use` are the components not initial."""
        if index & U32 == 0 and "osxsave" in self.visible:
            return self.xcr0
        if index & U32 == 1 and "xgetbv1" in self.visible:
            return self.xcr0 & in_use
        return None

    # ---- what Linux tells ------------------------------------------------------------------------------------------

    @property
    def hwcap(self) -> int:
        """AT_HWCAP: CPUID leaf 1 EDX (ELF_HWCAP in arch/x86/include/asm/elf.h)."""
        return self.cpuid(1)[EDX]

    @property
    def hwcap2(self) -> int:
        """AT_HWCAP2 as far as the processor is concerned (arch/x86/include/uapi/asm/hwcap2.h)."""
        return HWCAP2_FSGSBASE if "fsgsbase" in self.visible else 0

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """The flags of /proc/cpuinfo, with those that Linux adds on its own."""
        printed = [name for name, feature in FEATURES.items() if feature.printed and name in self.visible]
        added = [name for name, needs in SYNTHETIC.items() if self.visible.issuperset(needs)]
        return (*printed, *added)

    def cpuinfo(self) -> dict[str, str]:
        """Return the lines of /proc/cpuinfo that tell what the processor is (arch/x86/kernel/cpu/proc.c)."""
        family, model, stepping = self.host.model
        return {
            "vendor_id": self.host.vendor,
            "cpu family": str(family),
            "model": str(model),
            "stepping": str(stepping),
            "model name": self.host.brand or "unknown",
            "cpuid level": str(self.cpuid(0)[EAX]),
            "flags": " ".join(self.flags),
        }


def visible(value: BlockingValue, present: frozenset[str]) -> frozenset[str]:
    """Return the features that are announced: permitted and present, or emulated with what they need."""
    emulated = value.emulated
    for name in tuple(emulated):
        emulated |= needs_of(name) & value.features
    return closed(present & value.features | emulated) if value.actions or value.strict else present
