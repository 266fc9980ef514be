"""The Windows front end: a PE64 kernel image in guest memory, its exports, and the same patterns as for Linux.

PE/COFF specification, 3 (headers) and 6.3 (.edata); Microsoft x64 calling convention. Tested on Wine's ntoskrnl.exe in
made-up paged memory, NOT on Microsoft Windows, and says so. Reads only; bounded by the image's own size.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from enisle.introspect.decode import Decoder
from enisle.introspect.events import Access, Call, Return, Walked
from enisle.introspect.exports import Exports
from enisle.introspect.facts import GLOBAL, OFFSET, Facts, Witness, agree
from enisle.introspect.image import Image, read_gates, why_not
from enisle.introspect.memory import CR4_LA57, LSTAR, PhysicalMemory, ProcessorState, Unmapped, Unsupported
from enisle.introspect.paging import ADDRESS, AddressSpace
from enisle.introspect.recipes import load_raw
from enisle.introspect.values import Value, constant, offset_from, show
from enisle.introspect.walk import Convention, Walker

TESTED: Final = "tested on Wine's ntoskrnl.exe in made-up memory, not on Microsoft Windows"
MICROSOFT: Final = Convention(("rcx", "rdx", "r8", "r9"), ("rax", "rcx", "rdx", "r8", "r9", "r10", "r11"))
MOST_SEARCH, MOST_IMAGE, MOST_EXPORTS = 64 << 20, 64 << 20, 1 << 16
PE32_PLUS, AMD64 = 0x20B, 0x8664


class WindowsKernel:
    """What is known of one PE kernel."""

    tested: Final = TESTED

    def __init__(self, space: AddressSpace, image: Image, name: str, exports: Exports, facts: Facts) -> None:
        self.space, self.image, self.name, self.exports, self.facts = space, image, name, exports, facts


def discover_windows(memory: PhysicalMemory, processors: Sequence[ProcessorState]) -> WindowsKernel:
    """Find a PE kernel and its facts. Raises Unsupported."""
    for processor in processors:
        if why_not(processor) is not None:
            continue
        space = AddressSpace(memory, processor.cr3 & ADDRESS, 5 if processor.cr4 & CR4_LA57 else 4)
        for base in _bases(space, processor):
            found = _read_image(space, memory, base)
            if found is not None:
                image, name, exports = found
                return WindowsKernel(space, image, name, exports, _facts(image, exports))
    why = "no PE64 kernel image with exports lies before its interrupt handlers"
    raise Unsupported("this guest cannot be looked into", f"unsupported, because {why}")


def _bases(space: AddressSpace, processor: ProcessorState) -> Iterator[int]:
    """Yield the pages before each entry point that begin like a PE file."""
    targets = [gate.target for gate in read_gates(space, processor)[:32] if gate.present]
    for target in dict.fromkeys([processor.msrs.get(LSTAR, 0), *targets]):
        page = target & ~0xFFF
        for _ in range(MOST_SEARCH >> 12 if target else 0):
            try:
                if space.read(page, 2) == b"MZ":
                    yield page
                    break
            except Unmapped:
                pass  # sections may leave gaps
            page = (page - 4096) & (1 << 64) - 1


def _read_image(space: AddressSpace, memory: PhysicalMemory, base: int) -> tuple[Image, str, Exports] | None:
    """Return (image, name, exports) of the PE file mapped at `base`, None when it is none."""
    try:
        head = space.read(base, 4096)
        header = struct.unpack_from("<I", head, 0x3C)[0]
        machine = struct.unpack_from("<H", head, header + 4)[0]
        magic = struct.unpack_from("<H", head, header + 24)[0]
        size = struct.unpack_from("<I", head, header + 24 + 56)[0]
        directory, length = struct.unpack_from("<II", head, header + 24 + 112)
    except (Unmapped, struct.error):
        return None
    sound = head[header : header + 4] == b"PE\0\0" and machine == AMD64 and magic == PE32_PLUS
    if not sound or not directory or not 0x1000 <= size <= MOST_IMAGE or not length < size:
        return None
    regions = list(space.regions(base, base + size))
    if not regions or regions[0].start > base:
        return None
    image = Image(regions, memory)
    try:
        name, exports = _read_exports(image, base, directory, length)
    except struct.error:
        return None
    return (image, name, exports) if exports.by_name else None


def _read_exports(image: Image, base: int, directory: int, length: int) -> tuple[str, Exports]:
    """Return the file's own name and its exports by name; those that forward to other files are left out."""
    content, shift = image.content, base - image.start
    names = struct.unpack_from("<IIII", content, shift + directory + 24)
    count, functions, name_table, ordinals = names
    count = min(count, MOST_EXPORTS)
    own = image.string(base + struct.unpack_from("<I", content, shift + directory + 12)[0]).decode("ascii", "replace")
    exports = Exports()
    places = struct.unpack_from(f"<{count}I", content, shift + name_table)
    indexes = struct.unpack_from(f"<{count}H", content, shift + ordinals)
    for place, index in zip(places, indexes, strict=True):
        value = struct.unpack_from("<I", content, shift + functions + 4 * index)[0]
        if value and not directory <= value < directory + length:
            exports.add(image.string(base + place).decode("ascii", "replace"), base + value)
    exports.settle()
    return own, exports


