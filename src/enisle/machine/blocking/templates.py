"""Templates: blocking values written by people, as TOML (docs/cpu-templates.md), read and checked.

Whatever is wrong is refused with an InvalidRequest that says where and names both sides of a contradiction. Pure.
"""

import tomllib
from collections.abc import Mapping
from typing import Any

from enisle.abi.x86_features import NAMES, Register, needs_of
from enisle.machine.blocking import levels
from enisle.machine.blocking.codes import CodeTable
from enisle.machine.blocking.instructions import CODES, LEVELS, REQUIRE, Action, Instruction, Outcome
from enisle.machine.blocking.modifiers import Modifiers, read_leaves, read_modifiers
from enisle.machine.blocking.sections import (
    Section,
    complain,
    read_coded,
    read_outcome,
    read_syscalls,
    word_in,
)
from enisle.machine.blocking.value import TABLES, BlockingValue
from enisle.machine.blocking.wire import ARCHITECTURE

ACTIONS = {"allow": Action.ALLOW, "emulate": Action.EMULATE, "block": Action.BLOCK}
KEYS = (
    *("name", "architecture", "base", "require", "unnamed", "features", "instructions", "leaves", "outcomes"),
    *("syscalls", "cpuid", *(str(instruction) for instruction in TABLES if instruction is not Instruction.CPUID)),
)


def parse(text: str, name: str) -> BlockingValue:
    """Return the value a template describes; `name` unless it has its own. Raises InvalidRequest."""
    try:
        words = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise complain(name, f"it is not TOML: {error}") from None
    return build(words, name)


def build(words: Mapping[str, Any], name: str) -> BlockingValue:
    """Return the value of a template that has been read. Raises InvalidRequest."""
    top = Section(name, "", words)
    top.check_keys(KEYS)
    name = top.text("name", name)
    if top.text("architecture", ARCHITECTURE) != ARCHITECTURE:
        raise complain(name, f"it is for {words['architecture']}, this is {ARCHITECTURE}")
    base = levels.level(word_in(top, "base", levels.names(), levels.HOST))
    modifiers = read_modifiers(top)
    read_leaves(top.section("leaves"), modifiers)
    wanted = _wishes(top, modifiers)
    features, demanded = _resolve(name, base, wanted)
    tables = _tables(top)
    if modifiers.blocked_leaves:
        tables[Instruction.CPUID] = CodeTable(
            0, tuple((leaf, int(Action.BLOCK)) for leaf in sorted(modifiers.blocked_leaves))
        )
    calls, seconds = read_syscalls(top.section("syscalls"))
    value = BlockingValue(
        name,
        features=features,
        strict=base.strict if "unnamed" not in words else word_in(top, "unnamed", ("allow", "hide"), "allow") == "hide",
        masks=_masks(modifiers),
        tables=tables,
        calls=calls,
        seconds=seconds,
        outcomes=_outcomes(top),
        answers=_answers(top),
        demands=(base.demands | demanded) & _not_blocked(features),
        require=word_in(top, "require", tuple(REQUIRE), "none"),
    )
    _check_demands(name, value, demanded)
    return value


def _not_blocked(features: Mapping[str, Action]) -> frozenset[str]:
    return NAMES - {name for name, action in features.items() if action == Action.BLOCK}


def _masks(modifiers: Modifiers) -> dict[Register, int]:
    masks = dict(modifiers.masks)
    for leaf, subleaf in modifiers.hidden:
        masks |= {(leaf, subleaf, register): 0 for register in range(4)}
    return masks


# ---- features --------------------------------------------------------------------------------------------------------


