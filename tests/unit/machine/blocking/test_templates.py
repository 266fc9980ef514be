"""Templates: what they say, and every way to say nonsense."""

import pytest

from enisle.abi.x86_features import NAMES
from enisle.errors import InvalidRequest
from enisle.machine.blocking import levels, templates
from enisle.machine.blocking.files import resolve
from enisle.machine.blocking.instructions import Action, Instruction, Outcome, Refusal

X = "x" * 32
EVERYTHING = """
name = "everything"
architecture = "x86_64"
base = "x86-64-v3"
require = "detect"
unnamed = "hide"
[features]
allow = ["rdrand", "vaes"]
block = ["sse4_2"]
emulate = ["sha_ni"]
demand = ["aes"]
[instructions]
block = ["rdseed"]
emulate = ["rdtscp"]
[leaves]
hide = [0x4, "0x80000005"]
block = [0x40000000]
[[cpuid]]
leaf = "0x7"
register = "ebx"
bitmap = "0bxxxxxxxxxxxxxxxxxxxxxxx1_xxxxxxxx"
[[cpuid]]
leaf = 2
register = "eax"
bitmap = "0b0000xxxxxxxxxxxxxxxxxxxxxxxxxxxx"
[rdmsr]
default = "block"
allow = [0x10, "0x1B"]
emulate = { "0x8b" = 0x1000 }
[xgetbv]
block = [1]
[outcomes]
rdmsr = "#GP(0x10)"
rdtsc = "#UD"
[syscalls]
refuse = "ENOSYS"
block = ["mount"]
"""


def test_a_template_says_all_there_is_to_say() -> None:
    value = templates.parse(EVERYTHING, "file")
    assert (value.name, value.require, value.strict) == ("everything", "detect", True)
    assert {"rdrand", "vaes", "aes", "bmi2"} <= value.features
    assert {"sse4_2", "rdseed", "avx512f", "xgetbv1"}.isdisjoint(value.features)
    assert value.emulated == {"sha_ni", "rdtscp"}
    assert {"aes", "bmi2", "avx2"} <= value.demands
    assert "sse4_2" not in value.demands
    assert value.judge(Instruction.CPUID, 0x4000_0000) == Action.BLOCK
    assert value.masks[4, 3, 0] == 0
    assert value.masks[2, 0, 0] == 0x0FFF_FFFF
    assert [value.judge(Instruction.RDMSR, code) for code in (0x10, 0x1B, 0x11, 0x8B)] == [0, 0, 2, 1]
    assert value.answer(Instruction.RDMSR, 0x8B | 1 << 32) == 0x1000
    assert value.judge(Instruction.XGETBV, 1) == Action.BLOCK
    assert value.outcome(Instruction.RDMSR) == Outcome(13, 0x10)
    assert value.outcome(Instruction.RDTSC) == Outcome(6)
    assert value.refusal(165) == Refusal.ENOSYS


def test_refusals_have_names_and_second_levels() -> None:
    value = templates.parse(
        """
        [syscalls]
        EPERM = ["ptrace"]
        [syscalls.prctl]
        exception = ["PR_SET_NAME"]
        [syscalls.ioctl]
        default = "EPERM"
        allow = ["TIOCGWINSZ", 0x5401]
        [syscalls.clone]
        block = ["CLONE_NEWUSER", 0x40000000]
        [syscalls.socket]
        ENOSYS = ["AF_INET6"]
        [syscalls.fcntl]
        SIGSYS = ["F_SETLK"]
        """,
        "calls",
    )
    assert value.refusal(101) == Refusal.EPERM
    assert (value.refusal(157, 15), value.refusal(157, 16)) == (Refusal.EXCEPTION, Refusal.NONE)
    assert (value.refusal(16, 0x5413), value.refusal(16, 0x5401), value.refusal(16, 0x5414)) == (0, 0, Refusal.EPERM)
    assert value.refusal(56, 0x1000_0000) == value.refusal(56, 0x4000_0011) == Refusal.EPERM
    assert value.refusal(41, 10) == Refusal.ENOSYS
    assert value.refusal(72, 6) == Refusal.SIGSYS


