"""The kernel's loaded modules: where their list begins, where a module's fields lie, and the list itself.

The head is found from code: one of the globals that the module functions use is a list of named nodes.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from enisle.introspect.events import Access, Call
from enisle.introspect.facts import DATA, GLOBAL, OFFSET, Witness
from enisle.introspect.lists import Walk, walk_list
from enisle.introspect.memory import Unmapped
from enisle.introspect.values import Value, constant
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

ROOTS = ("__symbol_get", "symbol_put_addr", "__symbol_put", "module_put", "try_module_get", "sys:delete_module")
DEEP_ROOTS = 2
MODULE_AREA = (0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_FF00_0000)
"""Where modules are loaded: right behind the image (mm.rst); wider without KASLR."""
NAME_AFTER_LIST = 16
STATES = {0: "live", 1: "coming", 2: "going", 3: "unformed"}
_NAME = re.compile(rb"[a-zA-Z0-9_]{2,55}\0")


class Module(Record):
    """One loaded module."""

    address: int
    name: str
    state: str
    references: int | None
    """How many use it; None when the field is not known."""


Heads = dict[int, set[str]]


def module_heads(kernel: "Kernel", root_of: Callable[[str], int | None]) -> Heads:
    """Return the globals that the module functions use, with the roots that do: one of them is the list's head."""
    heads: Heads = {}
    for root in ROOTS:
        address = root_of(root)
        if address is not None:
            for place in _globals(kernel, address, DEEP_ROOTS, set()):
                heads.setdefault(place, set()).add(root)
    return heads


def find_modules(kernel: "Kernel", heads: Heads, refcnt: int | None) -> Iterator[tuple[str, str, Witness]]:
    """Yield (name, kind, witness) of the list's head and of a module's fields."""
    for place in sorted({head for found in heads for head in (found, found - 8)}):
        nodes = module_nodes(kernel, place)
        if not nodes:
            continue
        for root in sorted(heads.get(place, set()) | heads.get(place + 8, set())):
            yield "modules", GLOBAL, Witness(place, root, "P1", 0, f"a global that {root} and its callees use")
        trace = f"a list of {len(nodes)} named nodes in the module area"
        yield "modules", GLOBAL, Witness(place, f"{DATA}: list", DATA, 0, trace)
        yield from _fields(kernel, nodes, refcnt)
        return


def module_nodes(kernel: "Kernel", head: int) -> tuple[int, ...]:
    """Return the nodes of a list of modules, none when it is no such list."""
    try:
        first = kernel.space.u64(head)
        if not MODULE_AREA[0] <= first < MODULE_AREA[1] or kernel.space.u64(first + 8) != head:
            return ()
        nodes = walk_list(kernel.space, head, most=4096).nodes
        named = all(_NAME.match(kernel.space.read(node + NAME_AFTER_LIST, 56)) for node in nodes)
    except Unmapped:
        return ()
    return nodes if named else ()


def _globals(kernel: "Kernel", entry: int, deep: int, seen: set[int]) -> Iterator[int]:
    """Yield the globals in data that a function and, `deep` calls down, its callees use."""
    if entry in seen or not kernel.image.is_text(entry) or len(seen) > 60:
        return
    seen.add(entry)
    for event in kernel.walker.walk(entry, 2500, 400).events:
        values: tuple[Value, ...] = ()
        if isinstance(event, Access):
            values = (event.address, event.stored)
        elif isinstance(event, Call):
            values = event.arguments
        for value in values:
            while value is not None and value[0] in ("load", "add"):
                value = value[1]
            if value is not None and value[0] == "const" and kernel.image.is_data(value[1]):
                yield value[1]
        callee = constant(event.target) if isinstance(event, Call) else None
        if deep and callee is not None and callee not in kernel.exports.by_address:
            yield from _globals(kernel, callee, deep - 1, seen)


def _fields(kernel: "Kernel", nodes: tuple[int, ...], refcnt: int | None) -> Iterator[tuple[str, str, Witness]]:
    """Yield the offsets of list, name and state: `mkobj.mod` in each module points to its own beginning."""
    places: set[int] | None = None
    for node in nodes[:32]:
        try:
            words = struct.unpack("<64Q", kernel.space.read(node, 512))
        except Unmapped:
            return
        found = {node - word for word in words if 0 < node - word <= 64}
        places = found if places is None else places & found
    if places is None or len(places) != 1:
        return
    offset = next(iter(places))
    trace = f"every one of {len(nodes)} modules points to {offset} bytes before its node"
    yield "module.list", OFFSET, Witness(offset, f"{DATA}: own pointer", DATA, 0, trace)
    yield "module.name", OFFSET, Witness(offset + NAME_AFTER_LIST, f"{DATA}: names", DATA, 0, "a name in every module")
    yield "module.name", OFFSET, Witness(offset + NAME_AFTER_LIST, f"{DATA}: own pointer", DATA, 0, trace)
    if refcnt is not None and all(_counted(kernel, node - offset + refcnt) for node in nodes):
        trace = "a small count, one more than the users, in every module"
        yield "module.refcnt", OFFSET, Witness(refcnt, f"{DATA}: counts", DATA, 0, trace)
        yield "module.list", OFFSET, Witness(offset, f"{DATA}: counts", DATA, 0, trace)


def _counted(kernel: "Kernel", address: int) -> bool:
    try:
        return 0 <= kernel.space.u32(address) < 1 << 16
    except Unmapped:
        return False


def list_modules(kernel: "Kernel") -> tuple[list[Module], Walk]:
    """Return the modules in the list's order, newest first, and how the walk went. Empty when there is no list."""
    head, offset = kernel.facts.value("modules"), kernel.facts.value("module.list")
    if head is None:
        return [], Walk((), "the list of modules was not found")
    refcnt = kernel.facts.value("module.refcnt")
    walk = walk_list(kernel.space, head, most=4096)
    return [module for node in walk.nodes if (module := _module(kernel, node, offset, refcnt))], walk


def _module(kernel: "Kernel", node: int, offset: int | None, refcnt: int | None) -> Module | None:
    try:
        name = kernel.space.string(node + NAME_AFTER_LIST, 56).decode("ascii", "replace")
        if offset is None:
            return Module(node, name, "unknown", None)
        state = STATES.get(kernel.space.u32(node - offset), "unknown")
        count = kernel.space.u32(node - offset + refcnt) - 1 if refcnt is not None else None
        return Module(node - offset, name, state, count)
    except Unmapped:
        return None