def _facts(image: Image, exports: Exports) -> Facts:
    """Return what the recipes find."""
    walker = Walker(Decoder(image), image.is_text, exports.by_address.__contains__, MICROSOFT)
    told = load_raw("windows")

    def walks(roots: Sequence[str]) -> Iterator[tuple[str, Walked]]:
        return ((root, walker.walk(exports.by_name[root])) for root in roots if root in exports.by_name)

    facts = Facts()
    for name, entry in told["returned"].items():
        of = ("result", exports.by_name.get(entry["of"])) if "of" in entry else ("arg", 0)
        facts.add(agree(name, OFFSET, _heard(_returned(walked, root, of) for root, walked in walks(entry["roots"]))))
    for rule, find in (("counted", _counted), ("indexed", _indexed)):
        for name, roots in told[rule].items():
            facts.add(agree(name, GLOBAL, _heard(_one(find(walked), root, image) for root, walked in walks(roots))))
    return facts


def _heard(witnesses: Iterable[Witness | None]) -> list[Witness]:
    return [witness for witness in witnesses if witness is not None]


def _returned(walked: Walked, root: str, of: Value) -> Witness | None:
    """P3: return the one field of `of` that the function returns."""
    found: dict[int, Witness] = {}
    for event in walked.events:
        if isinstance(event, Return) and event.result is not None and event.result[0] == "load":
            offset = offset_from(event.result[1], of)
            if offset is not None:
                trace = f"{root}: returns [{show(of)}+{offset:#x}] at {event.site:#x}"
                found.setdefault(offset, Witness(offset, root, "P3", event.site, trace))
    return next(iter(found.values())) if len(found) == 1 else None


def _counted(walked: Walked) -> Iterator[tuple[int, int]]:
    """Yield (address, site) of globals that the function reads and writes back."""
    read = {event.address for event in walked.events if isinstance(event, Access) and not event.write}
    for event in walked.events:
        address = constant(event.address) if isinstance(event, Access) and event.write else None
        if address is not None and isinstance(event, Access) and event.address in read:
            yield address, event.site


def _indexed(walked: Walked) -> Iterator[tuple[int, int]]:
    """Yield (address, site) of tables of pointers that the function indexes, or passes on."""
    for event in walked.events:
        values = (event.address,) if isinstance(event, Access) else event.arguments if isinstance(event, Call) else ()
        for value in values:
            if value is not None and value[0] == "index" and value[2] == 8:
                yield value[1], event.site


def _one(places: Iterator[tuple[int, int]], root: str, image: Image) -> Witness | None:
    """P4: return the one place in data."""
    found = {place: site for place, site in places if image.is_data(place)}
    if len(found) != 1:
        return None
    place, site = next(iter(found.items()))
    return Witness(place, root, "P4", site, f"{root}: works on {place:#x} at {site:#x}")