BAD = {
    "a word that is not known": ("[feature]\nblock = []", "features"),
    "a feature that is not known": ('[features]\nblock = ["avx3"]', "avx2"),
    "a feature twice": ('[features]\nblock = ["avx", "avx"]', "twice"),
    "a feature in two lists": ('[features]\nblock = ["avx"]\nallow = ["avx"]', "two things about avx"),
    "AVX2 without AVX": ('[features]\nblock = ["avx"]\nallow = ["avx2"]', "avx2 needs avx"),
    "AVX-512 without YMM state": ('[features]\nblock = ["xcr0_ymm"]\nemulate = ["avx512f"]', "avx512f needs xcr0_ymm"),
    "a demand for what is blocked": ('[features]\nblock = ["osxsave"]\ndemand = ["avx"]', "avx needs osxsave"),
    "contradicting bits": (
        f'[[cpuid]]\nleaf=1\nregister="ecx"\nbitmap="0bxxx0{X[:28]}"\n[[cpuid]]\nleaf=7\nregister="ebx"\n'
        f'bitmap="0b{X[:26]}1xxxxx"', "avx2 needs avx"),
    "no such leaf": (f'[[cpuid]]\nleaf=0x12345\nregister="eax"\nbitmap="0b{X}"', "0x12345"),
    "no leaf at all": (f'[[cpuid]]\nregister="eax"\nbitmap="0b{X}"', "leaf"),
    "a subleaf beyond all": (f'[[cpuid]]\nleaf=7\nsubleaf=99\nregister="eax"\nbitmap="0b{X}"', "99"),
    "a modifier twice": (2 * f'[[cpuid]]\nleaf=7\nregister="eax"\nbitmap="0b{X}"\n', "modified twice"),
    "a register that is none": (f'[[cpuid]]\nleaf=7\nregister="rax"\nbitmap="0b{X}"', "rax"),
    "a short bitmap": ('[[cpuid]]\nleaf=7\nregister="ebx"\nbitmap="0bxx1"', "3 bits, not 32"),
    "a long bitmap": (f'[[cpuid]]\nleaf=7\nregister="ebx"\nbitmap="0b{X}x"', "33 bits, not 32"),
    "another character": (f'[[cpuid]]\nleaf=7\nregister="ebx"\nbitmap="0b{X[:31]}2"', "is none"),
    "no prefix": (f'[[cpuid]]\nleaf=7\nregister="ebx"\nbitmap="{X}"', "is none"),
    "a bit without a name set": (f'[[cpuid]]\nleaf=4\nregister="ebx"\nbitmap="0b1{X[:31]}"', "cannot be set"),
    "another vendor": (f'[[cpuid]]\nleaf=0\nregister="ebx"\nbitmap="0b0{X[:31]}"', "vendor"),
    "another model": (f'[[cpuid]]\nleaf=1\nregister="eax"\nbitmap="0b1{X[:31]}"', "model"),
    "modifiers that are no tables": ("cpuid = [1]", "list of tables"),
    "the query blocked": ('[instructions]\nblock = ["cpuid"]', "query itself"),
    "a leaf of the query blocked": ("[leaves]\nblock = [7]", "query itself"),
    "a leaf of the query hidden": ("[leaves]\nhide = [1]", "hidden whole"),
    "another architecture": ('architecture = "aarch64"', "aarch64"),
    "a base that is none": ('base = "x86-64-v9"', "x86-64-v4"),
    "a policy that is none": ('require = "maybe"', "enforced"),
    "an instruction with functions": ('[instructions]\nblock = ["rdmsr"]', "functions of its own"),
    "a code twice": ("[rdmsr]\nblock = [1]\nallow = [1]", "twice"),
    "a code too wide": ("[rdmsr]\nblock = [0x100000000]", "no number"),
    "a negative code": ("[rdmsr]\nblock = [-1]", "no number"),
    "a code that is no number": ("[rdmsr]\nblock = [true]", "no number"),
    "a list that is none": ('[rdmsr]\nblock = "all"', "list"),
    "a default that is none": ('[rdmsr]\ndefault = "maybe"', "allow, emulate, block"),
    "no fault": ('[outcomes]\nrdmsr = "#DB"', "fault"),
    "no error code": ('[outcomes]\nrdmsr = "#UD(3)"', "no error code"),
    "an exception for nothing": ('[outcomes]\nrdxyz = "#UD"', "rdxyz"),
    "a call that is not known": ('[syscalls]\nblock = ["mmount"]', "mount"),
    "a call twice": ('[syscalls]\nblock = ["mount"]\nEPERM = [165]', "twice"),
    "everything refused": ('[syscalls]\ndefault = "EPERM"', "exit_group"),
    "an option that is not known": ('[syscalls.prctl]\nblock = ["PR_SET_NAMES"]', "PR_SET_NAME"),
    "a flag that is two": ("[syscalls.clone]\nblock = [3]", "not one flag"),
    "a table that is none": ("syscalls = 3", "table"),
    "a text that is none": ("name = 3", "text"),
    "no TOML": ("[[[", "not TOML"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_nonsense_is_refused_with_its_place(what: str) -> None:
    text, expected = BAD[what]
    with pytest.raises(InvalidRequest) as caught:
        templates.parse(text, "bad")
    assert "template bad" in caught.value.message
    assert expected in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("lost", ["sse2", "syscall", "fpu", "lm"])
def test_blocking_what_every_program_needs_is_refused(lost: str, tmp_path: object) -> None:
    path = f"{tmp_path}/t.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'[features]\nblock = ["{lost}"]')
    with pytest.raises(InvalidRequest, match="no program could start"):
        resolve([path])


def test_blocking_every_feature_is_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/t.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[features]\nblock = {sorted(NAMES)}")
    with pytest.raises(InvalidRequest, match="no program could start"):
        resolve([path])


def test_what_is_allowed_brings_what_it_needs() -> None:
    value = templates.parse('base = "x86-64-v2"\n[features]\nallow = ["avx2"]', "t")
    assert {"avx2", "avx", "osxsave", "xcr0_ymm"} <= value.features
    assert "bmi1" not in value.features


def test_levels_nest() -> None:
    for lower, higher in zip(list(levels.LEVELS)[:-1], list(levels.LEVELS)[1:], strict=True):
        assert levels.level(lower).features < levels.level(higher).features
        assert levels.level(lower).demands < levels.level(higher).demands
    assert levels.level_of(levels.V3) == "x86-64-v3"
    assert levels.level_of(frozenset()) == ""
