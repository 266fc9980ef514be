"""What a check of integrity looks at: everything read at one moment, and a baseline taken at a trusted one.

Reads only, while the guest stands still; `integrity` judges what was read when it runs again.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enisle.errors import HostError, InvalidRequest
from enisle.introspect.image import KERNEL_END, KERNEL_START, Gate, Image, read_gates
from enisle.introspect.lists import walk_list
from enisle.introspect.memory import Guest, ProcessorState, Unmapped
from enisle.introspect.modules import MODULE_AREA, Module, list_modules
from enisle.introspect.processes import ProcessList, family, list_processes
from enisle.records import Record

LARGE_PAGE = 2 << 20

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel


class Baseline(Record):
    """A kernel at a moment it was trusted."""

    start: int
    gates: tuple[tuple[int, ...], ...]
    lstar: int
    table: tuple[int, ...]
    runs: tuple[tuple[int, bytes], ...]
    """(address, content) of what must not change: code, and read-only data in large pages."""

    def save(self, path: Path) -> None:
        """Write it to a file. Raises HostError."""
        told = self._asdict() | {"runs": [[at, zlib.compress(content, 1).hex()] for at, content in self.runs]}
        try:
            path.write_text(json.dumps(told))
        except OSError as error:
            raise HostError(f"cannot write the baseline {path}", error.strerror or "") from error

    @classmethod
    def load(cls, path: Path) -> "Baseline":
        """Read what `save` wrote. Raises InvalidRequest."""
        try:
            told: dict[str, Any] = json.loads(path.read_text())
            runs = tuple((int(at), zlib.decompress(bytes.fromhex(packed))) for at, packed in told["runs"])
            gates = tuple(tuple(int(word) for word in gate) for gate in told["gates"])
            return cls(int(told["start"]), gates, int(told["lstar"]), tuple(told["table"]), runs)
        except OSError as error:
            hint = "take one: --baseline FILE --record"
            raise InvalidRequest(f"cannot read the baseline {path}", error.strerror or "", hint) from None
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            why = f"it is nothing that --record wrote: {error}"
            raise InvalidRequest(f"{path} is no baseline", why, "take one: --baseline FILE --record") from None


class Look(Record):
    """What was read while the guest stood still."""

    processors: Sequence[ProcessorState]
    gates: tuple[tuple[Gate, ...], ...]
    image: Image
    processes: ProcessList
    family: dict[int, int]
    troubles: tuple[str, ...]
    modules: tuple[Module, ...]
    module_trouble: str
    registered: dict[int, str]
    """Modules by address as sysfs knows them."""
    writable_code: tuple[tuple[int, int], ...]


def look(kernel: "Kernel", guest: Guest, hold: Callable[[str], AbstractContextManager[None]], why: str) -> Look:
    """Read everything a check needs; what changes by the moment in one pause, code and constants after it."""
    space = kernel.space
    with hold(why):
        processors = guest.processors()
        space.forget()
        gates = tuple(read_gates(space, state) for state in processors)
        processes = list_processes(kernel)
        tree, troubles = family(kernel)
        modules, walk = list_modules(kernel)
        registered = _registered(kernel, modules)
        regions = [*space.regions(KERNEL_START, KERNEL_END, 1100), *space.regions(KERNEL_END, MODULE_AREA[1], 1100)]
    return Look(
        processors=processors,
        gates=gates,
        image=Image(kernel.image.regions, guest.memory),
        processes=processes,
        family=tree,
        troubles=tuple(troubles),
        modules=tuple(modules),
        module_trouble=walk.broken,
        registered=registered,
        writable_code=tuple((r.start, r.size) for r in regions if r.writable and r.executable),
    )


def take_baseline(kernel: "Kernel", seen: Look) -> Baseline:
    """Return a baseline of what was read."""
    # The gaps behind code and constants are freed and serve others, with any rights, in small pages: they may change.
    constants = [r for r in seen.image.regions if r.size >= LARGE_PAGE and not (r.writable or r.executable)]
    places = seen.image.runs(executable=True) + [(region.start, region.start + region.size) for region in constants]
    return Baseline(
        start=seen.image.start,
        gates=tuple((gate.vector, gate.target, gate.selector, gate.stack, gate.attributes) for gate in seen.gates[0]),
        lstar=kernel.dispatch.entry,
        table=kernel.dispatch.entries,
        runs=tuple((start, seen.image.read(start, end - start)) for start, end in places),
    )


def _registered(kernel: "Kernel", modules: Sequence[Module]) -> dict[int, str]:
    """Return {address: name} of modules in the kobject set all of them belong to (`/sys/module`).

    A kobject is {name, entry, parent, kset, …} (include/linux/kobject.h); its place in a module is where every listed
    module holds a pointer to its own name.
    """
    place: int | None = None
    for offset in range(64, 512, 8):
        if modules and all(_is_named(kernel, module, offset) for module in modules[:16]):
            place = offset
            break
    if place is None:
        return {}
    found: dict[int, str] = {}
    try:
        kset = kernel.space.u64(modules[0].address + place + 32)
        for node in walk_list(kernel.space, kset, most=8192).nodes:
            if MODULE_AREA[0] <= node < MODULE_AREA[1]:
                name = kernel.space.string(kernel.space.u64(node - 8), 56)
                found[node - 8 - place] = name.decode("ascii", "replace")
    except Unmapped:
        pass
    return found


def _is_named(kernel: "Kernel", module: Module, offset: int) -> bool:
    try:
        pointer = kernel.space.u64(module.address + offset)
        return kernel.space.string(pointer, 56) == module.name.encode()
    except Unmapped:
        return False