class Wishes:
    """What a template says of features: each at most once. `where` tells in which words, for complaints."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.actions: dict[str, Action] = {}
        self.demanded: set[str] = set()
        self.where: dict[str, str] = {}

    def add(self, feature: str, action: Action, where: str) -> None:
        """Note one wish. Raises InvalidRequest for one that contradicts an earlier one."""
        if feature in self.actions and self.actions[feature] != action:
            why = f"{feature}: {self.where[feature]} against {where}"
            raise complain(self.name, f"it says two things about {feature}", why)
        self.actions[feature], self.where[feature] = action, where


def _wishes(top: Section, modifiers: Modifiers) -> Wishes:
    wishes = Wishes(top.name)
    section = top.section("features")
    section.check_keys((*ACTIONS, "demand"))
    for key, action in ACTIONS.items():
        for feature in section.names(key, NAMES, "feature"):
            wishes.add(feature, action, f"features.{key}")
    for feature in section.names("demand", NAMES, "feature"):
        wishes.add(feature, wishes.actions.get(feature, Action.ALLOW), "features.demand")
        wishes.demanded.add(feature)
    classes = top.section("instructions")
    classes.check_keys(tuple(ACTIONS))
    for key, action in ACTIONS.items():
        for word in classes.names(key, frozenset(map(str, Instruction)), "instruction"):
            for feature in _features_of(top, Instruction(word)):
                wishes.add(feature, action, f"instructions.{key} = {word}")
    for feature, (shown, where) in modifiers.features.items():
        wishes.add(feature, Action.ALLOW if shown else Action.BLOCK, where)
        if shown:
            wishes.demanded.add(feature)
    return wishes


def _features_of(top: Section, instruction: Instruction) -> tuple[str, ...]:
    if instruction is Instruction.CPUID:
        why = "a program that cannot ask what there is cannot start"
        raise complain(top.name, "the query itself cannot be blocked", why, "hide what it answers: features, leaves")
    if instruction not in LEVELS:
        raise complain(
            top.name,
            f"{instruction} has functions of its own",
            f"told apart by {CODES[instruction]}",
            f"[{instruction}]",
        )
    return LEVELS[instruction]


def _resolve(name: str, base: BlockingValue, wishes: Wishes) -> tuple[dict[str, Action], frozenset[str]]:
    """Return the features that are not simply allowed, and those demanded; what is allowed brings what it needs."""
    features = dict(base.actions)
    blocked = {feature for feature, action in wishes.actions.items() if action == Action.BLOCK}
    for feature, action in wishes.actions.items():
        if action == Action.BLOCK:
            continue
        for needed in needs_of(feature) & blocked:
            what = f"{feature} needs {needed}"
            why = f"{feature} is in {wishes.where[feature]}, {needed} is blocked by {wishes.where[needed]}"
            raise complain(name, what, why)
        for needed in needs_of(feature):
            features.pop(needed, None)
        features.pop(feature, None)
    for feature, action in wishes.actions.items():
        if action != Action.ALLOW:
            features[feature] = action
    return features, frozenset(wishes.demanded)


def _check_demands(name: str, value: BlockingValue, demanded: frozenset[str]) -> None:
    for feature in sorted(demanded - value.features):
        raise complain(name, f"{feature} is demanded and cannot be there", "something it follows from is blocked")


# ---- codes -----------------------------------------------------------------------------------------------------------


def _tables(top: Section) -> dict[Instruction, CodeTable]:
    coded = (instruction for instruction in TABLES if instruction is not Instruction.CPUID)
    return {instruction: read_coded(top.section(instruction), instruction)[0] for instruction in coded}


def _answers(top: Section) -> dict[tuple[Instruction, int], int]:
    answers: dict[tuple[Instruction, int], int] = {}
    for instruction in TABLES:
        if instruction is not Instruction.CPUID:
            answers |= {
                (instruction, code): answer
                for code, answer in read_coded(top.section(instruction), instruction)[1].items()
            }
    return answers


def _outcomes(top: Section) -> dict[Instruction, Outcome]:
    section = top.section("outcomes")
    section.check_keys(tuple(map(str, Instruction)))
    return {Instruction(word): read_outcome(section, word) for word in section.words}
