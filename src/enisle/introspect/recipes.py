"""Recipes: which known function to read, and what to look for in it. Data in recipes/*.toml, read here.

A recipe names no address, offset or version. Pure, but for reading its own files once.
"""

import functools
import hashlib
import tomllib
from importlib import resources
from typing import Any

from enisle.records import Record

CURRENT = "current"


class OffsetRecipe(Record):
    """Pattern 3: where a field lies in a structure that the roots handle."""

    name: str
    of: str
    roots: tuple[str, ...]
    size: int = 0
    passed: str = ""
    stores: int | None = None
    first: bool = False


class Recipes(Record):
    """All recipes of one system."""

    classes: dict[str, frozenset[str]]
    argument: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(name, class of callees, roots): pattern 1."""
    only_callee: tuple[tuple[str, tuple[str, ...]], ...]
    given: tuple[tuple[str, tuple[tuple[str, str, int], ...]], ...]
    """(name, ((root, exported global, position), …)): pattern 2."""
    current: tuple[str, ...]
    offsets: tuple[OffsetRecipe, ...]

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in (*self.argument, *self.only_callee, *self.given)]


@functools.cache
def load(system: str = "linux") -> Recipes:
    """Return the recipes of a system."""
    told = load_raw(system)
    argument = tuple(
        (name, group, tuple(roots))
        for group, entries in told.get("argument", {}).items()
        for name, roots in entries.items()
    )
    return Recipes(
        classes={name: frozenset(members) for name, members in told.get("classes", {}).items()},
        argument=argument,
        only_callee=tuple((name, tuple(roots)) for name, roots in told.get("only_callee", {}).items()),
        given=tuple(
            (name, tuple((root, passed, position) for root, passed, position in entries))
            for name, entries in told.get("given", {}).items()
        ),
        current=tuple(told.get("current", {}).get("roots", ())),
        offsets=tuple(_offset(entry) for entry in told.get("offset", ())),
    )


def _offset(told: dict[str, Any]) -> OffsetRecipe:
    return OffsetRecipe(
        name=told["name"],
        of=told["of"],
        roots=tuple(told["roots"]),
        size=told.get("size", 0),
        passed=told.get("passed", ""),
        stores=told.get("stores"),
        first=told.get("first", False),
    )


@functools.cache
def fingerprint(system: str = "linux") -> str:
    """Return what changes when a recipe does."""
    return hashlib.sha256(_text(system).encode()).hexdigest()[:16]


def load_raw(system: str) -> dict[str, Any]:
    """Return the recipes of a system as they are written."""
    return tomllib.loads(_text(system))


def _text(system: str) -> str:
    return resources.files("enisle.introspect").joinpath("recipes", f"{system}.toml").read_text("utf-8")


@functools.cache
def syscall_names() -> dict[int, str]:
    """Return the names of system calls by number (arch/x86/entry/syscalls/syscall_64.tbl)."""
    text = resources.files("enisle.introspect").joinpath("recipes", "syscalls.txt").read_text("ascii")
    pairs = (word.split(":") for word in text.split())
    return {int(number): name for number, name in pairs}


@functools.cache
def syscall_numbers() -> dict[str, int]:
    """Return the numbers of system calls by name."""
    return {name: number for number, name in syscall_names().items()}
