"""Reading parts of a template: one table of TOML at a time, every complaint with its place.

Pure. `Section` is a table with its name; the functions turn tables into tables of codes and refusals.
"""

import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any, cast

from enisle.abi import linux_fs, linux_prctl, linux_sched, linux_socket, linux_syscalls, linux_tty
from enisle.errors import InvalidRequest
from enisle.machine.blocking.codes import CodeTable, table
from enisle.machine.blocking.instructions import (
    CODE_WIDTH,
    FAULTS,
    WITH_ERROR_CODE,
    Action,
    Instruction,
    Outcome,
    Refusal,
)
from enisle.machine.blocking.value import SecondLevel

HINT = "docs/cpu-templates.md shows every part"
REFUSALS = {"ENOSYS": Refusal.ENOSYS, "EPERM": Refusal.EPERM, "SIGSYS": Refusal.SIGSYS, "exception": Refusal.EXCEPTION}
DEFAULTS = {"allow": Refusal.NONE, **REFUSALS}
SECOND_NAMES = {
    "prctl": (linux_prctl, "PR_"),
    "arch_prctl": (linux_prctl, "ARCH_"),
    "fcntl": (linux_fs, "F_"),
    "socket": (linux_socket, "AF_"),
    "socketpair": (linux_socket, "AF_"),
    "clone": (linux_sched, "CLONE_"),
    "clone3": (linux_sched, "CLONE_"),
    "unshare": (linux_sched, "CLONE_"),
    "ioctl": (linux_tty, "T"),
}
"""Where the words of a second level are defined."""
LAST_CALL = 1023
OUTCOME = re.compile(r"(#[A-Z]{2})(?:\((0x[0-9a-fA-F]+|[0-9]+)\))?")


def complain(name: str, what: str, why: str = "", hint: str = HINT) -> InvalidRequest:
    """Return the refusal of a template."""
    return InvalidRequest(f"template {name}: {what}", why, hint)


class Section:
    """One table of a template; `path` is "" for the outermost."""

    def __init__(self, name: str, path: str, words: Mapping[str, Any]) -> None:
        self.name, self.path, self.words = name, path, words

    def complain(self, what: str, why: str = "") -> InvalidRequest:
        return complain(self.name, f"[{self.path}] {what}" if self.path else what, why)

    def section(self, key: str) -> "Section":
        """Return a table in this one, empty when it is not there."""
        words = self.words.get(key, {})
        if not isinstance(words, Mapping):
            raise self.complain(f"{key} is a table", f"write [{key}]")
        return Section(self.name, f"{self.path}.{key}".lstrip("."), cast("Mapping[str, Any]", words))

    def check_keys(self, known: Collection[str]) -> None:
        """Raise InvalidRequest for a key that is not known."""
        for key in self.words:
            if key not in known:
                raise self.complain(f"there is no {key!r}", suggestion(key, known))

    def text(self, key: str, default: str) -> str:
        word = self.words.get(key, default)
        if not isinstance(word, str):
            raise self.complain(f"{key} is a text, not {word!r}")
        return word

    def items(self, key: str) -> list[Any]:
        words = self.words.get(key, [])
        if not isinstance(words, list):
            raise self.complain(f"{key} is a list, not {words!r}")
        return cast("list[Any]", words)

    def names(self, key: str, known: Collection[str], kind: str) -> list[str]:
        """Return a list of names. Raises InvalidRequest for one that is not known or comes twice."""
        words = self.items(key)
        for index, word in enumerate(words):
            if word not in known:
                raise self.complain(f"{key}: there is no {kind} {word!r}", suggestion(str(word), known))
            if word in words[:index]:
                raise self.complain(f"{key} names {word} twice")
        return words


def suggestion(word: str, known: Collection[str]) -> str:
    """Return what was perhaps meant."""
    close = get_close_matches(word, sorted(known), 3)
    return f"perhaps {' or '.join(close)}" if close else f"known: {', '.join(sorted(known)[:12])} …"


def word_in(section: Section, key: str, known: Collection[str], default: str) -> str:
    """Return a word that must be one of `known`."""
    word = section.text(key, default)
    if word not in known:
        raise section.complain(f"{key} = {word!r}", f"one of {', '.join(known)}")
    return word


def number(section: Section, key: str, word: Any, largest: int) -> int:
    """Return a number, written as one or as a text such as "0x10A"."""
    try:
        if isinstance(word, bool):
            raise ValueError
        value = int(word, 0) if isinstance(word, str) else int(word)
        if isinstance(word, float) or not 0 <= value <= largest:
            raise ValueError
    except (ValueError, TypeError):
        raise section.complain(f"{key}: {word!r} is no number from 0 to {largest:#x}") from None
    return value


