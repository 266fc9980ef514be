"""The four patterns that turn code into facts. Each reads one root and yields witnesses, or nothing. Pure.

P1  a known function is called with an internal global as an argument       → the global's address
P2  an internal function is called (with an exported global as an argument) → the function's address
P3  a field of a structure is touched, passed on or returned                → the field's offset
P4  a certain instruction works on an internal address (mov gs:…, indexed call, wrmsr)
A rule that fits a root in two ways tells nothing: only what is unique in a root counts.
"""

from collections.abc import Callable, Iterator

from enisle.introspect.events import Access, Call, Walked
from enisle.introspect.facts import Witness
from enisle.introspect.recipes import CURRENT, OffsetRecipe
from enisle.introspect.values import Value, constant, offset_from, show, split

Namer = Callable[[int], str | None]
"""Gives the name of an exported address."""


def internal_argument(
    walked: Walked, root: str, callees: frozenset[str], name_of: Namer, is_data: Callable[[int], bool]
) -> Witness | None:
    """P1: return the one internal global that `root` passes first to functions of `callees`."""
    found: dict[int, Witness] = {}
    for event in walked.events:
        callee = _name(event, name_of)
        if not isinstance(event, Call) or callee not in callees:
            continue
        value = constant(event.arguments[0])
        if value is None or not is_data(value):
            continue
        trace = f"{root}: {_set_at(event, 0)} = {value:#x}, call {callee} at {event.site:#x}"
        found.setdefault(value, Witness(value, root, "P1", event.site, trace, callee or ""))
    witness = next(iter(found.values())) if len(found) == 1 else None
    return witness if witness is not None and name_of(witness.value) is None else None


def only_callee(walked: Walked, root: str, name_of: Namer, is_function: Callable[[int], bool]) -> Witness | None:
    """P2: return the one internal function that `root` calls."""
    found: dict[int, Witness] = {}
    for event in walked.events:
        target = constant(event.target) if isinstance(event, Call) else None
        if target is None or not isinstance(event, Call) or name_of(target) is not None:
            continue
        if not is_function(target):
            return None
        trace = f"{root}: {'jmp' if event.tail else 'call'} {target:#x} at {event.site:#x}, its only internal callee"
        found.setdefault(target, Witness(target, root, "P2", event.site, trace))
    return next(iter(found.values())) if len(found) == 1 and walked.complete else None


def given_global(walked: Walked, root: str, passed: Value, label: str, position: int, name_of: Namer) -> Witness | None:
    """P2: return the one internal function that `root` calls with an exported global at `position`."""
    found: dict[int, Witness] = {}
    for event in walked.events:
        target = constant(event.target) if isinstance(event, Call) else None
        if target is None or not isinstance(event, Call) or name_of(target) is not None:
            continue
        if event.arguments[position] == passed:
            trace = f"{root}: {_set_at(event, position)} = {label}, call {target:#x} at {event.site:#x}"
            found.setdefault(target, Witness(target, root, "P2", event.site, trace))
    return next(iter(found.values())) if len(found) == 1 else None


def current_task(walked: Walked, root: str) -> Witness | None:
    """P4: return the one per-CPU word that `root` takes as the base of other memory (`mov reg, gs:[…]`)."""
    found: dict[int, Witness] = {}
    for event in walked.events:
        if not isinstance(event, Access):
            continue
        base, offset = split(event.address)
        place = _percpu_load(base)
        if place is not None:
            trace = f"{root}: base of [{show(base)}+{offset:#x}] at {event.site:#x}"
            found.setdefault(place, Witness(place, root, "P4", event.site, trace))
    return next(iter(found.values())) if len(found) == 1 else None


def field(
    walked: Walked, root: str, recipe: OffsetRecipe, base: Value, callees: frozenset[str], name_of: Namer
) -> Witness | None:
    """P3: return the witness of the one offset from `base` that the recipe looks for in `root`."""
    found: dict[int, Witness] = {}
    for offset, site, how in _touched(walked, recipe, base, callees, name_of):
        if offset < 0:
            continue
        trace = f"{root}: {how} {show(base)}+{offset:#x} at {site:#x}"
        found.setdefault(offset, Witness(offset, root, "P3", site, trace))
        if recipe.first:
            break
    return next(iter(found.values())) if len(found) == 1 else None


def _touched(
    walked: Walked, recipe: OffsetRecipe, base: Value, callees: frozenset[str], name_of: Namer
) -> Iterator[tuple[int, int, str]]:
    """Yield (offset, site, what was done) of everything the recipe asks about."""
    for event in walked.events:
        if isinstance(event, Access):
            offset = offset_from(event.address, base)
            if offset is None or recipe.passed:
                continue
            if recipe.stores is not None:
                if event.write and constant(event.stored) == recipe.stores:
                    yield offset, event.site, f"store of {recipe.stores:#x} at"
            elif event.size == recipe.size:
                yield offset, event.site, f"{event.name} of {event.size} bytes at"
        elif isinstance(event, Call) and recipe.passed and _name(event, name_of) in callees:
            offset = offset_from(event.arguments[0], base)
            if offset is not None:
                yield offset, event.site, f"passed to {_name(event, name_of)}:"


def base_of(recipe: OffsetRecipe, current: int | None, cred: int | None) -> Value:
    """Return the value the structure's address has in the roots of a recipe."""
    if recipe.of.startswith("argument"):
        return ("arg", int(recipe.of.removeprefix("argument")))
    if current is None:
        return None
    running: Value = ("load", ("percpu", current), 8)
    if recipe.of == CURRENT:
        return running
    return None if cred is None else ("load", ("add", running, cred), 8)


def _percpu_load(value: Value) -> int | None:
    if value is not None and value[0] == "load" and value[2] == 8 and value[1][0] == "percpu":
        return value[1][1]
    return None


def _name(event: object, name_of: Namer) -> str | None:
    target = constant(event.target) if isinstance(event, Call) else None
    return None if target is None else name_of(target)


def _set_at(call: Call, position: int) -> str:
    site = call.set_at[position]
    return f"argument {position} (set at {site:#x})" if site else f"argument {position}"
