"""What a processor is, as a file: every answer of CPUID, written by one host and read by another.

    {"enisle": "processor", "backend": …, "xcr0": …, "entries": [[leaf, subleaf, eax, ebx, ecx, edx], …], "digest": …}

`stable` leaves out what tells one core from the next, so that two cores of one host are equal.
"""

import hashlib
import json
from typing import Any, cast

from enisle.abi.cpuid import Answer, CpuidTable, Leaf, from_record, host_table, to_record
from enisle.abi.x86_features import U32
from enisle.errors import InvalidRequest
from enisle.machine.blocking.apart import apart

KIND = "processor"
PER_CORE: dict[int, Answer] = {
    0x1: (U32, 0x00FF_FFFF, U32, U32),  # initial APIC id
    0xB: (U32, U32, U32, 0),  # x2APIC id
    0x1A: (0, 0, 0, 0),  # kind of core
    0x1F: (U32, U32, U32, 0),
    0x8000_001E: (0, U32 & ~0xFF, U32 & ~0xFF, U32),  # APIC id, core id, node id
    0x8000_0026: (U32, U32, U32, 0),
}
"""Which bits of a leaf are the same on all cores of a processor."""
SIZES = {0xD: (U32, 0, U32, U32)}
"""Subleaves 0 and 1 tell in EBX the size for what is enabled now, by whoever asks."""


def take(backend: str) -> CpuidTable:
    """Return what a processor answers: of the host itself, or as a guest on "kvm" or "emulated" sees it."""
    if backend == "host":
        return host_table()
    from enisle.machine.blocking.backing import measure_backend

    return from_record(apart(lambda: to_record(measure_backend(backend))))


def stable(table: CpuidTable) -> dict[Leaf, Answer]:
    """Return the entries without what tells one core, or one moment, from the next."""
    kept: dict[Leaf, Answer] = {}
    for (leaf, subleaf), answer in table.entries.items():
        masks = PER_CORE.get(leaf) or (SIZES.get(leaf) if subleaf < 2 else None)
        a, b, c, d = answer
        kept[leaf, subleaf] = (a & masks[0], b & masks[1], c & masks[2], d & masks[3]) if masks else answer
    return kept


def digest(table: CpuidTable) -> str:
    """Return SHA-256 of the stable entries and XCR0."""
    words = [[*place, *answer] for place, answer in sorted(stable(table).items())]
    return hashlib.sha256(json.dumps([table.xcr0, words]).encode()).hexdigest()


def dump(table: CpuidTable, backend: str) -> dict[str, Any]:
    """Return the record of a file."""
    about = {"vendor": table.vendor, "brand": table.brand, "model": list(table.model)}
    features = sorted(table.features)
    return {
        "enisle": KIND,
        "backend": backend,
        **about,
        "features": features,
        **to_record(table),
        "digest": digest(table),
    }


def load(text: str, source: str) -> CpuidTable:
    """Return the table of a file. Raises InvalidRequest for one that is damaged or something else."""
    hint = "enisle cpu dump --output FILE writes one"
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{source} is no dump of a processor", f"it is no JSON, or cut off: {error}", hint
        ) from None
    if not isinstance(record, dict) or cast("dict[str, Any]", record).get("enisle") != KIND:
        raise InvalidRequest(f"{source} is no dump of a processor", 'it does not say "enisle": "processor"', hint)
    record = cast("dict[str, Any]", record)
    try:
        table = from_record(record)
        sound = all(isinstance(word, int) and 0 <= word <= U32 for entry in record["entries"] for word in entry)
        sound = sound and 0 <= table.xcr0 < 1 << 64 and (1, 0) in table.entries
        told = record["digest"]
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidRequest(f"{source} is damaged", f"{type(error).__name__}: {error}", hint) from None
    if not sound or digest(table) != told:
        raise InvalidRequest(f"{source} is damaged", "its digest is not that of its content", hint)
    return table


def strip(tables: dict[str, CpuidTable]) -> dict[str, list[list[int]]]:
    """Return for each named processor the entries in which it differs from another; of a single one the stable ones."""
    kept = {name: stable(table) for name, table in tables.items()}
    if len(kept) > 1:
        first = next(iter(kept.values()))
        same = {place for place in first if all(entries.get(place) == first[place] for entries in kept.values())}
        kept = {name: {p: a for p, a in entries.items() if p not in same} for name, entries in kept.items()}
    return {name: [[*place, *answer] for place, answer in sorted(entries.items())] for name, entries in kept.items()}
