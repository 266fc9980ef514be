"""Where something was saved: processor, kernel, microcode and what the probe found; and whether it may go on elsewhere.

A guest has chosen its code by what it saw when it started. It may go on where all of that is there, its saved
registers lie in the same places, and its blocks hold as its value requires. `compare` is pure.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, cast

from enisle.abi.cpuid import CpuidTable
from enisle.abi.x86_features import NAMES, XCR0_BITS
from enisle.errors import EnisleError, InvalidRequest, StateError
from enisle.machine.blocking.admission import check_tiers
from enisle.machine.blocking.baseline import OF_THE_SYSTEM
from enisle.machine.blocking.dumps import digest, take
from enisle.machine.blocking.kept import microcode
from enisle.machine.blocking.query import visible
from enisle.machine.blocking.value import BlockingValue
from enisle.records import Record

KIND = "fingerprint"


class Fingerprint(Record):
    """One host as a guest on one backend depends on it."""

    backend: str
    vendor: str
    model: str
    """Name, family, model, stepping."""
    microcode: str
    kernel: str
    cpuid: str
    """Digest of all answers of CPUID that are the same on every core."""
    features: tuple[str, ...]
    layout: tuple[tuple[int, int, int], ...]
    """Number, offset and size of each component of the XSAVE area."""
    findings: tuple[tuple[str, bool], ...]
    """What the probe found of the controls over instructions."""


class Comparison(Record):
    """Whether a guest may go on: `verdict` is "same", "compatible" or "refused"."""

    verdict: str
    reasons: tuple[str, ...] = ()
    """Why not, one line each."""
    notes: tuple[str, ...] = ()
    """What is different and does no harm."""


def fingerprint(backend: str) -> Fingerprint:
    """Take this host's, as guests on "kvm" or "emulated" see it. Raises HostError."""
    from enisle.machine.enforcement.tiers import probe_controls

    matrix = probe_controls(backend)._asdict()
    findings = tuple((name, bool(found)) for name, found in sorted(matrix.items()) if name != "backend")
    return of(take(backend), backend, (os.uname().release, microcode()), findings)


def of(table: CpuidTable, backend: str, system: tuple[str, str], findings: tuple[tuple[str, bool], ...]) -> Fingerprint:
    """Return the fingerprint of a processor; `system` is the host kernel's release and the microcode's revision."""
    family, model, stepping = table.model
    name = f"{table.brand or 'unnamed'}, family {family} model {model} stepping {stepping}"
    layout = tuple((bit, *place) for bit, place in sorted(table.layout().items()))
    kernel, revision = system
    known = tuple(sorted(table.features))
    return Fingerprint(backend, table.vendor, name, revision, kernel, digest(table), known, layout, findings)


# ---- comparing -------------------------------------------------------------------------------------------------------


def compare(
    saved: Fingerprint,
    here: Fingerprint,
    value: BlockingValue | None = None,
    tiers: Mapping[Any, int] | None = None,
    cross_vendor: bool = False,
) -> Comparison:
    """Say whether a guest of `saved` may go on `here`; `tiers` are those of `here`, for a value that requires some."""
    value = value or BlockingValue()
    seen = visible(value, frozenset(saved.features))
    reasons = [*_processor_reasons(saved, here, cross_vendor), *_feature_reasons(value, seen, here)]
    reasons += _layout_reasons(seen, saved, here)
    if tiers is not None and value.require != "none":
        reasons += _tier_reasons(value, here, tiers)
    if reasons:
        return Comparison("refused", tuple(reasons))
    if saved == here:
        return Comparison("same")
    return Comparison("compatible", (), tuple(_notes(value, seen, saved, here)))


def _processor_reasons(saved: Fingerprint, here: Fingerprint, cross_vendor: bool) -> list[str]:
    if saved.vendor == here.vendor or cross_vendor:
        return []
    return [f"another vendor: {saved.vendor}, here {here.vendor}"]


