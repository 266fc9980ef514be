"""The blocking value of a virtual processor: which functions of which instructions it may execute.

Immutable, comparable, hashed: two values that permit the same are equal and have one `digest`. Says nothing of a
host; `query.Queries` joins a value with a processor's CPUID. Values compose by what all levels permit. Any thread.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property, reduce
from typing import Any

from enisle.abi.x86_features import BITS, FEATURES, GATES, KNOWN_LEAVES, NAMES, U32, XCR0_BITS, Register, dependents_of
from enisle.machine.blocking import wire
from enisle.machine.blocking.codes import CodeTable, SecondLevel, merge, strictest, strictest_second
from enisle.machine.blocking.instructions import (
    CODE_WIDTH,
    LEVELS,
    OF_FEATURE,
    OUTCOMES,
    REQUIRE,
    UD,
    Action,
    Instruction,
    Outcome,
    Refusal,
)

__all__ = ["Action", "BlockingValue", "CodeTable", "Instruction", "Outcome", "Refusal", "SecondLevel"]

ALLOW, EMULATE, BLOCK = Action.ALLOW, Action.EMULATE, Action.BLOCK
XCR0_NAMES = frozenset(XCR0_BITS.values())
PERFORMANCE = ("pdcm", "arch_perfmon_ext", "perfctr_core", "perfctr_nb", "perfctr_llc", "perfmon_v2")
PERFORMANCE_LEAVES = (0xA, 0x23)
TABLES = (
    Instruction.CPUID,
    Instruction.XGETBV,
    Instruction.XSETBV,
    Instruction.RDMSR,
    Instruction.WRMSR,
    Instruction.RDPMC,
    Instruction.VMCALL,
)
"""Classes with a table of codes; the others follow from features, or are system calls."""
FREE = CodeTable()
ACTIONS, REFUSALS = tuple(Action), tuple(Refusal)
NOTHING: tuple[dict[int, int], int] = ({}, 0)


class BlockingValue:
    """What a virtual processor permits; everything not named is allowed.

    `features`: names of CPUID features that are blocked or emulated. `strict`: bits of feature registers without a
    name are hidden. `masks`: bits of other CPUID registers that stay. `tables`: actions by function code.
    `calls`, `seconds`: refusals by number of a system call, and by its argument. `demands`: features a processor must
    have. `require`: how well every block must hold (`instructions.REQUIRE`).
    """

    def __init__(
        self,
        name: str = "",
        *,
        features: Mapping[str, Action] | None = None,
        strict: bool = False,
        masks: Mapping[Register, int] | None = None,
        tables: Mapping[Instruction, CodeTable] | None = None,
        calls: CodeTable = FREE,
        seconds: Mapping[int, SecondLevel] | None = None,
        outcomes: Mapping[Instruction, Outcome] | None = None,
        answers: Mapping[tuple[Instruction, int], int] | None = None,
        demands: Iterable[str] = (),
        require: str = "none",
    ) -> None:
        self.name, self.strict, self.require = name, strict, require
        self.tables = {key: entry for key, entry in (tables or {}).items() if entry != FREE}
        kept = {place: mask & U32 for place, mask in (masks or {}).items() if mask & U32 != U32}
        if self._table(Instruction.RDPMC).freest == BLOCK:
            kept |= {(leaf, 0, register): 0 for leaf in PERFORMANCE_LEAVES for register in range(4)}
        hidden = {
            name for place, mask in kept.items() for bit, name in BITS.get(place, {}).items() if not mask >> bit & 1
        }
        unnamed = {place: mask | sum(1 << bit for bit in BITS.get(place, ())) for place, mask in kept.items()}
        self.masks = {place: mask for place, mask in unnamed.items() if mask != U32}
        self.actions = self._derive({**(features or {}), **dict.fromkeys(hidden, BLOCK)})
        """The action of each feature that is not simply allowed."""
        self.calls = calls
        self.seconds = {number: second for number, second in (seconds or {}).items() if second.table != FREE}
        self.outcomes = dict(outcomes or {})
        self.answers = dict(answers or {})
        self.demands = frozenset(demands)
        assert self.actions.keys() <= NAMES, f"{self.actions.keys() - NAMES=}"
        assert set(self.tables) <= set(TABLES), f"{self.tables=}"
        assert require in REQUIRE, f"{require=}"

    def _derive(self, features: Mapping[str, Action]) -> dict[str, Action]:
        """Return the actions of features, with what follows: what needs a blocked one, what a class stands for."""
        blocked = {name for name, action in features.items() if action == BLOCK}
        if self._table(Instruction.RDPMC).freest == BLOCK:
            blocked.update(PERFORMANCE)
        if self._table(Instruction.RDMSR).freest == self._table(Instruction.WRMSR).freest == BLOCK:
            blocked.add("msr")
        if self._table(Instruction.XGETBV).at(0) == BLOCK:
            blocked.add("osxsave")
        if self._table(Instruction.XGETBV).at(1) == BLOCK:
            blocked.add("xgetbv1")
        for name in list(blocked):
            blocked |= dependents_of(name)
        emulated = {name: EMULATE for name, action in features.items() if action == EMULATE and name not in blocked}
        return emulated | dict.fromkeys(blocked, BLOCK)

    def _table(self, instruction: Instruction) -> CodeTable:
        return self.tables.get(instruction, FREE)

    # ---- questions -------------------------------------------------------------------------------------------------

    def judge(self, instruction: Instruction, code: int = 0, subcode: int = 0) -> Action:
        """Return what becomes of one function: `code` as the register holds it, `subcode` the second level.

        Codes by `instructions.CODES`; for levels the index in `instructions.LEVELS`. The subcode is CPUID's ECX, or
        the argument of a system call.
        """
        code &= CODE_WIDTH.get(instruction, U32)
        if instruction is Instruction.SYSCALL:
            return BLOCK if self.refusal(code, subcode) else ALLOW
        if instruction in LEVELS:
            features = LEVELS[instruction]
            return (
                self.actions.get(features[code], ALLOW)
                if code < len(features)
                else self.actions.get(features[0], ALLOW)
            )
        codes, default = self._codes.get(instruction, NOTHING)
        action = ACTIONS[codes.get(code, default)]
        if instruction is Instruction.CPUID and action == ALLOW and self.masks_answer(code, subcode & U32):
            return EMULATE
        if instruction is Instruction.XGETBV and action < BLOCK:
            return self._judge_xgetbv(code, action)
        return action

    @cached_property
    def _codes(self) -> dict[Instruction, tuple[dict[int, int], int]]:
        return {instruction: (dict(entry.codes), entry.default) for instruction, entry in self.tables.items()}

    def _judge_xgetbv(self, code: int, action: Action) -> Action:
        needed = "osxsave" if code == 0 else "xgetbv1" if code == 1 else ""
        if self.actions.get(needed) == BLOCK:
            return BLOCK
        return EMULATE if code <= 1 and self._masks_xcr0 else action

    @cached_property
    def _masks_xcr0(self) -> bool:
        return not XCR0_NAMES.isdisjoint(self.actions)

    @cached_property
    def _masked_leaves(self) -> frozenset[tuple[int, int]]:
        """Leaf and subleaf of each register that is not passed on as it is."""
        named = FEATURES.values() if self.strict else (FEATURES[name] for name in self.actions)
        places = {(feature.leaf, feature.subleaf) for feature in named}
        places |= {(leaf, subleaf) for leaf, subleaf, _ in self.masks}
        if self._masks_xcr0:  # sizes follow the components
            places |= {(0xD, 0), (0xD, 1), *((0xD, bit) for bit, name in XCR0_BITS.items() if name in self.actions)}
        places |= {(leaf, 0) for leaf, gates in GATES.items() if any(self.actions.get(name) == BLOCK for name in gates)}
        if (1, 0) in places:
            places.add((0x8000_0001, 0))  # repeats bits of leaf 1 on some processors
        return frozenset(places)

    def masks_answer(self, leaf: int, subleaf: int = 0) -> bool:
        """Return whether CPUID's answer may differ from the processor's own."""
        if self.strict and leaf not in KNOWN_LEAVES:
            return True
        return (leaf, subleaf) in self._masked_leaves or (leaf, 0) in self._masked_leaves

    def refusal(self, number: int, argument: int = 0) -> Refusal:
        """Return what system call `number` answers, `NONE` when it is served; `argument` is its second level."""
        codes, default = self._calls
        number &= U32
        entry = codes.get(number, default)
        second = self._seconds.get(number)
        if second:
            codes, default, flags = second
            own = flags.at_flags(argument) if flags else codes.get(argument & U32, default)
            entry = own if own > entry else entry
        return REFUSALS[entry]

    @cached_property
    def _calls(self) -> tuple[dict[int, int], int]:
        return dict(self.calls.codes), self.calls.default

    @cached_property
    def _seconds(self) -> dict[int, tuple[dict[int, int], int, CodeTable | None]]:
        """Codes, default, and the table where flags count."""
        return {
            number: (dict(second.table.codes), second.table.default, second.table if second.flags else None)
            for number, second in self.seconds.items()
        }

    @property
    def refuses_calls(self) -> bool:
        """Whether any system call is refused."""
        return self.calls != FREE or bool(self.seconds)

    def outcome(self, instruction: Instruction) -> Outcome:
        """Return the program exception of a blocked function of the class."""
        given = self.outcomes.get(instruction)
        if given:
            return given
        if instruction is Instruction.XGETBV and self.actions.get("osxsave") == BLOCK:
            return UD  # SDM 2, XGETBV: CR4.OSXSAVE is clear
        return OUTCOMES.get(instruction, UD)

    def answer(self, instruction: Instruction, code: int) -> int | None:
        """Return what an emulated function answers when the value says so (the content of an MSR), else None."""
        return self.answers.get((instruction, code & CODE_WIDTH.get(instruction, U32)))

    @cached_property
    def _trapped(self) -> frozenset[Instruction]:
        found = {OF_FEATURE[name][0] for name in self.actions if name in OF_FEATURE}
        found |= self.tables.keys()
        if self._masked_leaves:
            found.add(Instruction.CPUID)
        if self._masks_xcr0 or self.actions.keys() & {"osxsave", "xgetbv1"}:
            found.add(Instruction.XGETBV)
        if self.refuses_calls:
            found.add(Instruction.SYSCALL)
        return frozenset(found)

    def trapped(self) -> frozenset[Instruction]:
        """Return the classes of which not every function may run natively: a function is blocked or emulated, or what
        the instruction answers is masked."""
        return self._trapped

    @cached_property
    def features(self) -> frozenset[str]:
        """The names of all features that may be seen where the processor has them."""
        return NAMES - {name for name, action in self.actions.items() if action == BLOCK}

    @cached_property
    def emulated(self) -> frozenset[str]:
        """The names of features that software executes: seen whether the processor has them or not."""
        return frozenset(name for name, action in self.actions.items() if action == EMULATE)

    # ---- composition -----------------------------------------------------------------------------------------------

    @staticmethod
    def compose(*levels: "BlockingValue") -> "BlockingValue":
        """Return what all levels permit (host policy, template, nested …), in whatever order they come."""
        return reduce(BlockingValue._meet, levels) if levels else BlockingValue()

    def _meet(self, other: "BlockingValue") -> "BlockingValue":
        names = dict.fromkeys(name for name in (self.name, other.name) if name)
        return BlockingValue(
            " & ".join(names),
            features=merge(self.actions, other.actions, max, ALLOW),
            strict=self.strict or other.strict,
            masks=merge(self.masks, other.masks, lambda a, b: a & b, U32),
            tables=merge(self.tables, other.tables, strictest, FREE),
            calls=strictest(self.calls, other.calls),
            seconds=merge(self.seconds, other.seconds, strictest_second, SecondLevel()),
            outcomes=merge(self.outcomes, other.outcomes, max, Outcome(0)),
            answers=merge(self.answers, other.answers, min, (1 << 64) - 1),
            demands=self.demands | other.demands,
            require=max(self.require, other.require, key=lambda name: (REQUIRE[name], name)),
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def to_record(self) -> dict[str, Any]:
        """Return all of it as lists, numbers and strings: what `from_record` reads and `digest` is taken of."""
        return wire.record_of(self)

    @staticmethod
    def from_record(record: Mapping[str, Any], name: str = "") -> "BlockingValue":
        """Return the value that `to_record` wrote. Requires: a well-formed record (see `files.load`)."""
        return BlockingValue(name, **wire.parts_of(record))

    def encode(self) -> str:
        """Return the value as one line of JSON with its name, for a configuration on its way to an island."""
        return json.dumps({"name": self.name, "value": self.to_record()}, separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> "BlockingValue":
        """Return the value that `encode` wrote."""
        record = json.loads(text)
        return BlockingValue.from_record(record["value"], record["name"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything but the name, in hexadecimal."""
        import hashlib  # brings OpenSSL, and a start needs no digest

        text = json.dumps(self.to_record(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockingValue) and self.to_record() == other.to_record()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"BlockingValue({self.name or 'unnamed'}, {self.digest[:12]})"

    def __setattr__(self, attribute: str, value: object) -> None:
        if attribute in self.__dict__:
            raise AttributeError(f"a blocking value does not change: {attribute}")
        super().__setattr__(attribute, value)