# ---- instructions with function codes --------------------------------------------------------------------------------


def read_coded(section: Section, instruction: Instruction) -> tuple[CodeTable, dict[int, int]]:
    """Return the actions by code, and what emulated functions answer."""
    section.check_keys(("default", "allow", "emulate", "block"))
    default = Action[word_in(section, "default", ("allow", "emulate", "block"), "allow").upper()]
    width, answers, codes = CODE_WIDTH[instruction], dict[int, int](), dict[int, int]()
    for action in Action:
        key = action.name.lower()
        words: Any = section.words.get(key, [])
        if isinstance(words, Mapping) and action is Action.EMULATE:
            told = cast("Mapping[str, Any]", words)
            answers = {number(section, key, c, width): number(section, key, a, (1 << 64) - 1) for c, a in told.items()}
            words = list(answers)
        elif not isinstance(words, list):
            raise section.complain(f"{key} is a list of codes", "emulate may also be a table of code = answer")
        for word in cast("list[Any]", words):
            code = number(section, key, word, width)
            if code in codes:
                raise section.complain(f"code {code:#x} is there twice")
            codes[code] = action
    return table(default, codes), answers


def read_outcome(section: Section, key: str) -> Outcome:
    """Return an exception written as #GP, #GP(0) or #UD."""
    match = OUTCOME.fullmatch(section.text(key, ""))
    if not match or match[1] not in FAULTS:
        raise section.complain(f"{key} = {section.words[key]!r} is no fault", f"one of {', '.join(FAULTS)}, #GP(0)")
    vector, code = FAULTS[match[1]], int(match[2] or "0", 0)
    if (match[2] and vector not in WITH_ERROR_CODE) or code > 0xFFFF:
        raise section.complain(f"{key}: {match[1]} has no error code {code:#x}", "SDM 3A table 6-1")
    return Outcome(vector, code)


# ---- system calls ----------------------------------------------------------------------------------------------------


def read_syscalls(section: Section) -> tuple[CodeTable, dict[int, SecondLevel]]:
    """Return refusals by number, and by second level for the calls that have one."""
    plain = ("default", "refuse", "block", "allow", *REFUSALS)
    section.check_keys((*plain, *linux_syscalls.SECONDS))
    calls = _refusals(section, lambda word: _call(section, word))
    if calls.freest != Refusal.NONE:
        raise section.complain("every call is refused", "a program must at least be able to end: allow exit_group")
    seconds: dict[int, SecondLevel] = {}
    for name, second in linux_syscalls.SECONDS.items():
        if name in section.words:
            inner = section.section(name)
            inner.check_keys(plain)
            codes = _refusals(inner, _second_reader(inner, name, second.flags))
            seconds[linux_syscalls.NUMBERS[name]] = SecondLevel(codes, second.flags)
    return calls, seconds


def _refusals(section: Section, read: Callable[[Any], int]) -> CodeTable:
    refuse = REFUSALS[word_in(section, "refuse", tuple(REFUSALS), "EPERM")]
    default = DEFAULTS[word_in(section, "default", tuple(DEFAULTS), "allow")]
    codes: dict[int, int] = {}
    for key, refusal in {"allow": Refusal.NONE, "block": refuse, **REFUSALS}.items():
        for word in section.items(key):
            code = read(word)
            if code in codes:
                raise section.complain(f"{word} is there twice")
            codes[code] = refusal
    return table(default, codes)


def _call(section: Section, word: Any) -> int:
    if isinstance(word, str) and not word[:1].isdigit():
        if word not in linux_syscalls.NUMBERS:
            raise section.complain(f"there is no system call {word!r}", suggestion(word, linux_syscalls.NUMBERS))
        return linux_syscalls.NUMBERS[word]
    return number(section, "system call", word, LAST_CALL)


def _second_reader(section: Section, name: str, flags: bool) -> Callable[[Any], int]:
    def read(word: Any) -> int:
        if isinstance(word, str) and not word[:1].isdigit():
            module, prefix = SECOND_NAMES.get(name, (linux_prctl, "?"))
            code: Any = vars(module).get(word) if word.startswith(prefix) else None
            if not isinstance(code, int):
                known = [key for key in vars(module) if key.startswith(prefix)]
                raise section.complain(f"there is no {word!r}", suggestion(word, known))
        else:
            code = number(section, name, word, (1 << 64) - 1 if flags else 0xFFFF_FFFF)
        if flags and (code == 0 or code & (code - 1)):
            raise section.complain(f"{word} is not one flag", "name each bit by itself")
        return code

    return read