def _feature_reasons(value: BlockingValue, seen: frozenset[str], here: Fingerprint) -> list[str]:
    used = seen - OF_THE_SYSTEM - value.emulated
    missing = sorted(used - frozenset(here.features))
    return [f"missing: {', '.join(missing)}"] if missing else []


def _layout_reasons(seen: frozenset[str], saved: Fingerprint, here: Fingerprint) -> list[str]:
    there = {bit: (offset, size) for bit, offset, size in here.layout}
    moved: list[str] = []
    for bit, offset, size in saved.layout:
        if XCR0_BITS.get(bit) in seen and there.get(bit) not in (None, (offset, size)):
            moved.append(f"{XCR0_BITS[bit]} at {offset}+{size}, here {there[bit][0]}+{there[bit][1]}")
    return [f"saved registers lie elsewhere: {'; '.join(moved)}"] if moved else []


def _tier_reasons(value: BlockingValue, here: Fingerprint, tiers: Mapping[Any, int]) -> list[str]:
    try:
        check_tiers(value, frozenset(here.features), tiers)
    except EnisleError as error:
        return [error.why]
    return []


def _notes(value: BlockingValue, seen: frozenset[str], saved: Fingerprint, here: Fingerprint) -> list[str]:
    pairs = (
        ("processor", saved.model, here.model),
        ("microcode", saved.microcode, here.microcode),
        ("kernel", saved.kernel, here.kernel),
        ("backend", saved.backend, here.backend),
        ("vendor", saved.vendor, here.vendor),
    )
    notes = [f"{name}: {before or 'unknown'}, here {now or 'unknown'}" for name, before, now in pairs if before != now]
    untold = sorted(seen & OF_THE_SYSTEM - frozenset(here.features))
    if untold:
        notes.append(f"not told here, and of no use to programs: {', '.join(untold)}")
    gained = sorted(visible(value, frozenset(here.features)) - seen)
    if gained:
        notes.append(f"also there: {', '.join(gained)}")
    lost = sorted(name for name, found in saved.findings if found and not dict(here.findings).get(name))
    if lost:
        notes.append(f"controls without effect here: {', '.join(lost)}")
    if not notes:
        notes.append("CPUID differs in what is no feature")
    return notes


def require(comparison: Comparison) -> None:
    """Raise StateError when the guest may not go on."""
    if comparison.verdict == "refused":
        hint = "start it under a baseline of both hosts: enisle cpu baseline"
        raise StateError("the guest cannot go on this host", "; ".join(comparison.reasons), hint)


# ---- files -----------------------------------------------------------------------------------------------------------


def dump(taken: Fingerprint) -> str:
    """Return the text of a file."""
    record = taken._asdict()
    return json.dumps({"enisle": KIND, **record, "digest": _digest(record)}, indent=1) + "\n"


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def load(text: str, source: str) -> Fingerprint:
    """Return the fingerprint of a file. Raises InvalidRequest for one that is damaged or something else."""
    hint = "enisle cpu fingerprint --output FILE writes one"
    try:
        found = json.loads(text)
        record = cast("dict[str, Any]", found)
        if not isinstance(found, dict) or record.pop("enisle", "") != KIND:
            raise ValueError('it does not say "enisle": "fingerprint"')
        if record.pop("digest", "") != _digest(record):
            raise ValueError("its digest is not that of its content")
        taken = Fingerprint(**record)
        layout = tuple((bit, offset, size) for bit, offset, size in taken.layout)
        findings = tuple((str(name), bool(value)) for name, value in taken.findings)
        if not NAMES.issuperset(taken.features):
            raise ValueError(f"features unknown here: {', '.join(sorted(set(taken.features) - NAMES))}")
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest(f"{source} is no fingerprint", str(error), hint) from None
    return taken._replace(features=tuple(taken.features), layout=layout, findings=findings)
