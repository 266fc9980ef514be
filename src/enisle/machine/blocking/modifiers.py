"""Bits of CPUID in a template: modifiers of one register as a bitmap, and leaves that are hidden or blocked.

    [[cpuid]]
    leaf = 0x7
    register = "ebx"
    bitmap = "0bxxxxxxxxxxxxxxxxxxxxxxxxxx0xxxxx"     # bit 31 first: x as it is, 0 hidden, 1 demanded

Bits with a name become features, so that what needs them follows. Pure.
"""

from typing import Any

from enisle.abi.x86_features import BITS, REGISTERS, U32, Register
from enisle.machine.blocking.sections import Section, number

RANGES = ((0, 0x3F), (0x4000_0000, 0x4000_00FF), (0x8000_0000, 0x8000_003F))
LAST_SUBLEAF = 63
IDENTITY: dict[Register, str] = {(0, 0, 1): "vendor", (0, 0, 2): "vendor", (0, 0, 3): "vendor", (1, 0, 0): "model"}
QUERY_LEAVES = frozenset((0, 1, 7, 0xD, 0x8000_0000, 0x8000_0001))
"""Every program asks these before main()."""
WIDTH = 32


class Modifiers:
    """What the bitmaps and leaves of a template say."""

    def __init__(self) -> None:
        self.features: dict[str, tuple[bool, str]] = {}
        """Whether a feature must be shown, and where that stands."""
        self.masks: dict[Register, int] = {}
        self.hidden: set[tuple[int, int]] = set()
        self.blocked_leaves: set[int] = set()


def read_modifiers(top: Section) -> Modifiers:
    """Read the list [[cpuid]]. Raises InvalidRequest."""
    modifiers, seen = Modifiers(), set[Register]()
    for words in top.items("cpuid"):
        if not isinstance(words, dict):
            raise top.complain("cpuid is a list of tables", "write [[cpuid]] before each modifier")
        section = Section(top.name, "cpuid", words)  # pyright: ignore[reportUnknownArgumentType]
        section.check_keys(("leaf", "subleaf", "register", "bitmap"))
        register = section.text("register", "")
        if register not in REGISTERS:
            raise section.complain(f"register = {register!r}", f"one of {', '.join(REGISTERS)}")
        leaf, subleaf = (
            _leaf(section, "leaf", section.words.get("leaf")),
            _subleaf(section, section.words.get("subleaf", 0)),
        )
        place = (leaf, subleaf, REGISTERS.index(register))
        if place in seen:
            raise section.complain(f"leaf {leaf:#x} subleaf {subleaf} {register} is modified twice")
        seen.add(place)
        _read_bitmap(section, modifiers, place)
    return modifiers


def _read_bitmap(section: Section, modifiers: Modifiers, place: Register) -> None:
    text = section.text("bitmap", "")
    bits = text.removeprefix("0b").replace("_", "")
    where = f"leaf {place[0]:#x} subleaf {place[1]} {REGISTERS[place[2]]}"
    if not text.startswith("0b") or set(bits) - set("01x"):
        raise section.complain(f"the bitmap {text!r} of {where} is none", "0b and then 0, 1 or x for each bit")
    if len(bits) != WIDTH:
        raise section.complain(
            f"the bitmap of {where} has {len(bits)} bits, not {WIDTH}", "every bit is written, bit 31 first"
        )
    if place in IDENTITY and set(bits) != {"x"}:
        why = "programs choose code by it that was written for that processor"
        raise section.complain(f"the {IDENTITY[place]} of the processor cannot be changed", why)
    for bit in range(WIDTH):
        _read_bit(section, modifiers, (*place, bit), bits[WIDTH - 1 - bit], where)


def _read_bit(section: Section, modifiers: Modifiers, at: tuple[int, int, int, int], bit: str, where: str) -> None:
    if bit == "x":
        return
    place = at[:3]
    name = BITS.get(place, {}).get(at[3])
    if name:
        modifiers.features[name] = (bit == "1", f"bit {at[3]} of {where}")
    elif bit == "1":
        what = f"bit {at[3]} of {where} cannot be set"
        raise section.complain(what, "it is no feature known here: it may be left (x) or hidden (0)")
    else:
        modifiers.masks[place] = modifiers.masks.get(place, U32) & ~(1 << at[3])


def read_leaves(section: Section, modifiers: Modifiers) -> None:
    """Read [leaves]: `hide` answers zeros, `block` raises the exception. Raises InvalidRequest."""
    section.check_keys(("hide", "block"))
    for word in section.items("hide"):
        leaf = _leaf(section, "hide", word)
        if leaf in QUERY_LEAVES:
            raise section.complain(f"leaf {leaf:#x} cannot be hidden whole", "programs need some of it: hide features")
        modifiers.hidden |= {(leaf, subleaf) for subleaf in range(LAST_SUBLEAF + 1)}
    for word in section.items("block"):
        leaf = _leaf(section, "block", word)
        if leaf in QUERY_LEAVES:
            raise section.complain(
                f"the query itself cannot be blocked: leaf {leaf:#x}", "every program asks it at its start"
            )
        if leaf in modifiers.blocked_leaves or (leaf, 0) in modifiers.hidden:
            raise section.complain(f"leaf {leaf:#x} is there twice")
        modifiers.blocked_leaves.add(leaf)


def _leaf(section: Section, key: str, word: Any) -> int:
    leaf = number(section, key, word, U32)
    if not any(first <= leaf <= last for first, last in RANGES):
        ranges = ", ".join(f"{first:#x}-{last:#x}" for first, last in RANGES)
        raise section.complain(f"there is no CPUID leaf {leaf:#x}", f"leaves are {ranges}")
    return leaf


def _subleaf(section: Section, word: Any) -> int:
    return number(section, "subleaf", word, LAST_SUBLEAF)
